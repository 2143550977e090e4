"""The policy gradient from imagined rollouts: what it imagines, learns, compares and refuses."""

import dataclasses

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from mbrl.agents import mb_pg
from mbrl.dynamics import EnsembleConfig
from mbrl.training import run_agent, vector
from mbrl.types import Spec, Step, Transition

LINE = Spec(Box(-np.inf, np.inf, (1,)), Box(-2.0, 2.0, (1,)), ends=False, episode_steps=4)
CHOICE = LINE._replace(action=Discrete(3, start=5))
BASES = ("trpo", "ppo", "a2c", "actor-critic", "reinforce")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Line:
    """Member e moves the state by the action plus e, and ends it at `wall`; the reward is s'."""

    members, noise_shape = 2, (0,)

    def __init__(self, wall=np.inf, effect=lambda action: action[..., :1]):
        self.wall, self.effect, self.taken = wall, effect, []

    def encode(self, obs, *, state=None, action=None):
        return obs

    def decode(self, state):
        return state

    def step(self, state, action, *, noise):
        self.taken.append(action)
        after = state + self.effect(action) + torch.arange(2.0).view(2, 1, 1)
        return Step(after, after[..., 0], after[..., 0] >= self.wall)


def made(spec=LINE, fake=None, seed=0, **settings):
    small = EnsembleConfig(members=2, hidden=(8,), epochs=2, learn_reward=True)
    given = {"model": small, "learning_starts": 8, "fit_every": 8, "rounds": 2, "rollouts": 6}
    agent = mb_pg.make(spec, mb_pg.Config(**{**given, **settings}), generator=seeded(seed))
    if fake is not None:
        agent.learned.model = fake
        agent.starts = torch.tensor([[0.0], [10.0]])
    return agent


def test_a_batch_has_the_actors_own_actions_and_the_model_those_in_the_box():
    model = Line()
    agent = made(fake=model, propagation="tsinf")
    imagined, said = agent.imagine()
    batch = agent.batch(imagined)
    assert batch.action.shape == (4, 6, 1)  # four steps of six trajectories
    emitted = torch.stack([step.flatten(0, 1) for step in model.taken])
    assert torch.equal(emitted, 2 * batch.action.clamp(-1, 1))  # the box is [-2, 2]
    assert bool((batch.action.abs() > 1).any())
    member = torch.tensor([0.0, 0, 0, 1, 1, 1]).view(1, 6, 1)
    assert torch.equal(batch.next_obs, batch.obs + emitted + member)
    assert torch.equal(batch.reward, batch.next_obs[..., 0])
    assert said["rollout_return"] == pytest.approx(float(batch.reward.sum(0).mean()))


def test_whole_episodes_begin_at_starts_and_are_cut_off_at_the_limit():
    batch = made(fake=Line()).imagine()[0]
    assert set(batch.state[:, :, 0].flatten().tolist()) <= {0.0, 10.0}
    rows = made(fake=Line()).batch(batch)
    assert not bool(rows.terminated.any()) and not bool(rows.truncated[:-1].any())
    assert bool(rows.truncated[-1].all())


def test_trajectories_that_end_early_follow_one_another_in_one_column():
    model = Line(wall=3.0, effect=lambda action: torch.ones_like(action))
    agent = made(LINE, model, propagation="tsinf", rollouts=2)
    agent.starts = torch.zeros(1, 1)
    rows = agent.batch(agent.imagine()[0])
    # by steps of 1 the wall at 3 is reached in three steps, by steps of 2 in two
    assert rows.obs[:, 0].tolist() == [0, 1, 2, 0, 2]
    assert rows.next_obs[:, 0].tolist() == [1, 2, 3, 2, 4]
    assert rows.terminated.tolist() == [False, False, True, False, True]
    assert not bool(rows.truncated.any())


def test_steps_out_of_bounds_are_left_out_and_what_is_before_is_cut_off():
    agent = made(fake=Line(effect=lambda action: torch.ones_like(action)), rollouts=2)
    agent.config = dataclasses.replace(agent.config, propagation="tsinf")
    agent.starts = torch.zeros(1, 1)
    agent.learned.bounds = torch.tensor([-1.0]), torch.tensor([3.5])
    imagined, said = agent.imagine()
    rows = agent.batch(imagined)
    assert rows.next_obs[:, 0].tolist() == [1, 2, 3, 2]  # by steps of 1 and of 2
    assert rows.truncated.tolist() == [False, False, True, True]
    assert said["rollout_dropped"] == 1 and said["rollout_terminated"] == 0
    assert said["rollout_steps"] == 2 and said["rollout_return"] == (1 + 2 + 3 + 2) / 2


