import json
import math
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

import envs
import mbrl
from mbrl.agents import PETS, MPCConfig, PlannerConfig, RandomAgent
from mbrl.agents.pets import Config
from mbrl.dynamics import EnsembleConfig, RecurrentConfig
from mbrl.spaces import spec_of
from mbrl.training import (
    EnvironmentError,
    Episodes,
    Run,
    RunError,
    Target,
    collect,
    episode_seed,
    evaluate,
    generator,
    online,
    play,
    run_agent,
    vector,
)
from mbrl.training.metrics import METRICS, MetricsLog, read_metrics

TINY = Config(
    mpc=MPCConfig(PlannerConfig(horizon=4, population=8, iterations=2, elites=2), particles=2),
    model=EnsembleConfig(members=2, hidden=(8,), epochs=3, batch=16, learn_reward=True),
    random_steps=20,
    fit_every=13,
)


@pytest.fixture(autouse=True)
def every_end_is_saved(monkeypatch):
    """A checkpoint at each episode's end, however short the episodes are."""
    monkeypatch.setattr(online, "SAVING", 1.0)


class Drift(gymnasium.Env):
    """A noisy walk of ten steps; at step `broken` its result `what` is `value`."""

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


class Endless(Drift):
    """Drift that never ends; its reward is 1."""

    def step(self, action):
        return super().step(0 * action)[0], 1.0, False, False, {}


class Forgetful(Drift):
    """Its random numbers do not depend on its seed, so episodes cannot be replayed."""

    def step(self, action):
        self.np_random.standard_normal(np.random.default_rng().integers(1, 100))
        return super().step(action)


class ForgetfulEndless(Forgetful, Endless):
    """Both."""


WORLDS = {
    "ours": lambda: envs.make("cartpole-swingup-noisy", max_episode_steps=17),
    "gymnasium's": lambda: envs.make("Hopper-v5", max_episode_steps=17),
    "a user's": Drift,
}
MODES = ("Disabled", "NextStep", "SameStep")


def several(world, mode="Disabled", count=3):
    return SyncVectorEnv([WORLDS[world]] * count, autoreset_mode=mode)


def pets(env, seed=0):
    return PETS(spec_of(env), TINY, generator=generator(seed))


def random_agent(env, seed=0):
    return RandomAgent(spec_of(env).action, generator=generator(seed))


def go(path, env, agent, steps, *, stop_at=None, every=None, watch=None, target=None):
    """Start or resume the run in `path`; returns the progress."""
    run = Run.open(path) if path.exists() else Run.create(path, {})
    seen = []

    def look(progress):
        seen.append(progress.env_steps)
        if watch:
            watch(progress)

    with run:
        log = MetricsLog(path)
        try:
            return run_agent(
                agent, env, run, seed=3, steps=steps, log=log, checkpoint_every=every,
                target=target, callback=look,
                stop=lambda: stop_at is not None and seen[-1] >= stop_at,
            )  # fmt: skip
        finally:
            log.close()


def metrics(path):
    return (path / METRICS).read_bytes()


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("stops", [(1,), (8, 25, 40), (17, 20, 33, 54)])
def test_a_run_that_is_stopped_and_resumed_writes_the_same_bytes(tmp_path, world, stops):
    """Stopped before the first fit, within an episode, and at the end of one."""
    make = WORLDS[world]
    whole = go(tmp_path / "whole", env := make(), pets(env), 60)
    for stop in stops:
        part = go(tmp_path / "parts", env := make(), pets(env), 60, stop_at=stop, every=9)
        assert part.env_steps == stop == Run.open(tmp_path / "parts").latest()
    last = go(tmp_path / "parts", env := make(), pets(env), 60)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert (last.env_steps, last.episodes.begun) == (60, whole.episodes.begun)
    assert last.lost == []
    lines = read_metrics(tmp_path / "whole" / METRICS)
    assert any("model_loss" in line for line in lines)
    assert any(line.get("plans", 0) > 0 for line in lines)
    done = go(tmp_path / "whole", env := make(), pets(env), 60)
    assert done.env_steps == 60
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("world", WORLDS)
def test_several_environments_resume_to_the_byte_in_every_autoreset_mode(tmp_path, world, mode):
    """Their episodes end at different steps if possible; all modes write the same bytes."""
    env = several(world)
    go(tmp_path / "whole", env, pets(env), 90)
    for stop in (3, 24, 51, 60):
        env = several(world, mode)
        part = go(tmp_path / "parts", env, pets(env), 90, stop_at=stop)
        assert part.env_steps == stop
    env = several(world, mode)
    go(tmp_path / "parts", env, pets(env), 90)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    lines = read_metrics(tmp_path / "whole" / METRICS, "episode")
    assert sorted(line["episode"] for line in lines) == list(range(len(lines)))
    assert any(line.get("plans", 0) > 0 for line in lines)


