"""Acrobot: swing up two rods by a motor between them.

Tassa et al. 2018; dm_control's `suite/acrobot.py`. 2 N·m, 100 Hz.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import Start, SuiteTask, length, mjcf
from envs.task import Array, Physics
from envs.tolerance import tolerance

RADIUS = 0.2  # m, of the target around the point where the tip is if both rods stand


def observation(physics: Physics) -> Array:
    """(..., 6): sines of both rods' angles from upright, cosines, joint velocities rad/s."""
    xp = array_namespace(physics.qpos)
    angles = xp.cumulative_sum(physics.qpos, axis=-1)
    return xp.concat([xp.sin(angles), xp.cos(angles), physics.qvel], axis=-1)


def swingup(obs: Array, action: Array, next_obs: Array, *, margin: float = 1.0) -> Array:
    """In [0, 1]: 1 with the tip within 0.2 m of its highest point, a tenth `margin` m further."""
    xp = array_namespace(next_obs)
    x = next_obs[..., 0] + next_obs[..., 1]
    z = next_obs[..., 2] + next_obs[..., 3] - 2
    return tolerance(length(xp.stack([x, z], axis=-1)), 0.0, RADIUS, margin=margin)


def initial(rng: np.random.Generator) -> Start:
    """At rest, both joints at any angle."""
    return rng.uniform(-math.pi, math.pi, 2), np.zeros(2)


_task = partial(
    SuiteTask,
    mjcf=mjcf("acrobot"),
    observation=observation,
    initial=initial,
    frame_skip=1,
    camera="fixed",
    traces=("tip",),
)

TASKS = (
    _task(
        name="dmc-acrobot-swingup",
        summary="swing up two rods by a motor between them; 2 N·m, 100 Hz",
        reward=swingup,
    ),
    _task(
        name="dmc-acrobot-swingup-sparse",
        summary="swing up two rods; 1 with the tip at the top, else 0; 2 N·m, 100 Hz",
        reward=partial(swingup, margin=0.0),
    ),
)
