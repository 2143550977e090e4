"""The contract of learners. A new learner adds its maker to `BOX` or `CHOICE`."""

import copy
import math

import pytest
import torch

from mbrl.data import Replay
from mbrl.distributions import Bounds
from mbrl.dynamics import Analytic
from mbrl.learners.actor_critic import OffPolicyActorCritic
from mbrl.learners.configs import SACConfig
from mbrl.learners.ddpg import DDPG
from mbrl.learners.dqn import DQN
from mbrl.learners.fqi import FQI
from mbrl.learners.on_policy_configs import OffPolicyActorCriticConfig
from mbrl.learners.sac import SAC, DiscreteSAC
from mbrl.learners.svg import SVG, SVGConfig, World
from mbrl.learners.value_configs import DDPGConfig, DQNConfig, FQIConfig, TD3Config
from mbrl.training import fit_offline
from mbrl.types import Learner, Transition
from tests.equal import same
from tests.proof.deterministic_policy_gradient import Config, DeterministicPolicyGradient

STATE, ACTION = 2, 2
LOW, HIGH = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Box:
    """Actions in the box [LOW, HIGH]; the reward is greater the closer they are to half the state.

    It is 0 for the best action, and negative for others.
    """

    shape, dtype = (ACTION,), torch.float32

    @staticmethod
    def draw(count, g):
        return LOW + (HIGH - LOW) * torch.rand(count, ACTION, generator=g)

    @staticmethod
    def reward(state, action):
        return -(action - state / 2).square().sum(-1)

    @staticmethod
    def contains(action):
        return ((action >= LOW) & (action <= HIGH)).all()


class Choice:
    """Three actions, each a direction; the reward is 0 for the one that fits the state best."""

    shape, dtype = (), torch.int64
    directions = torch.tensor([[1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]])

    @staticmethod
    def draw(count, g):
        return torch.randint(3, (count,), generator=g)

    @classmethod
    def reward(cls, state, action):
        fit = state @ cls.directions.T
        return fit.gather(-1, action[..., None]).squeeze(-1) - fit.amax(-1)

    @staticmethod
    def contains(action):
        return ((action >= 0) & (action < 3)).all()


def soft(seed, **settings):
    config = SACConfig(
        hidden=(32,), discount=0.9, learning_rate=1e-2, first_temperature=0.01, **settings
    )
    return SAC(STATE, Bounds(LOW, HIGH), config, generator=seeded(seed))


def discrete_soft(seed):
    config = SACConfig(hidden=(32,), discount=0.9, learning_rate=1e-2, temperature=0.01)
    return DiscreteSAC(STATE, 3, config, generator=seeded(seed))


def deterministic(seed, kind=DDPGConfig, **settings):
    config = kind(hidden=(32,), discount=0.9, learning_rate=5e-3, noise=0.3, **settings)
    return DDPG(STATE, Bounds(LOW, HIGH), config, generator=seeded(seed))


def dqn(seed, **settings):
    config = DQNConfig(
        hidden=(32, 16), discount=0.9, learning_rate=5e-3, target_every=3, **settings
    )
    return DQN(STATE, 3, config, generator=seeded(seed))


def fqi(seed):
    config = FQIConfig(hidden=(32,), discount=0.9, learning_rate=5e-3, updates=3)
    learner = FQI(STATE, 3, config, generator=seeded(seed))
    learner.policy.amount = 0.5  # a data set needs no exploration, so it is 0 by default
    return learner


def off_policy_critic(seed, actions):
    config = OffPolicyActorCriticConfig(
        hidden=(32,), discount=0.9, learning_rate=1e-2, value_learning_rate=1e-2,
        squash=True, first_std=0.5, polyak=0.1,
    )  # fmt: skip
    return OffPolicyActorCritic(STATE, actions, config, generator=seeded(seed))


