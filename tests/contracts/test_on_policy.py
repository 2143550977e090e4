"""The contract of learners from rollouts. A new one adds its maker to `MAKERS`."""

import copy
import math

import pytest
import torch

from mbrl.distributions import Bounds
from mbrl.learners.a2c import A2C
from mbrl.learners.actor_critic import ActorCritic
from mbrl.learners.off_policy_pg import OffPolicyPG
from mbrl.learners.on_policy_configs import (
    A2CConfig,
    ActorCriticConfig,
    OffPolicyPGConfig,
    PPOConfig,
    ReinforceConfig,
    TRPOConfig,
)
from mbrl.learners.ppo import PPO
from mbrl.learners.reinforce import Reinforce
from mbrl.learners.trpo import TRPO
from mbrl.nn import Diverged
from mbrl.types import Learner, Transition
from tests.equal import same

STATE, STEPS, COUNT = 2, 16, 4
LOW, HIGH = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0])
BOX, CHOICES, MANY = Bounds(LOW, HIGH), 3, (3, 2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def maker(kind, config, actions=BOX, **settings):
    def make(seed=0):
        own = {"hidden": (16,), "discount": 0.9} | settings
        return kind(STATE, actions, config(**own), generator=seeded(seed))

    return make


MAKERS = {
    "REINFORCE": maker(Reinforce, ReinforceConfig, learning_rate=5e-2),
    "REINFORCE return": maker(
        Reinforce, ReinforceConfig, to_go=False, baseline="none", learning_rate=5e-2
    ),
    "REINFORCE mean": maker(
        Reinforce, ReinforceConfig, CHOICES, baseline="mean", learning_rate=3e-2
    ),
    "REINFORCE optimal": maker(Reinforce, ReinforceConfig, baseline="optimal", learning_rate=3e-2),
    "off-policy gradient": maker(OffPolicyPG, OffPolicyPGConfig, learning_rate=3e-2),
    "actor-critic": maker(ActorCritic, ActorCriticConfig, learning_rate=3e-2),
    "A2C": maker(A2C, A2CConfig, learning_rate=3e-2),
    "A2C discrete": maker(A2C, A2CConfig, CHOICES, learning_rate=3e-2),
    "TRPO": maker(TRPO, TRPOConfig, value_updates=2),
    "TRPO discrete": maker(TRPO, TRPOConfig, CHOICES, value_updates=2),
    "TRPO gSDE": maker(TRPO, TRPOConfig, value_updates=2, gsde=True, first_std=0.3),
    "PPO": maker(PPO, PPOConfig, learning_rate=1e-2, batch=32, epochs=4),
    "PPO penalty": maker(
        PPO, PPOConfig, objective="penalty", learning_rate=1e-2, batch=32, epochs=4
    ),
    "PPO squashed": maker(PPO, PPOConfig, squash=True, learning_rate=1e-2, batch=32, epochs=4),
    "PPO gSDE": maker(
        PPO, PPOConfig, gsde=True, first_std=0.3, learning_rate=1e-2, batch=32, epochs=4
    ),
    "PPO discrete": maker(
        PPO,
        PPOConfig,
        CHOICES,
        learning_rate=1e-2,
        epochs=4,
        objective="both",
        value_clip=0.2,
        max_kl=0.05,
    ),
    "PPO multi-discrete": maker(
        PPO, PPOConfig, MANY, learning_rate=1e-2, epochs=4, entropy_weight=0.01
    ),
}
"""name -> make(seed) -> a fresh learner of states (2,) and actions BOX, CHOICES or MANY."""


@pytest.fixture(params=MAKERS.values(), ids=list(MAKERS))
def make(request):
    return request.param


def rollout(learner, seed=0, steps=STEPS):
    """Each step is an episode; the reward is greater the closer the action is to a target."""
    g = seeded(seed)
    state, after = torch.randn(2, steps, COUNT, STATE, generator=g)
    with torch.no_grad():
        own = learner.policy.draw(state, generator=g)
        reward = toy_reward(state, learner.policy.emit(own))
    ends = torch.ones(steps, COUNT, dtype=torch.bool)
    return Transition(state, own, reward, after, ends, ~ends)


def toy_reward(state, action):
    """Half the state is best in the box; of indices, the first where the state is positive."""
    if action.is_floating_point():
        return -(action - state / 2).square().sum(-1)
    if action.ndim == state.ndim:
        return (action == (state < 0)).float().sum(-1)
    return (action == (state[..., 0] < 0)).float()


def act(learner, state, *, explore=False, seed=5):
    with torch.no_grad():
        return learner.policy(state, generator=seeded(seed), explore=explore)


def updates(learner, count, seed=3):
    g = seeded(seed)
    return [dict(learner.update(rollout(learner, k), generator=g)) for k in range(count)]


def test_every_learner_satisfies_the_protocol(make):
    assert isinstance(make(), Learner)


@pytest.mark.parametrize("lead", [(), (7,), (2, 3, 4)])
@pytest.mark.parametrize("explore", [False, True])
def test_a_policy_takes_any_leading_dimensions_and_stays_in_the_bounds(make, lead, explore):
    learner = make()
    updates(learner, 2)
    action = act(learner, 3 * torch.randn(*lead, STATE, generator=seeded()), explore=explore)
    if action.is_floating_point():
        assert action.shape == (*lead, STATE)
        assert ((action >= LOW) & (action <= HIGH)).all()
    else:
        assert action.shape[: len(lead)] == lead and action.ndim - len(lead) in (0, 1)
        assert ((action >= 0) & (action < CHOICES)).all()


def test_updates_are_equal_only_for_equal_seeds_and_draw_from_the_generator(make):
    global_state = torch.get_rng_state()
    first, again, other = make(), make(), make(1)
    assert updates(first, 3) == updates(again, 3) != updates(other, 3)
    state = torch.randn(9, STATE, generator=seeded())
    drawn = [act(each, state, explore=True) for each in (first, again)]
    assert torch.equal(*drawn)
    assert torch.equal(global_state, torch.get_rng_state())


def test_metrics_of_an_update_are_finite_numbers_by_name(make):
    for said in updates(make(), 3):
        assert said and all(isinstance(name, str) for name in said)
        assert all(math.isfinite(value) for value in said.values())


def test_an_update_does_not_change_the_batch(make):
    learner = make()
    given = rollout(learner)
    kept = [part.clone() for part in given]
    learner.update(given, generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


def test_one_environment_is_a_batch_of_time_alone(make):
    first, second = make(), make()
    batch = rollout(first)
    row = Transition._make(column[:, :1] for column in batch)
    flat = Transition._make(column[:, 0] for column in batch)
    assert first.update(row, generator=seeded()) == second.update(flat, generator=seeded())


@pytest.mark.parametrize("before", [0, 3])
def test_saving_and_loading_give_the_same_actions_and_the_same_next_updates(make, before, tmp_path):
    learner, other = make(), make(7)
    updates(learner, before)
    updates(other, 4)  # its state before loading must have no effect
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    state = torch.randn(9, STATE, generator=seeded())
    for _ in range(2):
        assert torch.equal(act(learner, state), act(other, state))
        assert updates(learner, 2) == updates(other, 2)


def test_updates_improve_the_policy_on_a_toy_problem(make):
    """The mean reward of exploration moves half of the way to the best at least."""
    learner = make()
    policy = learner.policy
    most = 0.0 if hasattr(policy, "squash") else len(getattr(policy, "sizes", [CHOICES]))
    before = rollout(learner, 99, 200).reward.mean()
    g = seeded(1)
    for k in range(60):
        learner.update(rollout(learner, 100 + k), generator=g)
    assert rollout(learner, 99, 200).reward.mean() > (before + most) / 2


def test_an_invalid_batch_is_refused_and_changes_nothing(make):
    wrong = {
        "obs": (lambda x: x[..., :1], "obs must have shape"),
        "action": (lambda x: x[1:], "action must have shape"),
        "reward": (lambda x: x[..., None], "must have shape"),
        "next_obs": (lambda x: x * math.nan, "next_obs holds a number"),
        "terminated": (lambda x: x[:, :1], "terminated must have shape"),
    }
    learner = make()
    updates(learner, 1)
    given, before = rollout(learner), copy.deepcopy(learner.state_dict())
    for column, (spoil, said) in wrong.items():
        spoilt = given._replace(**{column: spoil(getattr(given, column))})
        with pytest.raises(ValueError, match=said) as error:
            learner.update(spoilt, generator=seeded())
        assert "\n" not in str(error.value)
    assert same(before, learner.state_dict())


def test_the_state_of_another_learner_is_refused(make):
    for state in ({"nets": {}}, {"blocks": {"other": {}}, "steps": 0, "beta": 1.0}):
        with pytest.raises((ValueError, KeyError)):
            make().load_state_dict(state)


def test_rewards_of_a_billion_leave_all_numbers_finite(make):
    learner = make()
    for k in range(3):
        given = rollout(learner, k)
        said = learner.update(given._replace(reward=1e9 * given.reward), generator=seeded(k))
        assert all(math.isfinite(value) for value in said.values())


def test_equal_rewards_and_single_steps_leave_all_numbers_finite(make):
    learner = make()
    given = rollout(learner)
    learner.update(given._replace(reward=torch.zeros(STEPS, COUNT)), generator=seeded())
    said = learner.update(
        Transition._make(column[:1, :1] for column in rollout(learner)), generator=seeded()
    )
    assert all(math.isfinite(value) for value in said.values())


def test_parameters_that_are_not_finite_are_reported(make):
    learner = make()
    given = rollout(learner)
    next(iter(learner.blocks.values())).value.data.fill_(math.nan)
    with pytest.raises((Diverged, ValueError), match="became nan|NaN|nan") as error:
        learner.update(given, generator=seeded())
    assert isinstance(error.value, Diverged)


def test_the_step_size_decreases_to_zero():
    learner = maker(PPO, PPOConfig, last_learning_rate=0.0, learning_rate=3e-3)()
    learner.run_for(3 * STEPS * COUNT)
    rates = [said["learning_rate"] for said in updates(learner, 4)]
    assert rates == pytest.approx([3e-3, 2e-3, 1e-3, 0.0])
