"""Episodes driven one at a time, replayed and filmed."""

from dataclasses import replace

import gymnasium
import numpy as np

import envs
from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.control import DriveConfig, build_driver, drive, drive_one, film, planning_error, replay
from mbrl.dynamics import Simulator
from mbrl.evaluation import motion_error
from mbrl.rng import episode_seed

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