def test_short_rollouts_begin_in_any_state_of_the_replay_buffer():
    agent = made(fake=Line(), horizon=2)
    at = torch.arange(5.0).view(5, 1)
    ends = torch.zeros(5, dtype=torch.bool)
    agent.observe(Transition(at + 20, at, at[:, 0], at, ends, ends))
    rows = agent.batch(agent.imagine()[0])
    assert rows.obs.shape == (2, 6, 1) and set(rows.obs[0].flatten().tolist()) <= set(range(20, 25))
    assert len(set(rows.obs[0].flatten().tolist())) > 1 and bool(rows.truncated[-1].all())


def test_the_model_gets_one_hot_vectors_and_the_learner_indices():
    model = Line(effect=lambda action: action.argmax(-1, keepdim=True).float())
    agent = made(CHOICE, model, propagation="tsinf")
    rows = agent.batch(agent.imagine()[0])
    assert rows.action.dtype == torch.int64 and set(rows.action.flatten().tolist()) == {0, 1, 2}
    taken = torch.stack([step.flatten(0, 1) for step in model.taken])
    assert torch.equal(taken, torch.eye(3)[rows.action])
    assert set(agent.act(np.zeros((50, 1), np.float32), explore=True).tolist()) == {5, 6, 7}


def test_starts_are_the_first_observations_of_episodes_in_every_environment():
    agent = made()
    over = torch.tensor([[False, True], [True, False], [False, False]])
    for t, ends in enumerate(over):
        obs = torch.tensor([[10.0 + t], [20.0 + t]])
        no = torch.zeros(2, dtype=torch.bool)
        agent.observe(Transition(obs, torch.zeros(2, 1), torch.zeros(2), obs + 1, no, ends))
    assert agent.starts.flatten().tolist() == [10, 20, 21, 12]


def test_observations_and_rewards_are_scaled_by_real_ones():
    agent = made(fake=Line(), normalise_obs=True, scale_reward=True)
    agent.learned.reward = None
    obs, no = torch.tensor([[2.0], [6.0]]), torch.zeros(2, dtype=torch.bool)
    agent.observe(Transition(obs, torch.zeros(2, 1), torch.tensor([0.0, 8.0]), obs, no, no))
    imagined, _ = agent.imagine()
    rows = agent.batch(imagined)
    # mean 4 and std 2 of observations; the std of the returns so far, 0 and 8, is 4
    raw = imagined.state[:, :, :-1, 0].flatten(0, 1).T
    assert torch.allclose(rows.obs[..., 0], ((raw - 4) / 2).clamp(-10, 10))
    assert torch.allclose(rows.reward, imagined.reward.flatten(0, 1).T / 4)


def test_members_returns_are_those_of_the_same_starts_and_noise():
    agent = made(fake=Line())
    first, second = agent.member_returns(3), agent.member_returns(3)
    assert torch.equal(first, second) and not torch.equal(first, agent.member_returns(4))
    # member 1 adds one more at each of four steps: 1 γ⁰ + 2 γ¹ + 3 γ² + 4 γ³ in all
    gamma = agent.learner.discount
    more = sum((t + 1) * gamma**t for t in range(4))
    agent.starts = torch.zeros(1, 1)
    agent.learned.model.effect = torch.zeros_like
    none, all_of_it = agent.member_returns(3)
    assert float(none) == 0 and float(all_of_it) == pytest.approx(more, rel=1e-5)


@pytest.mark.parametrize("improved, rounds", [(1, 2), (2, 6)])
def test_rounds_end_when_too_few_members_agree_that_the_policy_improved(
    monkeypatch, improved, rounds
):
    agent = made(fake=Line(), rounds=6, validate_every=2, validation=0.7)
    compared = iter(range(10))

    def returns(seed):
        found = torch.full((2,), -1.0)
        found[:improved] = next(compared)
        return found - (torch.arange(2) >= improved) * 0.5

    monkeypatch.setattr(agent, "member_returns", returns)
    said = agent.improve()
    assert said["rounds"] == rounds and said["agreement"] == improved / 2
    assert said["imagined_steps"] == rounds * 6 * 4
    assert agent.learner.steps == rounds * 6 * 4


def test_a_policy_that_stays_as_it_is_improves_under_no_member_drawn_anew(monkeypatch):
    class Drawn(Line):
        """Under members that are drawn later all rewards are higher."""

        def resample(self, *, generator):
            self.draws = getattr(self, "draws", 0) + 1
            self.effect = lambda action: torch.full_like(action, self.draws)

    agent = made(fake=Drawn(), rounds=6, validate_every=2)
    monkeypatch.setattr(agent.learner, "update", lambda batch, *, generator: {})
    said = agent.improve()
    assert said["agreement"] == 0 and said["rounds"] == 2


def test_without_validation_all_rounds_are_done():
    agent = made(fake=Line(), rounds=3, validate_every=1, validation=0.0)
    said = agent.improve()
    assert said["rounds"] == 3 and "agreement" not in said


