"""Cheetah: run forward on two legs in a plane.

Tassa et al. 2018; dm_control's `suite/cheetah.py`. 100 Hz.
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import Model, Start, SuiteTask, mjcf
from envs.task import Array, Physics
from envs.tolerance import tolerance

MODEL = Model(mjcf("cheetah"))
SPEED = 10.0  # m/s


def observation(physics: Physics) -> Array:
    """(..., 17): height m, pitch rad, six joints rad; then velocities of x and of these."""
    xp = array_namespace(physics.qpos)
    return xp.concat([physics.qpos[..., 1:], physics.qvel], axis=-1)


def features(physics: Physics) -> Array:
    """(..., 1): forward velocity of the centre of mass, m/s."""
    return physics.sensors["torso_subtreelinvel"][..., :1]


def run(obs: Array, action: Array, next_obs: Array, *, speed: float = SPEED) -> Array:
    """In [0, 1]: proportional to the forward velocity, 1 from `speed` m/s on."""
    return tolerance(next_obs[..., -1], speed, math.inf, margin=speed, falloff="linear", edge=0.0)


def initial(rng: np.random.Generator) -> Start:
    """At rest, with joints anywhere in their ranges; the task then lets it fall for 2 s."""
    model = MODEL.compiled()
    qpos = model.qpos0.copy()
    limited = model.jnt_limited.astype(bool)
    qpos[limited] = rng.uniform(*model.jnt_range[limited].T)
    return MODEL.at_rest(qpos)


TASKS = (
    SuiteTask(
        name="dmc-cheetah-run",
        summary="run forward on two legs in a plane, up to 10 m/s; 100 Hz",
        mjcf=MODEL.mjcf,
        observation=observation,
        features=features,
        reward=run,
        initial=initial,
        settle=200,
        frame_skip=1,
        camera="side",
        traces=("torso",),
    ),
)
