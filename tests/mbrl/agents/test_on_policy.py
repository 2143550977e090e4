"""The on-policy agent: learning, schedules of rollouts, normalisation, and input that is wrong."""

import dataclasses
import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from mbrl import returns
from mbrl.agents import agent
from mbrl.agents.on_policy import OnPolicy
from mbrl.nn import Diverged
from mbrl.training import run_agent, vector
from mbrl.types import Spec, Transition

NAMES = ("a2c", "actor-critic", "ppo", "reinforce", "trpo")
PLANE = Spec(Box(-1.0, 1.0, (2,)), Box(-2.0, 2.0, (1,)), ends=False, episode_steps=5)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(name, spec, learner=(), seed=0, **settings):
    module = agent(name)
    start = module.Config()
    inner = dataclasses.replace(start.learner, **{"hidden": (16,), **dict(learner)})
    config = dataclasses.replace(start, learner=inner, **settings)
    return module.make(spec, config, generator=seeded(seed))


class Corridor(gymnasium.Env):
    """Cells 3..8, start in 3, reward -1 a step until cell 8; actions 1 (left) and 2 (right)."""

    observation_space = Discrete(6, start=3)
    action_space = Discrete(2, start=1)
    spec = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell, self.steps = 3, 0
        return self.cell, {}

    def step(self, action):
        assert action in (1, 2)
        self.cell = min(max(self.cell + (1 if action == 2 else -1), 3), 8)
        self.steps += 1
        return self.cell, -1.0, self.cell == 8, self.steps == 40, {}


LEARNING = {
    "a2c": ({"learning_rate": 7e-3}, {"rollout": 5}),
    "actor-critic": ({"learning_rate": 1e-2}, {"rollout": 32}),
    "ppo": ({"learning_rate": 3e-3, "epochs": 4}, {"rollout": 64}),
    "reinforce": ({"learning_rate": 1e-2}, {"episodes": 4}),
    "trpo": ({"max_kl": 0.05}, {"rollout": 64}),
}


@pytest.mark.parametrize("name", NAMES)
def test_an_agent_learns_to_walk_a_corridor(name):
    """Right is best everywhere; uniform actions take it half of the time."""
    env = vector([Corridor] * 4)
    spec = Spec(Corridor.observation_space, Corridor.action_space, episode_steps=40)
    learner, settings = LEARNING[name]
    actor = made(name, spec, {"discount": 0.95, **learner}, **settings)
    run_agent(actor, env, seed=0, steps=6000)
    player, cells = actor.player(generator=seeded()), np.arange(3, 8)
    assert (player.act(cells, explore=False) == 2).all()
    explored = [player.act(cells, explore=True) for _ in range(200)]
    assert np.mean([moves == 2 for moves in explored]) > 0.9


def walk(actor, spec, steps, count=3, reward=lambda obs, action: obs[:, 0], every=5):
    """Random observations, episodes of `every` steps, rewards of a function."""
    rng, said = np.random.default_rng(0), []
    obs = np.stack([spec.obs.sample() * 0 for _ in range(count)])
    for t in range(1, steps + 1):
        action = actor.act(obs, explore=True)
        after = rng.uniform(-1, 1, obs.shape).astype(np.float32)
        ends = np.full(count, t % every == 0)
        columns = obs, action, reward(obs, action), after, ends, np.zeros(count, bool)
        actor.observe(Transition(*map(torch.as_tensor, columns)))
        said.append(dict(actor.update()))
        obs = after
    return said


def test_updates_are_due_where_a_rollout_is_complete():
    said = walk(made("ppo", PLANE, {"epochs": 1}, rollout=4), PLANE, 12)
    assert [bool(metrics) for metrics in said] == [t % 4 == 0 for t in range(1, 13)]