def test_a_model_that_blows_up_at_once_changes_no_policy():
    agent = made(fake=Line(effect=lambda action: torch.full_like(action, torch.nan)))
    before = [p.clone() for p in agent.learner.policy.parameters()]
    said = agent.improve()
    assert said["rounds"] == 0 and said["rollout_dropped"] == 1 and said["rollout_return"] == 0
    assert all(map(torch.equal, before, agent.learner.policy.parameters()))


class Cart(gymnasium.Env):
    """A point on a line that is to be near 0: s' = 0.9 s + 0.3 a, reward -s'², 20 steps."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    spec = None
    metadata = {"known": {"ends": False}}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.uniform(-1, 1, 1).astype(np.float32), 0
        return self.at, {}

    def step(self, action):
        self.at = (0.9 * self.at + 0.3 * action).astype(np.float32)
        self.steps += 1
        return self.at, float(-(self.at[0] ** 2)), False, self.steps == 20, {}


LEARNERS = {
    "trpo": {"max_kl": 0.05},
    "ppo": {"learning_rate": 3e-3, "batch": 100},
    "a2c": {"learning_rate": 1e-2},
    "actor-critic": {"learning_rate": 1e-2},
    "reinforce": {"learning_rate": 2e-2},
}


@pytest.mark.parametrize("base", BASES)
def test_it_drives_a_point_to_zero_from_two_hundred_real_steps(base):
    spec = Spec(
        Cart.observation_space,
        Cart.action_space,
        reward=lambda obs, action, next_obs: -(next_obs[..., 0] ** 2),
        ends=False,
        episode_steps=20,
    )
    start = mb_pg.Config()
    name = base.replace("-", "_")
    own = dataclasses.replace(getattr(start, name), hidden=(16,), discount=0.9, **LEARNERS[base])
    config = dataclasses.replace(
        start,
        base=base,
        **{name: own},
        model=EnsembleConfig(members=2, hidden=(16,), epochs=40, batch=32, learning_rate=1e-2),
        learning_starts=100,
        fit_every=100,
        rounds=30,
        rollouts=20,
        validation=0.0,
    )
    agent = mb_pg.make(spec, config, generator=seeded())
    run_agent(agent, vector(Cart()), seed=0, steps=200)
    at = np.linspace(-1, 1, 21, dtype=np.float32)[:, None]
    begun, still = at.copy(), at.copy()
    cost = still_cost = 0.0
    player = agent.player(generator=seeded(1))
    for _ in range(20):
        begun = 0.9 * begun + 0.3 * player.act(begun, explore=False)
        still = 0.9 * still
        cost, still_cost = cost + float((begun**2).sum()), still_cost + float((still**2).sum())
    assert cost < 0.5 * still_cost  # the action that does nothing


@pytest.mark.parametrize("base", BASES)
def test_several_environments_and_choices_are_learned_in(base):
    settings = {} if base == "reinforce" else {"horizon": 3}
    agent = made(CHOICE, base=base, **settings)
    at = torch.zeros(3, 1)
    for t in range(8):
        action = torch.as_tensor(agent.act(at.numpy(), explore=True))
        over = torch.full((3,), t % 4 == 3)
        reward, no = (action - 6).float(), torch.zeros(3, dtype=torch.bool)
        after = at + reward.view(3, 1)
        agent.observe(Transition(at, action, reward, after, no, over))
        said = dict(agent.update())
        assert (said.get("rounds") == 2) == (agent.steps in (9, 18, 24))
        at = after * 0 if t % 4 == 3 else after
    assert len(agent.starts) == 6


REFUSED = [
    (
        LINE._replace(episode_steps=None),
        {},
        "rollouts of whole episodes need a limit of steps, which this environment does not have; "
        "set horizon",
    ),
    (
        LINE._replace(obs=Box(0, 255, (8, 8, 3), np.uint8)),
        {},
        "a model of images is not learned here; want vectors or indices",
    ),
    (LINE._replace(action=MultiDiscrete([2, 3])), {}, "needs actions that are indices or in a"),
    (LINE, {"model": EnsembleConfig()}, "the reward is not known: give it, or set"),
    (LINE._replace(ends=True), {}, "the termination is not known: give it, or set"),
]


@pytest.mark.parametrize("spec, settings, message", REFUSED)
def test_what_it_cannot_use_is_refused(spec, settings, message):
    with pytest.raises(ValueError, match=message):
        made(spec, **settings)


def test_without_a_limit_of_steps_short_rollouts_are_possible():
    assert made(LINE._replace(episode_steps=None), horizon=3).config.horizon == 3


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"base": "reinforce", "horizon": 5}, "horizon: reinforce needs whole episodes, so leave"),
        ({"rounds": 0}, "rounds"),
        ({"validation": 1.5}, "validation"),
        ({"rollouts": 0}, "rollouts"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        mb_pg.Config(**settings)