def through_model(seed, **settings):
    config = SVGConfig(
        hidden=(32,), discount=0.9, learning_rate=1e-2, first_temperature=0.01, **settings
    )
    made = SVG(STATE, Bounds(LOW, HIGH), config, generator=seeded(seed))

    def mean(state, action, value):
        return state + 0 * action

    made.world = World(
        Analytic(mean, torch.ones(STATE), torch.zeros(2)),
        reward=lambda obs, action, after: Box.reward(obs, action),
        terminated=lambda after: torch.ones(after.shape[:-1], dtype=torch.bool),
    )
    return made


BOX = {
    "deterministic policy gradient": lambda seed=0: DeterministicPolicyGradient(
        STATE, LOW, HIGH, Config(hidden=(16,)), generator=seeded(seed)
    ),
    "SAC": lambda seed=0: soft(seed),
    "REDQ": lambda seed=0: soft(seed, critics=4, subset=2, mean_of_critics=True),
    "DroQ": lambda seed=0: soft(seed, norm="layer", dropout=0.05),
    "CrossQ": lambda seed=0: soft(seed, norm="batch-after", target=False, beta1=0.5, actor_every=2),
    "XQC": lambda seed=0: soft(seed, norm="batch", unit_weights=True, atoms=51),
    "DDPG": lambda seed=0: deterministic(seed),
    "TD3": lambda seed=0: deterministic(seed, TD3Config),
    "off-policy actor-critic": lambda seed=0: off_policy_critic(seed, Bounds(LOW, HIGH)),
    "SVG": lambda seed=0: through_model(seed),
    "SVG, critics of real steps": lambda seed=0: through_model(seed, critic_steps="real"),
    "backpropagation": lambda seed=0: through_model(seed, tail=False),
}
"""name -> make(seed) -> a fresh learner of states (2,) and actions in the box [LOW, HIGH]."""

CHOICE = {
    "discrete SAC": lambda seed=0: discrete_soft(seed),
    "DQN": lambda seed=0: dqn(seed),
    "double DQN": lambda seed=0: dqn(seed, double=True, polyak=0.5, huber=None),
    "dueling DQN": lambda seed=0: dqn(seed, dueling=True),
    "Boltzmann": lambda seed=0: dqn(seed, exploration="boltzmann"),
    "C51": lambda seed=0: dqn(seed, atoms=21, double=True),
    "QR-DQN": lambda seed=0: dqn(seed, quantiles=15, dueling=True),
    "FQI": lambda seed=0: fqi(seed),
    "discrete off-policy actor-critic": lambda seed=0: off_policy_critic(seed, 3),
}
"""name -> make(seed) -> a fresh learner of states (2,) and actions 0, 1 and 2."""

CASES = {name: (make, Box) for name, make in BOX.items()} | {
    name: (make, Choice) for name, make in CHOICE.items()
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request):
    return request.param


@pytest.fixture
def make(case):
    return case[0]


@pytest.fixture
def space(case):
    return case[1]


def batch(space, count=32, seed=0):
    """Each step is an episode."""
    g = seeded(seed)
    state, after = torch.randn(2, count, STATE, generator=g)
    action = space.draw(count, g)
    ends = torch.ones(count, dtype=torch.bool)
    return Transition(state, action, space.reward(state, action), after, ends, ~ends)


def act(learner, state, *, explore=False, seed=5):
    with torch.no_grad():
        return learner.policy(state, generator=seeded(seed), explore=explore)


def updates(learner, count, space, seed=3):
    g = seeded(seed)
    return [dict(learner.update(batch(space, seed=k), generator=g)) for k in range(count)]


def test_every_learner_satisfies_the_protocol(make):
    assert isinstance(make(), Learner)


