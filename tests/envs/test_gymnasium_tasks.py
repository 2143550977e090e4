"""Reward and termination functions against gymnasium's environments."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import envs
from envs.gymnasium_tasks import KNOWN
from envs.task import Known

REWARD = [id for id, (reward, _, _) in KNOWN.items() if reward is not None]
TERMINATED = [id for id, (_, terminated, _) in KNOWN.items() if terminated is not None]
FALLS = ["Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "InvertedPendulum-v5"]


def bare(id: str) -> Any:
    return gymnasium.make(id).unwrapped


def transitions(id: str, steps: int = 300) -> list[tuple]:
    """Random steps, also after termination, to test states outside the healthy range."""
    env = bare(id)
    env.action_space.seed(0)
    rows = []
    for t in range(steps):
        if t % 60 == 0:
            obs, _ = env.reset(seed=t)
        action = env.action_space.sample()
        next_obs, reward, terminated, _, _ = env.step(action)
        rows.append((obs, action, reward, next_obs, terminated))
        obs = next_obs
    return rows


@pytest.mark.parametrize("id", sorted({*REWARD, *TERMINATED}))
def test_functions_equal_the_rewards_and_terminations_of_the_environment(id):
    obs, action, reward, next_obs, terminated = map(np.array, zip(*transitions(id), strict=True))
    known = envs.known(id)
    if known.reward is not None:
        found = known.reward(obs, action, next_obs)
        tolerance = 2e-5 if id == "Pendulum-v1" else 1e-9  # its observations are float32
        np.testing.assert_allclose(found, reward, rtol=tolerance, atol=tolerance)
        torch_found = known.reward(*map(torch.from_numpy, (obs, action, next_obs)))
        np.testing.assert_allclose(torch_found.numpy(), found, rtol=1e-5, atol=1e-5)
    if known.terminated is not None:
        np.testing.assert_array_equal(known.terminated(next_obs), terminated)
        torch_found = known.terminated(torch.from_numpy(next_obs))
        assert torch_found.dtype == torch.bool
        np.testing.assert_array_equal(torch_found.numpy(), terminated)
        assert terminated.any() == (id in FALLS)


def at(id: str, **changes: float) -> tuple[Any, np.ndarray]:
    """An environment put into a state, and its observation there."""
    env = bare(id)
    env.reset(seed=0)
    for where, value in changes.items():
        getattr(env.data, where[:4])[int(where[4:])] = value
    return env, env._get_obs()


@pytest.mark.parametrize(
    ("id", "changes", "fallen"),
    [
        ("Hopper-v5", {}, False),
        ("Hopper-v5", {"qpos1": 0.7}, True),
        ("Hopper-v5", {"qpos1": 0.7001}, False),
        ("Hopper-v5", {"qpos1": 50.0}, False),
        ("Hopper-v5", {"qpos2": 0.2}, True),
        ("Hopper-v5", {"qpos2": -0.1999}, False),
        ("Hopper-v5", {"qpos4": 100.0}, True),
        ("Hopper-v5", {"qvel3": 99.0}, False),
        ("Hopper-v5", {"qvel3": np.nan}, True),
        ("Hopper-v5", {"qpos1": np.nan}, True),
        ("Walker2d-v5", {"qpos1": 0.8}, True),
        ("Walker2d-v5", {"qpos1": 0.8001}, False),
        ("Walker2d-v5", {"qpos1": 2.0}, True),
        ("Walker2d-v5", {"qpos2": 1.0}, True),
        ("Walker2d-v5", {"qpos2": np.nan}, True),
        ("Ant-v5", {"qpos2": 0.2}, False),
        ("Ant-v5", {"qpos2": 0.1999}, True),
        ("Ant-v5", {"qpos2": 1.0}, False),
        ("Ant-v5", {"qpos2": 1.0001}, True),
        ("Ant-v5", {"qvel13": np.inf}, True),
        ("Humanoid-v5", {"qpos2": 1.0}, True),
        ("Humanoid-v5", {"qpos2": 1.0001}, False),
        ("Humanoid-v5", {"qpos2": 2.0}, True),
        ("Humanoid-v5", {"qpos2": np.nan}, True),
    ],
)
def test_terminations_agree_at_the_edges_of_the_healthy_range(id, changes, fallen):
    env, obs = at(id, **changes)
    terminated = envs.known(id).terminated
    assert terminated is not None
    assert (not env.is_healthy) == fallen
    assert bool(terminated(obs)) == fallen
    assert bool(terminated(torch.from_numpy(obs))) == fallen


def test_inverted_pendulum_terminations_agree_at_the_edges():
    reward, terminated, _ = envs.known("InvertedPendulum-v5")
    assert reward is not None and terminated is not None
    obs = np.array([[0, 0.2, 0, 0], [0, -0.2001, 0, 0], [np.nan, 0, 0, 0], [0, 0, np.inf, 0]])
    assert terminated(obs).tolist() == [False, True, True, True]
    assert reward(obs, np.zeros((4, 1)), obs).tolist() == [1, 0, 0, 0]


def test_humanoid_standup_charges_for_impacts_up_to_ten():
    reward = envs.known("HumanoidStandup-v5").reward
    assert reward is not None
    next_obs = np.zeros((2, 348))
    next_obs[:, 0] = 0.3
    next_obs[0, -1], next_obs[1, -78] = 1e3, 1e6  # 0.5 and far beyond 10
    found = reward(next_obs, np.zeros((2, 17)), next_obs)
    np.testing.assert_allclose(found, [100 - 0.5 + 1, 100 - 10 + 1])


@pytest.mark.parametrize("id", list(KNOWN))
def test_unknown_rewards_and_terminations_have_a_reason(id):
    known = envs.known(id)
    assert (known.reward is None or known.terminated is None) <= bool(known.why)
    assert "\n" not in known.why


def test_other_gymnasium_ids_have_learned_rewards():
    assert envs.known("MountainCarContinuous-v0")[:2] == (None, None)
    assert isinstance(envs.known("cartpole-swingup"), Known)
    assert envs.known("cartpole-swingup").terminated is envs.never


class WithMetadata(gymnasium.Env):
    """An environment with its own `metadata["known"]`."""

    observation_space = action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    metadata = {"render_modes": [], "known": {"reward": len, "ends": False, "discount": 0.5}}


def test_metadata_of_other_environments_is_kept():
    gymnasium.register("WithMetadata-v0", WithMetadata)
    try:
        told = envs.make("WithMetadata-v0").metadata["known"]
    finally:
        del gymnasium.registry["WithMetadata-v0"]
    assert told == {"reward": len, "ends": False, "discount": 0.5, "why": "", "task": None}
    ours = envs.make("Pendulum-v1").metadata["known"]
    assert ours["reward"] is envs.known("Pendulum-v1").reward