def test_reinforce_updates_after_whole_episodes_of_one_policy():
    """Three environments whose episodes end at different times; one batch has two episodes."""
    actor, batches = made("reinforce", PLANE, episodes=2), []
    learn = actor.learner.update
    actor.learner.update = lambda batch, **how: batches.append(batch) or learn(batch, **how)
    obs, lengths, steps = np.zeros((3, 2), np.float32), np.array([2, 3, 4]), np.zeros(3, int)
    for t in range(1, 13):
        actor.act(obs, explore=True)
        steps += 1
        ends = steps == lengths
        now = np.full((3, 2), t / 100, np.float32) + np.arange(3, dtype=np.float32)[:, None]
        actor.store.add(
            Transition(*map(torch.as_tensor, (now, obs, steps.astype(float), now, ends, 0 * ends)))
            ._replace(truncated=torch.zeros(3, dtype=torch.bool))
        )  # fmt: skip
        batch = actor.store.take()
        if batch is not None:
            batches.append(batch)
        steps[ends] = 0
    # at step 3 environments 0 and 1 are done; 2 is under way, and 0 has one step: both are left out
    assert batches[0].reward.tolist() == [1, 2, 1, 2, 3]
    assert batches[0].obs[:, 0].tolist() == pytest.approx([0.01, 0.02, 1.01, 1.02, 1.03])
    # then 1 runs from 4 to 6, and 0, whose steps 3 and 4 were of an older policy, from 5 to 6
    assert batches[1].obs[:, 0].tolist() == pytest.approx([0.05, 0.06, 1.04, 1.05, 1.06])


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_what_follows_an_episode_that_is_given_up_does_not_count_for_it(name):
    """Environment 1 is given up after two of four steps, before which rewards are 0, then 1."""
    schedule = {"rollout": 4} if name == "ppo" else {"episodes": 2}
    actor, obs, batches = made(name, PLANE, **schedule), np.zeros((2, 2), np.float32), []
    actor.learner.update = lambda batch, **how: batches.append(batch) or {}
    for t in range(4):
        if t == 2:
            actor.give_up(np.array([False, True]))
        action, ends = actor.act(obs, explore=True), np.full(2, t == 3)
        columns = obs, action, np.full(2, t >= 2), obs, ends, np.zeros(2, bool)
        actor.observe(Transition(*map(torch.as_tensor, columns)))
        actor.update()
    (batch,) = batches
    if name == "reinforce":  # whole episodes one after another, of the others those after it
        assert batch.reward.tolist() == [0, 0, 1, 1, 1, 1]
        return
    ends = batch.terminated, batch.truncated
    credit = returns.reward_to_go(batch.reward, *ends, discount=1.0)
    assert credit.T.tolist() == [[2, 2, 2, 1], [0, 0, 2, 1]]


def test_actions_outside_the_box_are_clipped_for_the_environment_alone():
    actor = made("ppo", PLANE, {"first_std": 5.0, "epochs": 1}, rollout=8)
    obs = np.zeros((200, 2), np.float32)
    action = actor.act(obs, explore=True)
    assert action.min() == -2.0 and action.max() == 2.0
    _, own = actor._taken
    assert own.abs().max() > 3
    assert np.allclose(action, 2 * own.clamp(-1, 1).numpy())


def test_squashed_actions_are_tanh_of_the_own():
    actor = made("ppo", PLANE, {"first_std": 2.0, "squash": True}, rollout=8)
    action = actor.act(np.zeros((50, 2), np.float32), explore=True)
    assert np.allclose(action, 2 * np.tanh(actor._taken[1].numpy()), atol=1e-6)


def test_state_dependent_noise_stays_until_it_is_drawn_anew():
    spec = PLANE
    actor = made("ppo", spec, {"gsde": True, "epochs": 1}, rollout=6, noise_every=3)
    obs, drawn = np.full((2, 2), 0.5, np.float32), []
    for _ in range(6):
        drawn.append(actor.act(obs, explore=True))
        columns = obs, drawn[-1], np.zeros(2), obs, np.zeros(2, bool), np.zeros(2, bool)
        actor.observe(Transition(*map(torch.as_tensor, columns)))
    assert all(np.array_equal(drawn[0], action) for action in drawn[1:3])
    assert all(np.array_equal(drawn[3], action) for action in drawn[4:])
    assert not np.array_equal(drawn[0], drawn[3])
    assert not np.array_equal(drawn[0][0], drawn[0][1])  # each environment has its own