@pytest.mark.parametrize("lead", [(), (1,), (7,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("explore", [False, True])
def test_a_policy_takes_any_leading_dimensions_and_stays_in_the_bounds(make, space, lead, explore):
    learner = make()
    updates(learner, 3, space)
    action = act(learner, 3 * torch.randn(*lead, STATE, generator=seeded()), explore=explore)
    assert action.shape == (*lead, *space.shape) and action.dtype == space.dtype
    assert space.contains(action)


def test_the_policy_acts_on_each_state_separately(make):
    learner, state = make(), torch.randn(3, 4, STATE, generator=seeded())
    each = torch.stack([act(learner, one) for one in state.flatten(0, 1)])
    torch.testing.assert_close(each, act(learner, state).flatten(0, 1))


def test_exploration_draws_only_from_the_generator(make, space):
    learner, state = make(), torch.zeros(64, STATE)
    global_state = torch.get_rng_state()
    first, again, other = (act(learner, state, explore=True, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    updates(learner, 2, space)
    assert torch.equal(global_state, torch.get_rng_state())


def test_updates_are_equal_only_for_equal_seeds(make, space):
    first, again, other = make(), make(), make(1)
    assert updates(first, 5, space) == updates(again, 5, space) != updates(other, 5, space)
    state = torch.randn(9, STATE, generator=seeded())
    assert torch.equal(act(first, state), act(again, state))
    assert not torch.equal(act(first, state), act(other, state))


def test_metrics_of_an_update_are_finite_numbers_by_name(make, space):
    for said in updates(make(), 5, space):
        assert said and all(isinstance(name, str) for name in said)
        assert all(math.isfinite(float(value)) for value in said.values())


def test_an_update_does_not_change_the_batch(make, space):
    given = batch(space)
    kept = [part.clone() for part in given]
    make().update(given, generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


@pytest.mark.parametrize("before", [0, 4])
def test_saving_and_loading_give_the_same_actions_and_the_same_next_updates(
    make, space, before, tmp_path
):
    """The state is saved in a file of tensors and plain values."""
    learner, other = make(), make(7)
    updates(learner, before, space)
    updates(other, 6, space)  # its state before loading must have no effect
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    state = torch.randn(9, STATE, generator=seeded())
    for _ in range(3):
        assert torch.equal(act(learner, state), act(other, state))
        assert updates(learner, 2, space) == updates(other, 2, space)


def test_updates_improve_the_policy_on_a_toy_problem(make, space):
    """In a bandit whose best action depends on the state, the loss decreases to a quarter."""
    learner, data = make(), Replay(2000, STATE, space.shape, action_dtype=space.dtype)
    data.append(batch(space, 2000))
    state = torch.randn(500, STATE, generator=seeded(9))
    before = -space.reward(state, act(learner, state)).mean()
    fit_offline(learner, data, updates=400, batch=64, generator=seeded(1))
    assert -space.reward(state, act(learner, state)).mean() < before / 4


@pytest.mark.parametrize("name", BOX)
def test_gradients_reach_the_policy_from_its_actions(name):
    learner, state = BOX[name](), torch.randn(4, STATE, generator=seeded()).requires_grad_()
    action = learner.policy(state, generator=seeded(), explore=False)
    Box.reward(torch.zeros(4, STATE), action - 1).sum().backward()
    assert state.grad is not None and state.grad.isfinite().all()
    assert (state.grad.abs().sum(-1) > 0).all()


WRONG = {
    "obs of another size": ("obs", lambda x: x[:, :1], "obs must have shape"),
    "an action short": ("action", lambda x: x[1:], "action must have shape"),
    "reward as a column": ("reward", lambda x: x[:, None], "must have shape"),
    "nan in next_obs": ("next_obs", lambda x: x * math.nan, "next_obs holds a number"),
    "infinite reward": ("reward", lambda x: x + math.inf, "reward holds a number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_invalid_batch_is_refused_and_changes_nothing(make, space, name):
    column, spoil, said = WRONG[name]
    learner, given = make(), batch(space)
    updates(learner, 2, space)
    before = copy.deepcopy(learner.state_dict())
    with pytest.raises(ValueError, match=said) as error:
        learner.update(given._replace(**{column: spoil(getattr(given, column))}),
                       generator=seeded())  # fmt: skip
    assert "\n" not in str(error.value)
    assert same(before, learner.state_dict())


def test_the_state_of_another_learner_is_refused(make):
    with pytest.raises((ValueError, KeyError, RuntimeError)):
        make().load_state_dict({"nets": {}})
