"""The contract of learners. A new learner adds its maker to `MAKERS`."""

import copy
import math

import pytest
import torch

from mbrl.data import Replay
from mbrl.distributions import Bounds
from mbrl.learners.configs import SACConfig
from mbrl.learners.sac import SAC
from mbrl.training import fit_offline
from mbrl.types import Learner, Transition
from tests.proof.deterministic_policy_gradient import Config, DeterministicPolicyGradient

STATE, ACTION = 2, 2
LOW, HIGH = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def soft(seed, **settings):
    config = SACConfig(
        hidden=(32,), discount=0.9, learning_rate=1e-2, first_temperature=0.01, **settings
    )
    return SAC(STATE, Bounds(LOW, HIGH), config, generator=seeded(seed))


MAKERS = {
    "deterministic policy gradient": lambda seed=0: DeterministicPolicyGradient(
        STATE, LOW, HIGH, Config(hidden=(16,)), generator=seeded(seed)
    ),
    "SAC": lambda seed=0: soft(seed),
    "REDQ": lambda seed=0: soft(seed, critics=4, subset=2, mean_of_critics=True),
    "DroQ": lambda seed=0: soft(seed, norm="layer", dropout=0.05),
    "CrossQ": lambda seed=0: soft(seed, norm="batch-after", target=False, beta1=0.5, actor_every=2),
    "XQC": lambda seed=0: soft(seed, norm="batch", unit_weights=True, atoms=51),
}
"""name -> make(seed) -> a fresh learner of states (2,) and actions in the box [LOW, HIGH]."""


@pytest.fixture(params=MAKERS.values(), ids=list(MAKERS))
def make(request):
    return request.param


def batch(count=32, seed=0):
    """The reward is greater the closer the action is to half the state; each step is an episode."""
    g = seeded(seed)
    state, after = torch.randn(2, count, STATE, generator=g)
    action = LOW + (HIGH - LOW) * torch.rand(count, ACTION, generator=g)
    ends = torch.ones(count, dtype=torch.bool)
    return Transition(state, action, toy_reward(state, action), after, ends, ~ends)


def toy_reward(state, action):
    return -(action - state / 2).square().sum(-1)


def act(learner, state, *, explore=False, seed=5):
    with torch.no_grad():
        return learner.policy(state, generator=seeded(seed), explore=explore)


def updates(learner, count, seed=3):
    g = seeded(seed)
    return [dict(learner.update(batch(seed=k), generator=g)) for k in range(count)]


def test_every_learner_satisfies_the_protocol(make):
    assert isinstance(make(), Learner)


@pytest.mark.parametrize("lead", [(), (1,), (7,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("explore", [False, True])
def test_a_policy_takes_any_leading_dimensions_and_stays_in_the_bounds(make, lead, explore):
    learner = make()
    updates(learner, 3)
    action = act(learner, 3 * torch.randn(*lead, STATE, generator=seeded()), explore=explore)
    assert action.shape == (*lead, ACTION) and action.dtype == torch.float32
    assert ((action >= LOW) & (action <= HIGH)).all()


def test_the_policy_acts_on_each_state_separately(make):
    learner, state = make(), torch.randn(3, 4, STATE, generator=seeded())
    each = torch.stack([act(learner, one) for one in state.flatten(0, 1)])
    torch.testing.assert_close(each, act(learner, state).flatten(0, 1))


def test_exploration_draws_only_from_the_generator(make):
    learner, state = make(), torch.zeros(64, STATE)
    global_state = torch.get_rng_state()
    first, again, other = (act(learner, state, explore=True, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    updates(learner, 2)
    assert torch.equal(global_state, torch.get_rng_state())


def test_updates_are_equal_only_for_equal_seeds(make):
    first, again, other = make(), make(), make(1)
    assert updates(first, 5) == updates(again, 5) != updates(other, 5)
    state = torch.randn(9, STATE, generator=seeded())
    assert torch.equal(act(first, state), act(again, state))
    assert not torch.equal(act(first, state), act(other, state))


def test_metrics_of_an_update_are_finite_numbers_by_name(make):
    for said in updates(make(), 5):
        assert said and all(isinstance(name, str) for name in said)
        assert all(math.isfinite(float(value)) for value in said.values())


def test_an_update_does_not_change_the_batch(make):
    given = batch()
    kept = [part.clone() for part in given]
    make().update(given, generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


@pytest.mark.parametrize("before", [0, 4])
def test_saving_and_loading_give_the_same_actions_and_the_same_next_updates(make, before, tmp_path):
    """The state is saved in a file of tensors and plain values."""
    learner, other = make(), make(7)
    updates(learner, before)
    updates(other, 6)  # its state before loading must have no effect
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    state = torch.randn(9, STATE, generator=seeded())
    for _ in range(3):
        assert torch.equal(act(learner, state), act(other, state))
        assert updates(learner, 2) == updates(other, 2)


def test_updates_improve_the_policy_on_a_toy_problem(make):
    """In a bandit whose best action is half the state, the loss decreases to a quarter."""
    learner, data = make(), Replay(2000, STATE, ACTION)
    data.append(batch(2000))
    state = torch.randn(500, STATE, generator=seeded(9))
    before = -toy_reward(state, act(learner, state)).mean()
    fit_offline(learner, data, updates=400, batch=64, generator=seeded(1))
    assert -toy_reward(state, act(learner, state)).mean() < before / 4


def test_gradients_reach_the_policy_from_its_actions(make):
    learner, state = make(), torch.randn(4, STATE, generator=seeded()).requires_grad_()
    action = learner.policy(state, generator=seeded(), explore=False)
    toy_reward(torch.zeros(4, STATE), action - 1).sum().backward()
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
def test_an_invalid_batch_is_refused_and_changes_nothing(make, name):
    column, spoil, said = WRONG[name]
    learner, given = make(), batch()
    updates(learner, 2)
    before = copy.deepcopy(learner.state_dict())
    with pytest.raises(ValueError, match=said) as error:
        learner.update(given._replace(**{column: spoil(getattr(given, column))}),
                       generator=seeded())  # fmt: skip
    assert "\n" not in str(error.value)
    assert same(before, learner.state_dict())


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_the_state_of_another_learner_is_refused(make):
    with pytest.raises((ValueError, KeyError, RuntimeError)):
        make().load_state_dict({"nets": {}})
