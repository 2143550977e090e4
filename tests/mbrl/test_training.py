import json
import math
from itertools import pairwise

import gymnasium
import numpy as np
import pytest
import torch

import envs
from mbrl.agents import PETS, PETSConfig, PlannerConfig, RandomAgent
from mbrl.checkpoint import Run, RunError
from mbrl.dynamics import EnsembleConfig
from mbrl.metrics import METRICS, MetricsLog, read_metrics
from mbrl.training import (
    EnvironmentError,
    Snapshots,
    episode_seed,
    evaluate,
    generator,
    play,
    train,
)

SNAPSHOTS = Snapshots(envs.snapshot, envs.restore)
TINY = PETSConfig(
    planner=PlannerConfig(horizon=4, population=8, iterations=2, elites=2),
    model=EnsembleConfig(members=2, hidden=(8,), epochs=3, batch=16, learn_reward=True),
    random_steps=20,
    fit_every=13,
    particles=2,
)


class Drift(gymnasium.Env):
    """A noisy walk of ten steps that no snapshot can freeze; it may break at one step."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, broken=None, what="observation", value=math.nan):
        self.broken, self.what, self.value = broken, what, value
        self.total, self.seeds = 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.at, self.steps = self.np_random.standard_normal(2), 0
        return self.at.copy(), {}

    def step(self, action):
        self.at = self.at + action[0] + 0.1 * self.np_random.standard_normal(2)
        self.steps += 1
        self.total += 1
        obs, reward = self.at.copy(), -float(np.square(self.at).sum())
        if self.total == self.broken:
            if self.what == "reward":
                reward = self.value
            else:
                obs[1] = self.value
        return obs, reward, bool(self.at[0] > 3), self.steps >= 10, {}


WORLDS = {
    "ours": lambda: envs.make("cartpole-swingup-noisy", max_episode_steps=17),
    "gymnasium's": lambda: envs.make("Hopper-v5", max_episode_steps=17),
    "without snapshots": Drift,
}


def pets(env, seed=0):
    box = env.action_space
    return PETS(env.observation_space.shape[0], torch.as_tensor(box.low),
                torch.as_tensor(box.high), TINY, generator=generator(seed))  # fmt: skip


def random_agent(env, seed=0):
    box = env.action_space
    return RandomAgent(
        torch.as_tensor(box.low), torch.as_tensor(box.high), generator=generator(seed)
    )


def go(path, env, agent, steps, *, stop_at=None, snapshots=None, every=None, watch=None):
    """Start or go on with the run in `path`; returns the progress."""
    run = Run.open(path) if path.exists() else Run.create(path, {})
    seen = []

    def look(progress):
        seen.append(progress.env_steps)
        if watch:
            watch(progress)

    with run:
        log = MetricsLog(path)
        try:
            return train(
                agent, env, run, seed=3, steps=steps, log=log, snapshots=snapshots,
                checkpoint_every=every, watch=look,
                stop=lambda: stop_at is not None and seen[-1] >= stop_at,
            )  # fmt: skip
        finally:
            log.close()


def metrics(path):
    return (path / METRICS).read_bytes()


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("stops", [(1,), (8, 25, 40), (17, 20, 33, 54)])
def test_a_run_that_is_stopped_and_resumed_writes_the_same_bytes(tmp_path, world, stops):
    """Before the first fit, within an episode, at its end, and between."""
    snapshots = None if world == "without snapshots" else SNAPSHOTS
    make = WORLDS[world]
    whole = go(tmp_path / "whole", env := make(), pets(env), 60, snapshots=snapshots)
    for stop in stops:
        part = go(tmp_path / "parts", env := make(), pets(env), 60, snapshots=snapshots,
                  stop_at=stop, every=9)  # fmt: skip
        assert part.env_steps == stop
        latest = Run.open(tmp_path / "parts").latest()
        assert latest == stop if snapshots else latest is None or latest <= stop
    last = go(tmp_path / "parts", env := make(), pets(env), 60, snapshots=snapshots)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert (last.env_steps, last.episode) == (whole.env_steps, whole.episode)
    lines = read_metrics(tmp_path / "whole" / METRICS)
    assert any("model_loss" in line for line in lines)
    assert any(line.get("plans", 0) > 0 for line in lines)
    done = go(tmp_path / "whole", env := make(), pets(env), 60, snapshots=snapshots)
    assert done.env_steps == (60 if snapshots else whole.env_steps)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


def test_another_seed_writes_other_bytes(tmp_path):
    for seed in (0, 1):
        go(tmp_path / str(seed), env := Drift(), pets(env, seed), 40)
    assert metrics(tmp_path / "0") != metrics(tmp_path / "1")


def test_what_an_episode_line_says(tmp_path):
    env = Drift()
    progress = go(tmp_path / "run", env, random_agent(env), 35)
    lines = read_metrics(tmp_path / "run" / METRICS, "episode")
    assert [line["episode"] for line in lines] == list(range(progress.episode))
    assert [line["return"] for line in lines] == progress.returns
    assert np.cumsum([line["length"] for line in lines]).tolist() == [
        line["env_steps"] for line in lines
    ]
    assert [line["terminated"] for line in lines] == [line["length"] < 10 for line in lines]
    assert env.seeds == [episode_seed(3, episode) for episode in range(len(env.seeds))]
    assert len(set(env.seeds)) == len(env.seeds)
    total = sum(step.reward for step in play(random_agent(env), Drift(), seed=env.seeds[0]))
    assert total == pytest.approx(lines[0]["return"], rel=1e-6)


@pytest.mark.parametrize("what", ["observation", "reward"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_environment_that_breaks_is_named_with_its_step_and_can_be_resumed(
    tmp_path, what, value
):
    go(tmp_path / "whole", env := Drift(), random_agent(env), 40)
    broken = Drift(broken=25, what=what, value=value)
    message = (
        rf"the environment returned a {what} that is not finite at step \d+ of episode \d+ "
        r"\(environment step 25\)"
    )
    with pytest.raises(EnvironmentError, match=message) as error:
        go(tmp_path / "parts", broken, random_agent(broken), 40)
    assert "\n" not in str(error.value)
    assert 0 < Run.open(tmp_path / "parts").latest() < 25
    go(tmp_path / "parts", env := Drift(), random_agent(env), 40)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


def test_a_first_observation_that_is_not_finite_is_named_too(tmp_path):
    class Stillborn(Drift):
        def reset(self, *, seed=None, options=None):
            return np.full(2, math.nan), {}

    with pytest.raises(EnvironmentError, match="observation that is not finite"):
        go(tmp_path / "run", env := Stillborn(), random_agent(env), 5)


def test_checkpoints_of_other_agents_and_environments_are_refused(tmp_path):
    make = WORLDS["ours"]
    go(tmp_path / "run", env := make(), pets(env), 25, snapshots=SNAPSHOTS, stop_at=23)
    before = metrics(tmp_path / "run")
    with pytest.raises(RunError, match=r"the checkpoint of .* does not fit this run: ") as error:
        go(tmp_path / "run", env := make(), random_agent(env), 50, snapshots=SNAPSHOTS)
    assert "\n" not in str(error.value)
    with pytest.raises(RunError, match="this environment cannot resume"):
        go(tmp_path / "run", env := make(), pets(env), 50)
    with pytest.raises(RunError, match="does not fit this run"):
        other = WORLDS["gymnasium's"]()
        go(tmp_path / "run", other, pets(other), 50, snapshots=SNAPSHOTS)
    assert metrics(tmp_path / "run") == before


def test_regular_checkpoints_come_within_episodes(tmp_path):
    seen = []

    def look(progress):
        seen.append(Run.open(tmp_path / "run").latest())

    go(tmp_path / "run", env := WORLDS["ours"](), random_agent(env), 30, snapshots=SNAPSHOTS,
       every=5, watch=look)  # fmt: skip
    assert [latest for latest in dict.fromkeys(seen) if latest] == [5, 10, 15, 17, 20, 25]
    assert Run.open(tmp_path / "run").latest() == 30


def test_evaluation_is_reproducible_and_leaves_the_training_alone(tmp_path):
    """A run that is evaluated after every step goes on as if nobody had looked."""
    make = WORLDS["ours"]
    go(tmp_path / "plain", env := make(), pets(env), 50, snapshots=SNAPSHOTS)
    other, results = make(), []

    def judge(progress):
        if progress.env_steps % 24 == 0:
            player = agent.controller(generator=generator(7))
            results.append(evaluate(player, other, episodes=2, seed=5))
            again = agent.controller(generator=generator(7))
            assert evaluate(again, make(), episodes=2, seed=5) == results[-1]

    env = make()
    agent = pets(env)
    go(tmp_path / "watched", env, agent, 50, snapshots=SNAPSHOTS, watch=judge)
    assert metrics(tmp_path / "plain") == metrics(tmp_path / "watched")
    assert len(results) == 2 and all(len(set(result)) == 2 for result in results)
    other_seed = evaluate(agent.controller(generator=generator(7)), other, episodes=2, seed=6)
    assert other_seed != results[-1]


def test_playing_gives_each_step_and_stops_at_the_end():
    env = WORLDS["ours"]()
    steps = list(play(random_agent(env), env, seed=1))
    assert len(steps) == 17
    assert [step.truncated for step in steps] == [False] * 16 + [True]
    for before, after in pairwise(steps):
        assert np.array_equal(before.next_obs, after.obs)
    with pytest.raises(EnvironmentError, match="reward that is not finite at step 4 of episode 0"):
        broken = Drift(broken=4, what="reward")
        list(play(random_agent(broken), broken, seed=1))


def test_metrics_hold_no_time(tmp_path):
    go(tmp_path / "run", env := Drift(), pets(env), 30)
    names = {name for line in read_metrics(tmp_path / "run" / METRICS) for name in line}
    assert not {name for name in names if "second" in name or "time" in name}
    assert all(json.dumps(line) for line in read_metrics(tmp_path / "run" / METRICS))


def test_named_streams_differ():
    draws = [torch.rand(3, generator=generator(*seeds)) for seeds in ((0,), (1,), (0, 1), (1, 0))]
    assert torch.equal(draws[0], torch.rand(3, generator=generator(0)))
    assert len({tuple(draw.tolist()) for draw in draws}) == 4
    assert len({episode_seed(a, b) for a in range(20) for b in range(20)}) == 400