def test_learners_see_normalised_observations_and_rewards():
    """Observations around 1000 of std 5, and returns whose std is known from one-step episodes."""
    spec = Spec(Box(-np.inf, np.inf, (2,)), PLANE.action)
    actor = made("ppo", spec, {"epochs": 1}, rollout=256, normalise_obs=True, normalise_reward=True)
    batches, learn = [], actor.learner.update
    actor.learner.update = lambda batch, **how: batches.append(batch) or learn(batch, **how)
    rng = np.random.default_rng(0)
    for _ in range(512):
        obs, after = (rng.normal(1000, 5, (2, 4, 2))).astype(np.float32)
        action, ends = actor.act(obs, explore=True), np.ones(4, bool)
        columns = obs, action, rng.normal(50, 20, 4), after, ends, ~ends
        actor.observe(Transition(*map(torch.as_tensor, columns)))
        actor.update()
    batch = batches[1]
    for column in (batch.obs, batch.next_obs):
        assert column.mean().abs() < 0.2 and 0.9 < column.std() < 1.1
    # std 20 over 512 · 4 rewards; the mean is not subtracted
    assert float(batch.reward.std()) == pytest.approx(1, abs=0.1)
    assert float(batch.reward.mean()) == pytest.approx(2.5, abs=0.2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("every", [1, 5])
def test_constant_observations_and_rewards_of_a_billion_leave_all_numbers_finite(name, every):
    settings = {"episodes": 3} if name == "reinforce" else {"rollout": 5}
    how = {"normalise_obs": True, "normalise_reward": True}
    actor, rng, said = made(name, PLANE, **settings, **how), np.random.default_rng(0), []
    obs = np.full((3, 2), 1e6, np.float32)
    for t in range(1, 21):
        action = actor.act(obs, explore=True)
        ends = np.full(3, t % every == 0)
        reward = 1e9 * rng.standard_normal(3)
        columns = obs, action, reward, obs, ends, np.zeros(3, bool)
        actor.observe(Transition(*map(torch.as_tensor, columns)))
        said += [actor.update()]
    assert any(said)
    for metrics in said:
        assert all(math.isfinite(value) for value in metrics.values())
    assert np.isfinite(actor.act(obs, explore=False)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_is_not_finite_is_reported_by_the_update(name):
    settings = {"episodes": 1} if name == "reinforce" else {"rollout": 5}
    actor = made(name, PLANE, **settings)
    store = actor.store

    class Spoilt:
        """Breaks the parameters after acting, before learning."""

        age = property(lambda self: store.age)

        def add(self, step):
            store.add(step)

        def take(self):
            for block in actor.learner.blocks.values():
                block.value.data.fill_(math.nan)
            return store.take()

    for t in range(5):
        if t == 4:
            actor.store = Spoilt()
        try:
            walk(actor, PLANE, 1, every=1 if t == 4 else 99)
        except Diverged as error:
            assert t == 4 and "\n" not in str(error)
            return
    raise AssertionError("nothing was raised")


def test_many_kinds_of_spaces_suit():
    spaces = [
        (Discrete(4, start=2), MultiDiscrete([2, 3], start=[5, 0])),
        (MultiDiscrete([2, 3], start=[1, 4]), Discrete(3)),
        (Box(-1, 1, (2, 3)), Box(-1, 1, (2,))),
        (Box(-1, 1, (3,), np.float64), Discrete(3)),
    ]
    for obs_space, action_space in spaces:
        actor = made("ppo", Spec(obs_space, action_space), rollout=3)
        obs = np.stack([obs_space.sample() for _ in range(4)])
        for _ in range(3):
            action = actor.act(obs, explore=True)
            assert all(action_space.contains(each) for each in np.asarray(action))
            no = np.zeros(4, bool)
            actor.observe(Transition(*map(torch.as_tensor, (obs, action, no * 1.0, obs, no, no))))
        assert actor.update()


@pytest.mark.parametrize("name", NAMES)
def test_spaces_that_do_not_suit_are_refused_in_one_line(name):
    wrong = {
        "a learner needs observations that are": [
            gymnasium.spaces.Dict(a=Discrete(2)),
            Discrete(2),
        ],
        f"{name}: needs actions that are": [PLANE.obs, Box(-np.inf, np.inf, (2,))],
        f"{name}: needs actions": [PLANE.obs, gymnasium.spaces.MultiBinary(3)],
    }
    for said, spaces in wrong.items():
        with pytest.raises(ValueError, match=said) as error:
            made(name, Spec(*spaces))
        assert "\n" not in str(error.value)


def test_reinforce_refuses_episodes_that_never_end():
    with pytest.raises(ValueError, match="reinforce: needs episodes that end"):
        made("reinforce", PLANE._replace(episode_steps=None))


def test_transitions_that_did_not_follow_from_its_actions_are_refused():
    actor, no = made("ppo", PLANE), np.zeros(3, bool)
    obs, action = np.zeros((3, 2), np.float32), np.zeros((3, 1), np.float32)
    step = Transition(*map(torch.as_tensor, (obs, action, no * 1.0, obs, no, no)))
    with pytest.raises(ValueError, match="call act first"):
        actor.observe(step)
    actor.act(obs, explore=True)
    actor.observe(step)
    with pytest.raises(ValueError, match="call act first"):
        actor.observe(step)
    actor.act(obs[:2], explore=True)
    with pytest.raises(ValueError, match="want 3 environments as before, got 2"):
        actor.observe(Transition(*(column[:2] for column in step)))


@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_another_algorithm_is_refused(name):
    own = made(name, PLANE)
    for other in NAMES:
        if other != name:
            with pytest.raises(ValueError, match="the state is of"):
                own.load_state_dict(made(other, PLANE).state_dict())


def test_settings_are_checked():
    from mbrl.agents.ppo import Config
    from mbrl.learners.on_policy_configs import PolicyConfig, PPOConfig

    wrong = {
        "rollout": lambda: Config(rollout=0),
        "clip_range": lambda: PPOConfig(clip_range=0.0),
        "decay_clip: needs": lambda: PPOConfig(decay_clip=True),
        "gsde: needs": lambda: PolicyConfig(gsde=True, hidden=()),
        "objective": lambda: PPOConfig(objective="else"),
    }
    for said, build in wrong.items():
        with pytest.raises(ValueError, match=said):
            build()


def test_an_agent_is_an_on_policy_agent_of_its_learner():
    for name in NAMES:
        assert isinstance(made(name, PLANE), OnPolicy)
