"""The full state of a MuJoCo environment, ours or gymnasium's, as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import mujoco
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from envs.mujoco_env import MujocoEnv, get_state, set_state

Snapshot = dict[str, Any]
"""Plain values and numpy arrays only."""

# What gymnasium's tasks read of the previous step besides the state. After a step these lag the
# state by one substep, so they cannot be had from it.
_LAGGING = ("xpos", "xipos")


def can_snapshot(env: gymnasium.Env) -> bool:
    """Whether `snapshot` works: for our tasks and for those built on gymnasium's MuJoCo classes."""
    inner = env.unwrapped
    return isinstance(getattr(inner, "model", None), mujoco.MjModel) and isinstance(
        getattr(inner, "data", None), mujoco.MjData
    )


def snapshot(env: gymnasium.Env) -> Snapshot:
    """All that the continuation depends on: physics, random stream, elapsed steps.

    Raises ValueError for an environment that is not MuJoCo's (see `can_snapshot`).
    """
    inner: Any = _mujoco(env)
    if isinstance(inner, MujocoEnv):
        content = inner.snapshot()
    else:
        content = {
            "state": get_state(inner.model, inner.data),
            "rng": inner.np_random.bit_generator.state,
            **{name: getattr(inner.data, name).copy() for name in _LAGGING},
        }
    elapsed = [w._elapsed_steps for w in _wrappers(env) if isinstance(w, TimeLimit)]
    return {"env": content, "elapsed": elapsed}


def restore(env: gymnasium.Env, snap: Snapshot) -> None:
    """Go back to a snapshot; the continuation is the same to the last bit.

    `env` may be another instance of the environment the snapshot is of, reset or not. Statistics
    that other wrappers gather are not part of it. Raises ValueError for a snapshot of another
    environment.
    """
    inner: Any = _mujoco(env)
    limits = [w for w in _wrappers(env) if isinstance(w, TimeLimit)]
    if len(limits) != len(snap["elapsed"]):
        raise ValueError(
            f"snapshot has {len(snap['elapsed'])} time limits, this environment {len(limits)}"
        )
    if not all(w.has_reset for w in _wrappers(env) if isinstance(w, OrderEnforcing)):
        env.reset()
    content = snap["env"]
    if isinstance(inner, MujocoEnv):
        inner.restore(content)
    else:
        set_state(inner.model, inner.data, content["state"])
        inner.np_random.bit_generator.state = content["rng"]
        for name in _LAGGING:
            getattr(inner.data, name)[:] = content[name]
    for wrapper, steps in zip(limits, snap["elapsed"], strict=True):
        wrapper._elapsed_steps = steps


def _mujoco(env: gymnasium.Env) -> gymnasium.Env:
    if not can_snapshot(env):
        raise ValueError(f"{env}: only MuJoCo environments have snapshots")
    return env.unwrapped


def _wrappers(env: gymnasium.Env) -> Iterator[gymnasium.Wrapper]:
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
