"""Pendulum: swing up a pole with a motor too weak to lift it in one go.

Tassa et al. 2018; dm_control's `suite/pendulum.py`. 50 Hz.
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import Model, Start, SuiteTask, mjcf
from envs.task import Array, Physics
from envs.tolerance import tolerance

MODEL = Model(mjcf("pendulum"))
UPRIGHT = math.cos(math.radians(8))


def observation(physics: Physics) -> Array:
    """(..., 3): cosine and sine of the angle from upright, angular velocity rad/s."""
    xp = array_namespace(physics.qpos)
    return xp.concat([xp.cos(physics.qpos), xp.sin(physics.qpos), physics.qvel], axis=-1)


def swingup(obs: Array, action: Array, next_obs: Array) -> Array:
    """1 within 8° of upright, else 0."""
    return tolerance(next_obs[..., 0], UPRIGHT, math.inf)


def initial(rng: np.random.Generator) -> Start:
    """At rest at any angle."""
    return rng.uniform(-math.pi, math.pi, 1), np.zeros(1)


TASKS = (
    SuiteTask(
        name="dmc-pendulum-swingup",
        summary="swing up a pole with a weak motor; 1 within 8° of upright; 50 Hz",
        mjcf=MODEL.mjcf,
        observation=observation,
        reward=swingup,
        initial=initial,
        frame_skip=1,
        camera="fixed",
        traces=("mass",),
    ),
)
