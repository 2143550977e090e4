"""Goals in hindsight: which they can be, what becomes of rewards, and what is learned by them."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Dict, Discrete
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, TimeLimit, TransformReward

import envs
import mbrl
from envs.repeat import ActionRepeat
from mbrl.agents import ddpg, dqn, off_policy_actor_critic, sac, td3
from mbrl.data import HindsightReplay, Replay
from mbrl.learners.value_configs import DDPGConfig, DQNConfig, TD3Config
from mbrl.spaces import goal_of, spec_of
from mbrl.training import RunConfig, evaluate, run_agent, vector
from mbrl.training.metrics import METRICS
from mbrl.training.runs import train_run
from mbrl.types import Goal, Transition
from tests.mbrl.goals import BitFlip, Point


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Observations are (time, achieved, desired). Achieved goals are numbers that no two steps share, so
# that a goal tells the step that it is from.
GOAL = Goal(slice(1, 2), slice(2, 3), lambda a, d: -(a != d).any(-1).float(), None)
ENDING = GOAL._replace(terminated=lambda a, d: (a == d).all(-1))


def stream(ends, *, count, steps, given_up=()):
    """Steps of N environments whose episodes end at given (step, environment).

    Returns the transitions, and the episode of each row with its step.
    """
    episode, at = list(range(count)), [0] * count
    begun = count
    for t in range(steps):
        rows, labels = [], []
        for env in range(count):

            def obs(step, e=episode[env]):
                return [float(step), 1000.0 * e + step, -1.0]

            over = (t, env) in ends
            flags = (over and env == 0, over and env > 0)  # terminated, truncated
            rows.append((obs(at[env]), [0.5], -1.0, obs(at[env] + 1), *flags))
            labels.append((episode[env], at[env]))
            at[env] += 1
            if over or (t, env) in given_up:
                episode[env], at[env], begun = begun, 0, begun + 1
        yield Transition(*(torch.tensor(column) for column in zip(*rows, strict=True))), labels


STREAMS = {
    "one environment": {"count": 1, "steps": 23, "ends": {(4, 0), (5, 0), (14, 0)}},
    "three environments": {
        "count": 3, "steps": 15, "ends": {(0, 1), (3, 0), (3, 1), (7, 2), (14, 0)},
    },
    "episodes given up": {
        "count": 2, "steps": 14, "ends": {(4, 0)}, "given_up": {(6, 1), (9, 0), (9, 1)},
    },
}  # fmt: skip


@pytest.mark.parametrize("capacity", [6, 7, 16, 64])
@pytest.mark.parametrize("name", STREAMS)
def test_goals_are_all_those_that_the_rest_of_the_episode_achieves(name, capacity):
    """Compared with a list of all rows, after every step, also when the buffer has wrapped."""
    replay, kept = HindsightReplay(capacity, 3, 1, goal=ENDING, k=4), []
    how = dict(STREAMS[name])
    for step, labels in stream(how.pop("ends"), **how):
        replay.append(step)
        kept = (kept + labels)[-capacity:]
        batch = replay.sample(1500, generator=seeded(len(kept)))
        found: dict[tuple[int, int], set[int]] = {label: set() for label in kept}
        columns = [batch.obs, batch.reward[:, None], batch.terminated[:, None], batch.next_obs]
        for row in torch.cat([column.float() for column in columns], 1).unique(dim=0):
            obs, reward, ended, after = row[:3], row[3], row[4], row[5:]
            episode, time = divmod(int(obs[1]), 1000)
            assert (episode, time) in found and after[1] == obs[1] + 1
            assert obs[2] == after[2]
            if obs[2] == -1:
                assert reward == -1
                continue
            other, achieved = divmod(int(obs[2]), 1000)
            assert other == episode
            found[episode, time].add(achieved)
            assert bool(ended) == (achieved == time + 1) == (reward == 0)
        last: dict[int, int] = {}
        for episode, time in kept:
            last[episode] = max(time, last.get(episode, 0))
        if len(kept) <= 16:  # few enough rows for each goal to be drawn
            for (episode, time), goals in found.items():
                assert goals == set(range(time + 1, last[episode] + 2))


def test_later_goals_are_drawn_alike_and_in_a_share_of_k_in_k_plus_one():
    replay = HindsightReplay(10, 3, 1, goal=GOAL, k=4)
    for step, _ in stream({(4, 0)}, count=1, steps=5):
        replay.append(step)
    batch = replay.sample(50_000, generator=seeded())
    assert float((batch.obs[:, 2] >= 0).float().mean()) == pytest.approx(0.8, abs=0.01)
    first = batch.obs[(batch.obs[:, 0] == 0) & (batch.obs[:, 2] >= 0), 2]
    shares = torch.bincount(first.long())[1:] / len(first)
    torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.02, rtol=0)
    assert not batch.terminated[batch.obs[:, 0] < 4].any()  # not known by goals: as stored
    assert batch.terminated[batch.obs[:, 0] == 4].all()


def test_stored_rows_keep_their_goals():
    replay = HindsightReplay(10, 3, 1, goal=ENDING)
    for step, _ in stream(set(), count=2, steps=4):
        replay.append(step)
    before = [column.clone() for column in replay.all()]
    replay.sample(100, generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(before, replay.all(), strict=True))


def test_without_other_goals_it_draws_what_a_plain_replay_draws():
    one, other = HindsightReplay(7, 3, 1, goal=GOAL, k=0), Replay(7, 3, 1)
    for step, _ in stream({(3, 0)}, count=2, steps=9):
        one.append(step)
        other.append(step)
        a, b = (buffer.sample(20, generator=seeded(2)) for buffer in (one, other))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("steps", [0, 3, 4, 11])
def test_a_loaded_buffer_goes_on_as_the_first(steps):
    how = {"ends": {(1, 0), (5, 1), (8, 0)}, "count": 2, "steps": 16}
    first, second = (HindsightReplay(9, 3, 1, goal=ENDING) for _ in range(2))
    for step, _ in stream({(2, 1)}, count=2, steps=7):
        second.append(step)
    if steps == 0:
        second = HindsightReplay(9, 3, 1, goal=ENDING)
    for t, (step, _) in enumerate(stream(**how)):
        if t == steps:
            second.load_state_dict(first.state_dict())
        first.append(step)
        if t >= steps:
            second.append(step)
            a, b = (buffer.sample(64, generator=seeded(t)) for buffer in (first, second))
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    one, other = first.state_dict(), second.state_dict()
    assert all(torch.equal(torch.as_tensor(one[n]), torch.as_tensor(other[n])) for n in one)


def test_what_does_not_fit_is_refused():
    replay = HindsightReplay(4, 3, 1, goal=GOAL)
    with pytest.raises(ValueError, match="empty"):
        replay.sample(2, generator=seeded())
    (two, _), *_ = stream(set(), count=2, steps=1)
    (five, _), *_ = stream(set(), count=5, steps=1)
    replay.append(two)
    state = replay.state_dict()
    for wrong in (five, Transition(*(column[:1] for column in two))):
        with pytest.raises(ValueError, match="hindsight: want a row of each of 2 environments"):
            replay.append(wrong)
    for change in ({"last": torch.tensor([5, -1])}, {"begun": torch.empty(0, dtype=torch.int64)},
                   {"last": torch.tensor([-1])}, {"begun": torch.tensor([0, 9])}):  # fmt: skip
        with pytest.raises(ValueError, match="replay episodes"):
            replay.load_state_dict({**state, **change})
    with pytest.raises(ValueError, match="k: must be an integer of at least 0, got -1"):
        HindsightReplay(4, 3, 1, goal=GOAL, k=-1)
    with pytest.raises(ValueError, match="capacity of at least their number"):
        HindsightReplay(4, 3, 1, goal=GOAL).append(five)


# Goals of environments


@pytest.mark.parametrize("kind", [BitFlip, Point])
def test_rewards_and_terminations_by_goals_are_those_of_the_environment(kind):
    env = vector([kind, kind])
    goal = spec_of(env).goal
    assert goal is not None
    env.reset(seed=0)
    env.action_space.seed(0)
    seen = set()
    for _ in range(60):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        rows = torch.as_tensor(obs, dtype=torch.float32)
        achieved, desired = rows[:, goal.achieved], rows[:, goal.desired]
        assert goal.reward(achieved, desired).tolist() == reward.tolist()
        if goal.terminated is not None:
            assert goal.terminated(achieved, desired).tolist() == terminated.tolist()
        assert goal.reward(achieved, achieved).tolist() == [0, 0]
        seen |= {*reward.tolist()}
        if (terminated | truncated).any():
            env.reset(options={"reset_mask": terminated | truncated})
    assert -1 in seen


def test_goals_are_found_where_the_flattened_observation_has_them():
    for env in (Point(), FlattenObservation(Point()), TimeLimit(Point(), 3), vector(Point())):
        goal = goal_of(env)
        assert goal is not None
        assert (goal.achieved, goal.desired) == (slice(0, 2), slice(2, 4))
    assert goal_of(Point()).terminated is None and goal_of(BitFlip()).terminated is not None  # type: ignore[union-attr]


class Discretely(Point):
    observation_space = Dict(
        {"achieved_goal": Discrete(2), "desired_goal": Discrete(2), "observation": Discrete(2)}
    )


def test_environments_whose_rewards_are_not_those_of_goals_have_none():
    for env in (
        gymnasium.make("Pendulum-v1"),
        TransformReward(Point(), lambda reward: 2 * float(reward)),
        Discretely(),
        SyncVectorEnv([lambda: TransformReward(FlattenObservation(Point()), lambda r: r)]),
    ):
        assert spec_of(env).goal is None
    name = envs.register(Point, name="point-of-a-test")
    try:
        assert spec_of(envs.make(name)).goal is not None
        repeated = envs.make(name, action_repeat=2)
        assert isinstance(repeated, ActionRepeat) and spec_of(repeated).goal is None
    finally:
        envs.unregister(name)


def test_functions_of_one_goal_are_called_for_each_row():
    class Strict(Point):
        def compute_reward(self, achieved_goal, desired_goal, info):
            assert achieved_goal.shape == (2,)
            return 1.0 if achieved_goal[0] > desired_goal[0] else 0.0

    goal = goal_of(Strict())
    assert goal is not None
    high, low = torch.tensor([[2.0, 0], [0, 0], [3, 3]]), torch.tensor([[1.0, 5], [1, 0], [1, 3]])
    assert goal.reward(high, low).tolist() == [1, 0, 1]


# Agents


def configs(**settings):
    kinds = (dqn, sac, ddpg, td3, off_policy_actor_critic)
    names = [kind.__name__.split(".")[-1].replace("_", "-") for kind in kinds]
    return {name: kind.Config(**settings) for name, kind in zip(names, kinds, strict=True)}


@pytest.mark.parametrize(
    ("algo", "env"),
    [("dqn", BitFlip()), ("sac", BitFlip()), ("sac", Point()), ("ddpg", Point()), ("td3", Point()),
     ("off-policy-actor-critic", Point())],
)  # fmt: skip
def test_every_agent_with_a_replay_buffer_takes_goals_in_hindsight(algo, env):
    config = configs(learning_starts=20, batch=8, log_every=20, hindsight=4)[algo]
    agent = mbrl.make(algo, env, config=config, hidden=(8,))
    assert isinstance(agent.replay, HindsightReplay) and agent.replay.k == 4
    run_agent(agent, env, seed=0, steps=40)
    assert agent.updates > 0


@pytest.mark.parametrize("count", [1, 3])
def test_a_stopped_and_resumed_run_writes_the_same_bytes(tmp_path, count):
    learner = DQNConfig(hidden=(8,), exploration_steps=100)
    config = dqn.Config(
        learning_starts=10, batch=8, capacity=40, log_every=7, hindsight=4, learner=learner
    )  # fmt: skip
    run = RunConfig("dqn", "bits", 0, 90, "cpu", config, count)

    def go(name, stop_at=91, **how):
        seen = []
        train_run(
            run, tmp_path / name, make_env=lambda _: BitFlip(), checkpoint_every=9,
            callback=lambda now: seen.append(now.env_steps), stop=lambda: seen[-1] >= stop_at,
            **how,
        )  # fmt: skip

    go("whole")
    go("parts", 22)
    for stop in (33, 61, 91):
        go("parts", stop, resume=True)
    whole, parts = ((tmp_path / name / METRICS).read_bytes() for name in ("whole", "parts"))
    assert whole == parts and b"critic_loss" in whole


def test_settings_that_do_not_fit_are_refused_in_one_line():
    refused: list[tuple[gymnasium.Env, dict[str, Any], str]] = [
        (gymnasium.make("CartPole-v1"), {}, "hindsight: needs an environment of goals: .*; want 0"),
        (BitFlip(), {"n_step": 3}, "hindsight: needs n_step 1 and priority 0"),
        (BitFlip(), {"priority": 0.5}, "hindsight: needs n_step 1 and priority 0"),
    ]
    for env, settings, said in refused:
        with pytest.raises(ValueError, match=said) as error:
            mbrl.make("dqn", env, hindsight=2, **settings)
        assert "\n" not in str(error.value)

    class Informed(BitFlip):
        def compute_reward(self, achieved_goal, desired_goal, info):
            return info["reward"]

    class Many(BitFlip):
        def compute_reward(self, achieved_goal, desired_goal, info):
            return achieved_goal

    with pytest.raises(ValueError, match="compute_reward raised KeyError: 'reward'"):
        mbrl.make("dqn", Informed(), hindsight=2)
    with pytest.raises(ValueError, match="compute_reward must return one number for each pair"):
        mbrl.make("dqn", Many(), hindsight=2)


def solved(hindsight):
    learner = DQNConfig(
        hidden=(64,), learning_rate=4e-3, discount=0.9, target_every=20, double=True,
        exploration_steps=1000, last_exploration=0.1,
    )  # fmt: skip
    config = dqn.Config(
        learning_starts=200, batch=128, train_every=3, updates=1, hindsight=hindsight,
        learner=learner,
    )  # fmt: skip
    agent = mbrl.make("dqn", BitFlip(), config=config)
    run_agent(agent, BitFlip(), seed=0, steps=2000)
    returns = evaluate(agent.player(generator=seeded()), BitFlip(), episodes=100, seed=5)
    return np.mean([each > -8 for each in returns])


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ddpg", "td3"])
def test_a_point_reaches_its_goals_with_hindsight_and_not_without(algo):
    kind, learner = {"ddpg": (ddpg, DDPGConfig), "td3": (td3, TD3Config)}[algo]
    returns = {}
    for hindsight in (4, 0):
        config = kind.Config(
            learning_starts=300, batch=64, train_every=2, updates=1, hindsight=hindsight,
            learner=learner(hidden=(32, 32), learning_rate=2e-3, discount=0.9),
        )  # fmt: skip
        agent = mbrl.make(algo, Point(), config=config)
        run_agent(agent, Point(), seed=0, steps=2000)
        player = agent.player(generator=seeded())
        returns[hindsight] = np.mean(evaluate(player, Point(), episodes=50, seed=5))
    assert returns[4] > -4 and returns[0] < -12


def test_eight_bits_are_flipped_to_the_goal_with_hindsight_and_not_without():
    assert solved(4) >= 0.9
    assert solved(0) <= 0.2
