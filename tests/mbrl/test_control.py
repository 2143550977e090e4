"""Episodes driven one at a time, replayed and filmed."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest

import envs
from mbrl.agents import MPCConfig, PlannerConfig, agent
from mbrl.control import DriveConfig, build_driver, drive, drive_one, film, planning_error, replay
from mbrl.dynamics import EnsembleConfig, Simulator
from mbrl.evaluation import motion_error
from mbrl.rng import episode_seed
from mbrl.training import RunConfig
from mbrl.training.runs import train_run

CONFIG = DriveConfig(mpc=MPCConfig(planner=PlannerConfig("cem", 5, 8, 1, 2)))


class Adding(gymnasium.Env):
    """A level to which actions add; it terminates above 10 and renders the level as brightness."""

    observation_space = gymnasium.spaces.Box(-100, 100, (1,))
    action_space = gymnasium.spaces.Box(0, 10, (1,))

    def reset(self, *, seed=None, options=None):
        self.seed, self.level = seed, np.zeros(1, np.float32)
        return self.level.copy(), {}

    def step(self, action):
        self.level += action
        return self.level.copy(), 2 * float(action[0]), bool(self.level > 10), False, {}

    def render(self):
        return np.full((4, 6, 3), self.level[0], np.uint8)


def test_a_replay_ends_with_the_actions_or_with_the_episode():
    env = Adding()
    found = list(replay(env, [[1.0], [3.0]], seed=7))
    assert env.seed == episode_seed(7, 0)
    assert [step.next_obs.item() for step in found] == [1, 4]
    assert [step.reward.item() for step in found] == [2, 6]
    found = list(replay(env, np.full((5, 1), 6.0), seed=7))
    assert [step.terminated.item() for step in found] == [False, True]
    assert list(replay(env, [], seed=7)) == []


def test_a_film_has_a_frame_and_the_return_so_far_after_each_step():
    frames, returns = film(Adding(), [[1.0], [3.0], [2.0]], seed=0)
    assert [frame[0, 0, 0] for frame in frames] == [1, 4, 6] and returns == [2, 8, 12]


def test_drive_one_equals_a_drive_from_the_same_start():
    found, step = drive_one(CONFIG, make_env=envs.make, seed=1, start=5, number=2, steps=4)
    driver = build_driver(CONFIG, make_env=envs.make, seed=1)
    same = drive(driver, seed=5, number=2, steps=4)
    assert step == driver.control_step and found.seed == episode_seed(5, 2)
    np.testing.assert_array_equal(found.actions, same.actions)
    np.testing.assert_array_equal(found.states, same.states)


def trained(path, algo="random", steps=5, repeat=1, config=None):
    config = agent(algo).Config() if config is None else config
    run = RunConfig(algo, "cartpole-swingup", 0, steps, "cpu", config, action_repeat=repeat)
    train_run(run, path, make_env=envs.make)
    return replace(CONFIG, model=str(path))


def test_an_action_is_repeated_as_where_the_model_was_learned(tmp_path):
    tiny = EnsembleConfig(members=2, hidden=(8,), epochs=1, batch=32, learn_reward=True)
    mpc = replace(CONFIG.mpc, particles=2)
    pets = agent("pets").Config(mpc=mpc, model=tiny, random_steps=20, fit_every=20)
    config = trained(tmp_path / "model", "pets", 30, 3, pets)
    found, step = drive_one(config, make_env=envs.make, seed=0, steps=5)
    seconds = found.states[:, 0]  # the first number of a MuJoCo state
    np.testing.assert_allclose(seconds, 0.04 * 3 * np.arange(6), atol=1e-9)
    assert np.isclose(step, 0.12) and found.env_repeat == 3
    for repeat, learner in ((1, "once"), (3, "thrice")):
        trained(tmp_path / learner, "sac", repeat=repeat)
    build_driver(replace(config, learner=str(tmp_path / "thrice")), make_env=envs.make, seed=0)
    for other in (replace(config, learner=str(tmp_path / "once")),
                  replace(CONFIG, learner=str(tmp_path / "thrice"))):  # fmt: skip
        with pytest.raises(ValueError, match="--learner .*: it was trained with --env-repeat"):
            build_driver(other, make_env=envs.make, seed=0)


def test_a_model_that_is_not_fitted_yet_drives_nothing(tmp_path):
    config = trained(tmp_path / "model", "pets")
    with pytest.raises(ValueError, match="--model .*: it is not fitted yet; train it on"):
        build_driver(config, make_env=envs.make, seed=0)


def test_the_planning_error_is_the_error_of_the_planning_model(monkeypatch):
    def heavy(spec):
        spec.option.gravity = (0, 0, -30)

    asked = {"make_env": envs.make, "seed": 0, "start": 3, "seconds": 0.2, "steps": 8}
    task = replace(envs.TASKS["cartpole-swingup"], planning=None)
    monkeypatch.setitem(envs.TASKS, "cartpole-swingup", task)
    assert planning_error(CONFIG, **asked) is None
    task = replace(task, planning=envs.Planning(heavy, 4))
    monkeypatch.setitem(envs.TASKS, "cartpole-swingup", task)
    found = planning_error(CONFIG, **asked)
    states = drive_one(CONFIG, make_env=envs.make, seed=0, start=3, steps=8)[0].states
    sims = Simulator(task), Simulator(task, planning=True)
    rng = np.random.default_rng(0)
    assert found == motion_error(*sims, states[[0, 6]], seconds=0.2, rng=rng)
    assert found > 1e-3
