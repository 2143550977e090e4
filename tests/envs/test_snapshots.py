"""Continuing from a snapshot is continuing, to the last bit."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest

import envs

OURS = list(envs.TASKS)
THEIRS = ["Hopper-v5", "Ant-v5", "Humanoid-v5", "Pusher-v5", "InvertedDoublePendulum-v5"]


def run(env: gymnasium.Env, actions: np.ndarray) -> list[tuple]:
    """Steps over the end of episodes; the resets draw from the environment's own stream."""
    rows = []
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            obs, _ = env.reset()
        rows.append((obs.tolist(), float(reward), terminated, truncated))
    return rows


@pytest.mark.parametrize("id", OURS + THEIRS)
def test_continuation_is_bit_exact(id):
    env = envs.make(id, max_episode_steps=30)
    env.reset(seed=11)
    low, high = envs.check_box(env).low, envs.check_box(env).high
    rng = np.random.default_rng(0)
    actions = rng.uniform(low, high, (60, *low.shape)).astype(np.float32)
    run(env, actions[:17])
    assert envs.can_snapshot(env)
    snap = pickle.loads(pickle.dumps(envs.snapshot(env)))
    expected = run(env, actions[17:])
    assert any(row[3] or row[2] for row in expected)  # beyond an episode's end

    envs.restore(env, snap)
    assert run(env, actions[17:]) == expected
    fresh = envs.make(id, max_episode_steps=30)  # as after a crash: another object, never reset
    envs.restore(fresh, snap)
    assert run(fresh, actions[17:]) == expected


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.dtype != object
    return type(value) in (int, float, str, bool, type(None))


@pytest.mark.parametrize("id", ["cartpole-swingup", "Hopper-v5"])
def test_a_snapshot_is_plain_and_keeps_its_values(id):
    env = envs.make(id)
    env.reset(seed=0)
    snap = envs.snapshot(env)
    before = pickle.dumps(snap)
    assert plain(snap)
    env.step(env.action_space.sample())
    env.reset()
    assert pickle.dumps(snap) == before


def test_what_has_no_snapshot_says_so():
    env = envs.make("Pendulum-v1")
    assert not envs.can_snapshot(env)
    with pytest.raises(ValueError, match="only MuJoCo environments"):
        envs.snapshot(env)


def test_a_snapshot_of_another_task_is_refused():
    cheetah, cart = envs.make("half-cheetah"), envs.make("cartpole-swingup")
    cheetah.reset(seed=0)
    cart.reset(seed=0)
    with pytest.raises(ValueError, match="snapshot state has shape"):
        envs.restore(cart, envs.snapshot(cheetah))