def test_environments_in_processes_of_their_own_give_the_same_bytes(tmp_path):
    for name, kind in (("here", SyncVectorEnv), ("there", AsyncVectorEnv)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # gymnasium warns of spaces that it cannot compare
            env = kind([Drift, Drift])
        try:
            for stop in (14, 60):
                go(tmp_path / name, env, pets(env), 60, stop_at=stop)
        finally:
            env.close()
    assert metrics(tmp_path / "here") == metrics(tmp_path / "there")


def test_one_environment_and_a_vector_of_it_write_the_same_bytes(tmp_path):
    go(tmp_path / "one", env := Drift(), pets(env), 50)
    go(tmp_path / "vector", env := SyncVectorEnv([Drift]), pets(env), 50)
    assert metrics(tmp_path / "one") == metrics(tmp_path / "vector")


@pytest.mark.parametrize("algo", ["tdmpc", "latent-mbpo", "latent-pets", "sac"])
def test_what_is_learned_does_not_go_on_over_an_episode_that_is_abandoned(tmp_path, algo):
    """Each sequence, or each return of three steps, is of one episode."""
    settings: dict[str, Any] = {"random_steps": 1000}
    if algo == "sac":
        settings = {"learning_starts": 1000, "n_step": 3}
    elif algo != "tdmpc":
        settings["model"] = RecurrentConfig(
            latent=2, deterministic=4, hidden=(4,), length=5, learn_termination=True
        )

    def made(env):
        return mbrl.make(algo, env, **settings)

    go(tmp_path / "run", env := ForgetfulEndless(), made(env), 60, stop_at=25)
    last = go(tmp_path / "run", env := ForgetfulEndless(), agent := made(env), 60)
    assert len(last.lost) == 1
    if algo == "sac":
        assert len(agent.replay) == 60 - 2 * 2  # at the seam and at the end two are not complete
    else:
        found = agent.replay.sequences(400, 2, generator=generator(0))
        assert torch.equal(found.obs[:, 1], found.next_obs[:, 0])


def test_an_episode_that_cannot_be_replayed_is_abandoned_and_reported(tmp_path):
    go(tmp_path / "run", env := Forgetful(), random_agent(env), 60, stop_at=25)
    running = read_metrics(tmp_path / "run" / METRICS, "episode")[-1]["episode"] + 1
    last = go(tmp_path / "run", env := Forgetful(), random_agent(env), 60)
    assert last.lost == [running] and last.env_steps == 60
    episodes = [line["episode"] for line in read_metrics(tmp_path / "run" / METRICS, "episode")]
    assert running not in episodes and running + 1 in episodes


def test_an_agent_is_told_which_episodes_do_not_go_on(tmp_path):
    told = []

    class Running(Forgetful):
        """It goes on for ten steps, wherever it is."""

        def step(self, action):
            obs, reward, _, truncated, info = super().step(action)
            return obs, reward, False, truncated, info

    def agent(env):
        made = random_agent(env)
        made.give_up = lambda places: told.append(places.tolist())
        return made

    def mixed():
        return SyncVectorEnv([Drift, Running, Drift])

    go(tmp_path / "run", env := mixed(), agent(env), 60, stop_at=18)
    last = go(tmp_path / "run", env := mixed(), agent(env), 60)
    assert last.lost and told == [[False, True, False]]


def test_an_endless_episode_is_saved_during_training_and_at_the_end(tmp_path):
    saved = []
    go(tmp_path / "run", env := Endless(), random_agent(env), 2300,
       watch=lambda progress: saved.append(Run.open(tmp_path / "run").latest()))  # fmt: skip
    assert set(saved) == {None, 1000, 2000} and Run.open(tmp_path / "run").latest() == 2300
    again = go(tmp_path / "run", env := Endless(), random_agent(env), 2400)
    assert again.lost == [] and again.env_steps == 2400


class Whole(VectorEnv):
    """A vector environment without reset masks: it resets all its environments at once."""

    num_envs = 2

    def __init__(self):
        self.inner = SyncVectorEnv([Drift, Drift], autoreset_mode="Disabled")
        for name in ("observation_space", "action_space", "single_observation_space",
                     "single_action_space", "metadata"):  # fmt: skip
            setattr(self, name, getattr(self.inner, name))

    def reset(self, *, seed=None, options=None):
        return self.inner.reset(seed=seed)

    def step(self, actions):
        obs, reward, _, _, info = self.inner.step(actions)
        return obs, reward, np.array([True, False]), np.array([False, False]), info


def test_a_vector_that_cannot_reset_one_alone_is_refused():
    env = Whole()
    with pytest.raises(EnvironmentError, match=r"heed options\['reset_mask'\]"):
        run_agent(random_agent(env), env, seed=0, steps=10)


class Alias(Drift):
    """Returns its own state, which it changes later; changes the actions that it is given."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.at.astype(np.float32)
        return self.at, {}

    def step(self, action):
        self.at += action[0]
        action[:] = 9.0
        self.steps += 1
        return self.at, -1.0, False, self.steps >= 10, {}


@pytest.mark.parametrize("copy", [True, False])
def test_observations_and_actions_are_copied(copy):
    env = SyncVectorEnv([Alias, Alias], copy=copy)
    steps = collect(random_agent(env), env, Episodes(0), steps=60)
    taken = list(steps)
    for step in taken:
        assert torch.equal(step.obs + step.action, step.next_obs)
        assert (step.action.abs() <= 1).all() and not torch.equal(step.obs, step.next_obs)


def test_other_seeds_write_other_bytes(tmp_path):
    for seed in (0, 1):
        go(tmp_path / str(seed), env := Drift(), pets(env, seed), 40)
    assert metrics(tmp_path / "0") != metrics(tmp_path / "1")


def test_the_line_of_an_episode_contains_its_numbers(tmp_path):
    env = Drift()
    progress = go(tmp_path / "run", env, random_agent(env), 35)
    lines = read_metrics(tmp_path / "run" / METRICS, "episode")
    assert [line["episode"] for line in lines] == list(range(len(lines)))
    assert [line["return"] for line in lines] == progress.returns
    assert np.cumsum([line["length"] for line in lines]).tolist() == [
        line["env_steps"] for line in lines
    ]
    assert [line["terminated"] for line in lines] == [line["length"] < 10 for line in lines]
    assert env.seeds == [episode_seed(3, episode) for episode in range(len(env.seeds))]
    assert len(set(env.seeds)) == len(env.seeds)
    total = evaluate(random_agent(env), Drift(), episodes=1, seed=3)[0]
    assert total == pytest.approx(lines[0]["return"], rel=1e-6)


def test_each_of_several_environments_writes_its_own_lines(tmp_path):
    """Against the same episodes one by one; their random numbers depend only on their seeds."""
    env = several("a user's", "NextStep")
    go(tmp_path / "run", env, constant(0.05), 99)
    lines = read_metrics(tmp_path / "run" / METRICS, "episode")
    alone = evaluate(constant(0.05), Drift(), episodes=len(lines), seed=3)
    assert [alone[line["episode"]] for line in lines] == [line["return"] for line in lines]


class constant:
    """An agent and a player with a constant action."""

    def __init__(self, value):
        self.value = value

    def act(self, obs, *, explore):
        return np.full((len(obs), 1), self.value, np.float32)

    def observe(self, step):
        pass

    def update(self):
        return {}

    def reset(self, begins):
        pass

    def state_dict(self):
        return {}


@pytest.mark.parametrize("what", ["observation", "reward"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_environment_that_breaks_is_named_with_its_step_and_can_be_resumed(
    tmp_path, what, value
):
    go(tmp_path / "whole", env := Drift(), random_agent(env), 40)
    broken = Drift(broken=25, what=what, value=value)
    message = (
        rf"the environment returned an? {what} that is not finite at step \d+ of episode \d+ "
        r"\(environment step 25\)"
    )
    with pytest.raises(EnvironmentError, match=message) as error:
        go(tmp_path / "parts", broken, random_agent(broken), 40)
    assert "\n" not in str(error.value)
    assert 0 < Run.open(tmp_path / "parts").latest() < 25
    go(tmp_path / "parts", env := Drift(), random_agent(env), 40)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


def test_a_first_observation_that_is_not_finite_is_named(tmp_path):
    class Stillborn(Drift):
        def reset(self, *, seed=None, options=None):
            return np.full(2, math.nan), {}

    with pytest.raises(EnvironmentError, match="observation that is not finite"):
        go(tmp_path / "run", env := Stillborn(), random_agent(env), 5)


def test_checkpoints_of_other_agents_and_environments_are_refused(tmp_path):
    make = WORLDS["ours"]
    go(tmp_path / "run", env := make(), pets(env), 25, stop_at=23)
    before = metrics(tmp_path / "run")
    with pytest.raises(RunError, match=r"the checkpoint of .* does not fit this run: ") as error:
        go(tmp_path / "run", env := make(), random_agent(env), 50)
    assert "\n" not in str(error.value)
    for other in (WORLDS["gymnasium's"](), several("ours")):
        with pytest.raises(RunError, match="does not fit this run"):
            go(tmp_path / "run", other, pets(other), 50)
    assert metrics(tmp_path / "run") == before


def test_regular_checkpoints_are_saved_within_episodes(tmp_path):
    seen = []

    def look(progress):
        seen.append(Run.open(tmp_path / "run").latest())

    go(tmp_path / "run", env := WORLDS["ours"](), random_agent(env), 30, every=5, watch=look)
    assert [latest for latest in dict.fromkeys(seen) if latest] == [5, 10, 15, 17, 20, 25]
    assert Run.open(tmp_path / "run").latest() == 30


def test_ends_of_episodes_are_not_saved_where_saving_would_take_too_long(tmp_path, monkeypatch):
    """One end is saved; after it every other comes too soon."""
    monkeypatch.setattr(online, "SAVING", 1e-9)
    saved = []
    go(tmp_path / "run", env := WORLDS["ours"](), random_agent(env), 60,
       watch=lambda progress: saved.append(Run.open(tmp_path / "run").latest()))  # fmt: skip
    assert len({*saved} - {None}) == 1
    assert Run.open(tmp_path / "run").latest() == 60


def test_a_run_ends_where_its_last_episodes_reach_a_return(tmp_path):
    """Its lines are the first ones of a run without a target, also if it is resumed before."""
    env = Drift()
    go(tmp_path / "whole", env, pets(env), 200)
    lines = read_metrics(tmp_path / "whole" / METRICS, "episode")
    returns, ends = ([line[name] for line in lines] for name in ("return", "env_steps"))
    means = np.convolve(returns, [0.5, 0.5], "valid")
    target = Target(float(means[:-2].max()), episodes=2)
    first = int(np.flatnonzero(means >= target.value)[0]) + 1
    assert 1 < first < len(returns) - 1
    done = go(tmp_path / "ended", env, pets(env), 200, target=target)
    assert done.reached
    assert done.env_steps == Run.open(tmp_path / "ended").latest() == ends[first]
    part = go(tmp_path / "parts", env, pets(env), 200, target=target, stop_at=ends[first - 1])
    assert not part.reached
    assert go(tmp_path / "parts", env, pets(env), 200, target=target).reached
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "ended")
    assert metrics(tmp_path / "whole").startswith(metrics(tmp_path / "ended"))
    again = go(tmp_path / "ended", env, pets(env), 200, target=target)
    assert again.reached
    assert again.env_steps == ends[first]
    go(tmp_path / "ended", env, pets(env), 200)
    assert metrics(tmp_path / "ended") == metrics(tmp_path / "whole")


def test_a_target_of_no_episodes_is_refused():
    with pytest.raises(ValueError, match="target: episodes must be >= 1, got 0"):
        run_agent(random_agent(Drift()), Drift(), seed=0, steps=5, target=Target(0.0, 0))


def test_evaluation_is_reproducible_and_does_not_change_training(tmp_path):
    """The run is evaluated after every step."""
    make = WORLDS["ours"]
    go(tmp_path / "plain", env := make(), pets(env), 50)
    other, results = make(), []

    def judge(progress):
        if progress.env_steps % 24 == 0:
            player = agent.player(generator=generator(7))
            results.append(evaluate(player, other, episodes=2, seed=5))
            again = agent.player(generator=generator(7))
            assert evaluate(again, make(), episodes=2, seed=5) == results[-1]

    env = make()
    agent = pets(env)
    go(tmp_path / "watched", env, agent, 50, watch=judge)
    assert metrics(tmp_path / "plain") == metrics(tmp_path / "watched")
    assert len(results) == 2 and all(len(set(result)) == 2 for result in results)
    other_seed = evaluate(agent.player(generator=generator(7)), other, episodes=2, seed=6)
    assert other_seed != results[-1]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_evaluation_over_several_environments_gives_the_same_episodes(count):
    one = evaluate(constant(0.3), Drift(), episodes=7, seed=2)
    env = several("a user's", count=count)
    assert evaluate(constant(0.3), env, episodes=7, seed=2) == one and len(set(one)) == 7


def test_an_evaluation_episode_that_would_not_end_is_cut_off():
    assert evaluate(constant(0.3), Endless(), episodes=2, seed=0) == [10_000, 10_000]
    assert evaluate(constant(0.3), Endless(), episodes=2, seed=0, steps=30) == [30, 30]
    limited = Endless()
    limited.spec = gymnasium.envs.registration.EnvSpec("Endless-v0")
    limited = gymnasium.wrappers.TimeLimit(limited, 12_000)
    assert evaluate(constant(0.3), limited, episodes=1, seed=0) == [12_000]


@pytest.mark.parametrize("mode", ["Disabled", "NextStep", "SameStep"])
def test_episodes_of_several_environments_are_cut_off_each_at_its_own_step(mode):
    """Drift ends after ten steps, so that its environment is ahead of the endless one."""
    env = SyncVectorEnv([Drift, Endless], autoreset_mode=mode)
    running, ends = Episodes(2), []
    for step in play(constant(0.3), env, running, steps=25):
        for i in np.flatnonzero(running.over):
            ends.append((int(i), int(running.lengths[i]), bool(step.terminated[i])))
            assert bool(step.truncated[i]) is not bool(step.terminated[i])
        if running.steps == 2 * 50:
            break
    lengths = [[length for place, length, _ in ends if place == i] for i in range(2)]
    assert len(lengths[0]) >= 5 and max(lengths[0]) <= 10 and lengths[1] == [25, 25]


@pytest.mark.parametrize("name", ["CartPole-v1", "Taxi-v4", "MountainCarContinuous-v0"])
def test_a_vector_steps_as_gymnasiums_does_and_never_overwrites_its_results(name):
    makers = [lambda: gymnasium.make(name)] * 2
    ours, theirs = vector(makers), SyncVectorEnv(makers, autoreset_mode="Disabled")
    given, wanted = [], []
    for env, steps in ((ours, given), (theirs, wanted)):
        env.reset(seed=[3, 4])
        env.action_space.seed(0)
        for _ in range(60):
            step = env.step(env.action_space.sample())
            steps.append(step)
            if (over := step[2] | step[3]).any():
                env.reset(seed=[5, 6], options={"reset_mask": over})
    for step, other in zip(given, wanted, strict=True):
        assert [part.dtype for part in step[:4]] == [part.dtype for part in other[:4]]
        np.testing.assert_equal(step, other)
    if name == "CartPole-v1":
        assert any(step[2].any() for step in given)
        last = next(k for k, step in enumerate(given) if step[2].any())
        assert not np.array_equal(given[last][0], given[last + 1][0])


def test_play_yields_each_step_and_reports_the_ends_of_episodes():
    env, running, begins = vector(WORLDS["ours"]()), Episodes(1), []
    agent = random_agent(env)
    agent.reset = lambda begun: begins.append((running.begun - 1, begun.tolist()))
    steps = []
    for step in play(agent, env, running):
        steps.append(step)
        assert running.over[0] == (len(steps) in (17, 34)) == bool(step.truncated[0])
        if len(steps) == 34:
            break
    assert begins == [(0, [True]), (1, [True])]
    for k in range(33):
        assert torch.equal(steps[k].next_obs, steps[k + 1].obs) == (k != 16)
    broken = Drift(broken=4, what="reward")
    with pytest.raises(EnvironmentError, match="reward that is not finite at step 4 of episode 0"):
        evaluate(random_agent(broken), broken, episodes=1, seed=1)


@pytest.mark.parametrize("id", ["CartPole-v1", "frozen-lake", "pixels", "multi"])
def test_actions_of_every_kind_and_observations_of_any_shape_are_accepted(id):
    """Indices, pixels and vectors of indices, with one environment and with several."""

    class Pixels(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)
        action_space = gymnasium.spaces.MultiDiscrete([2, 3])

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action):
            assert self.action_space.contains(action)
            return self.np_random.integers(0, 256, (4, 4, 3), np.uint8), 1.0, False, False, {}

    makers = {"frozen-lake": lambda: envs.WORLDS["frozen-lake"]().env(), "pixels": Pixels,
              "multi": Pixels}  # fmt: skip
    make = makers.get(id, lambda: gymnasium.make(id))
    for env in (make(), SyncVectorEnv([make] * 3)):
        agent = random_agent(env)
        steps = list(collect(agent, vector(env), Episodes(0), steps=60))
        assert len(steps) * len(steps[0].reward) == 60
        assert {step.obs.dtype for step in steps} == {steps[0].next_obs.dtype}
        assert len({tuple(row.tolist()) for s in steps for row in s.action.reshape(-1, 1)}) > 1


def test_metrics_contain_no_durations(tmp_path):
    go(tmp_path / "run", env := Drift(), pets(env), 30)
    names = {name for line in read_metrics(tmp_path / "run" / METRICS) for name in line}
    assert not {name for name in names if "second" in name or "time" in name}
    assert all(json.dumps(line) for line in read_metrics(tmp_path / "run" / METRICS))


def test_named_streams_differ():
    draws = [torch.rand(3, generator=generator(*seeds)) for seeds in ((0,), (1,), (0, 1), (1, 0))]
    assert torch.equal(draws[0], torch.rand(3, generator=generator(0)))
    assert len({tuple(draw.tolist()) for draw in draws}) == 4
    assert len({episode_seed(a, b) for a in range(20) for b in range(20)}) == 400
