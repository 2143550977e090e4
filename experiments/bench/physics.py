"""Environment steps per second."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

import envs
from experiments.bench.measure import Bench, Result, rate


def physics(bench: Bench, *, steps: int = 2000) -> list[Result]:
    """Environment steps/s over those of a bare loop of `mj_step`: the share spent in physics."""

    def ours(env: Any, actions: np.ndarray) -> None:
        env.reset(seed=0)
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    def bare(env: Any, actions: np.ndarray) -> None:
        data = mujoco.MjData(env.model)
        for action in actions:
            data.ctrl[:] = action
            mujoco.mj_step(env.model, data, nstep=env.task.frame_skip)

    results = []
    for name in ("cartpole-swingup", "half-cheetah"):
        env: Any = envs.make(name)
        draw = np.random.default_rng(0)
        actions = draw.uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)
        results += bench.compare(
            f"env.step, {name}",
            "steps/s",
            rate(steps, ours, env, actions),
            {"bare mj_step": rate(steps, bare, env.unwrapped, actions)},
        )
        env.close()
    return results
