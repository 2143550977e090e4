"""Inputs that learners cannot use, and unusual ones that they must cope with."""

import dataclasses
import math
import os

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import AsyncVectorEnv

from mbrl.agents import agent
from mbrl.rng import generator
from mbrl.spaces import spec_of
from mbrl.training import EnvironmentError, evaluate, run_agent, vector
from mbrl.types import Spec

SMALL = {"hidden": (8,)}
SCHEDULES = {
    "sac": {"learning_starts": 10, "batch": 16, "log_every": 10},
    "td3": {"learning_starts": 10, "batch": 16, "log_every": 10},
    "ddpg": {"learning_starts": 10, "batch": 16, "log_every": 10},
    "dqn": {"learning_starts": 10, "batch": 16, "log_every": 10},
    "ppo": {"rollout": 10},
    "a2c": {"rollout": 10},
    "trpo": {"rollout": 10},
    "reinforce": {"episodes": 2},
    "actor-critic": {"rollout": 10},
}
BOX = [name for name in SCHEDULES if name != "dqn"]


def made(name, spec, learner=(), **schedule):
    module = agent(name)
    config = module.Config()
    own = dataclasses.replace(config.learner, **SMALL, **dict(learner))
    config = dataclasses.replace(config, learner=own, **{**SCHEDULES[name], **schedule})
    return module.make(spec, config, generator=generator(0))


class Line(gymnasium.Env):
    """A walk on a line, with what is unusual about it."""

    def __init__(self, *, scale=1.0, constant=False, length=10, action=None, dies=None, size=2):
        self.observation_space = Box(-np.inf, np.inf, (size,))
        self.action_space = Box(-1.0, 1.0, (1,)) if action is None else action
        self.scale, self.constant, self.length, self.dies = scale, constant, length, dies
        self.size = size

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = float(self.np_random.standard_normal()), 0
        return self.seen(), {}

    def seen(self):
        obs = np.full(self.size, 5.0, np.float32)
        if not self.constant:
            obs[0] = self.at
        return obs

    def step(self, action):
        self.steps += 1
        if self.dies is not None and self.steps >= self.dies:
            os._exit(3)
        self.at += 0.1 * float(np.ravel(action)[0])
        return self.seen(), -self.scale * self.at**2, self.steps >= self.length, False, {}


def environment(name, **unusual):
    return Line(action=Discrete(3) if name == "dqn" else None, **unusual)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    "unusual",
    [{"scale": 1e9}, {"constant": True}, {"length": 1}],
    ids=["rewards of 1e9", "a constant observation", "episodes of one step"],
)
def test_learners_cope_with_unusual_environments(name, unusual):
    env = environment(name, **unusual)
    scaled = {}
    if name in ("sac", "td3", "ddpg", "dqn"):
        scaled = {"normalise_obs": True, "scale_reward": True, "n_step": 3}
    elif name in ("ppo", "a2c", "trpo"):
        scaled = {"normalise_obs": True, "normalise_reward": True}
    for settings in ({}, scaled):
        learning = made(name, spec_of(env), **settings)
        run_agent(learning, env, seed=0, steps=40)
        returns = evaluate(learning.player(generator=generator(1)), env, episodes=2, seed=5)
        assert all(math.isfinite(value) for value in returns)
        acted = learning.act(np.full((3, 2), 5.0, np.float32), explore=True)
        assert np.isfinite(acted).all()


@pytest.mark.parametrize("name", ["sac", "td3", "dqn"])
def test_a_batch_may_be_larger_than_the_data(name):
    env = environment(name)
    learning = made(name, spec_of(env), batch=1000)
    run_agent(learning, env, seed=0, steps=20)
    assert learning.updates > 0 and len(learning.replay) == 20


WRONG = {
    "dqn": Box(-1, 1, (2,)), "sac": MultiBinary(3), "td3": Discrete(3), "ddpg": Discrete(3),
    "ppo": MultiBinary(3), "a2c": MultiBinary(3), "trpo": MultiBinary(3),
    "reinforce": MultiBinary(3), "actor-critic": MultiBinary(3),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_wrong_kind_of_action_is_named_in_one_line(name):
    spec = Spec(Box(-1, 1, (2,)), WRONG[name])
    with pytest.raises(ValueError, match="needs|takes") as error:
        made(name, spec)
    assert str(WRONG[name]) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", BOX)
def test_an_unbounded_box_of_actions_is_refused(name):
    spec = Spec(Box(-1, 1, (2,)), Box(-np.inf, np.inf, (2,)))
    with pytest.raises(ValueError, match="bounded box"):
        made(name, spec)


@pytest.mark.parametrize("name", SCHEDULES)
def test_observations_that_are_no_vector_are_refused(name):
    action = Discrete(3) if name == "dqn" else Box(-1, 1, (2,))
    with pytest.raises(ValueError, match="observations that are a box or indices"):
        made(name, Spec(MultiBinary(4), action))


@pytest.mark.parametrize("name", ["sac", "ppo"])
def test_environments_of_unequal_spaces_are_refused(name):
    with pytest.raises((ValueError, EnvironmentError, RuntimeError)) as error:
        vector([lambda: Line(), lambda: Line(size=3)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["sac", "ppo"])
def test_an_environment_that_dies_in_a_worker_is_said_with_its_step(name):
    env = AsyncVectorEnv([lambda: Line(), lambda: Line(dies=4)])
    learning = made(name, spec_of(env))
    with pytest.raises(EnvironmentError, match=r"step \d+ of episode") as error:
        run_agent(learning, env, seed=0, steps=40)
    assert "\n" not in str(error.value)
    env.close(terminate=True)


def test_several_indices_are_taken_where_the_algorithm_allows_it():
    spec = Spec(Box(-1, 1, (2,)), MultiDiscrete([3, 2]))
    for name in ("ppo", "a2c", "trpo", "reinforce"):
        actions = made(name, spec).act(np.zeros((4, 2), np.float32), explore=True)
        assert actions.shape == (4, 2) and (actions < [3, 2]).all()
    with pytest.raises(ValueError):
        made("sac", spec)
    assert torch.get_default_dtype() == torch.float32
