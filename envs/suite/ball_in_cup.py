"""Ball in cup: swing a ball on a string into the cup that it hangs from.

Tassa et al. 2018; dm_control's `suite/ball_in_cup.py`. In a plane; 50 Hz.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import Model, Start, SuiteTask, mjcf
from envs.task import Array, Physics

MODEL = Model(mjcf("ball_in_cup"))
RISE = 0.35  # m: the middle of the cup over the ball where all joints are at zero
ROOM = 0.025  # m: half the cup's width and height, less the ball's radius


def observation(physics: Physics) -> Array:
    """(..., 8): x and z of the cup and of the ball in m, each from its origin; velocities m/s."""
    xp = array_namespace(physics.qpos)
    return xp.concat([physics.qpos, physics.qvel], axis=-1)


def catch(obs: Array, action: Array, next_obs: Array) -> Array:
    """1 with the ball in the cup, else 0."""
    xp = array_namespace(next_obs)
    x = next_obs[..., 0] - next_obs[..., 2]
    z = RISE + next_obs[..., 1] - next_obs[..., 3]
    return xp.astype((abs(x) < ROOM) & (abs(z) < ROOM), next_obs.dtype)


def initial(rng: np.random.Generator) -> Start:
    """At rest: the cup at its origin, the ball anywhere around it that is not in its walls."""

    def draws() -> Iterator[np.ndarray]:
        while True:
            yield np.array([0.0, 0.0, rng.uniform(-0.2, 0.2), rng.uniform(0.2, 0.5)])

    return MODEL.at_rest(MODEL.apart(draws()))


TASKS = (
    SuiteTask(
        name="dmc-ball-in-cup-catch",
        summary="swing a ball on a string into a cup; 1 or 0 in each step; 50 Hz",
        mjcf=MODEL.mjcf,
        observation=observation,
        reward=catch,
        initial=initial,
        frame_skip=10,
        camera="cam0",
        traces=("ball",),
    ),
)
