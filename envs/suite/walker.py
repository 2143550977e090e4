"""Walker: a planar biped stands, walks or runs.

Tassa et al. 2018; dm_control's `suite/walker.py`. 40 Hz.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import Model, Start, SuiteTask, mjcf
from envs.task import Array, Physics
from envs.tolerance import tolerance

MODEL = Model(mjcf("walker"))
HEIGHT = 1.2  # m, of the torso's middle
ORIGIN = 1.3  # m: the torso's height where the joint rootz is at zero


def observation(physics: Physics) -> Array:
    """(..., 24): (cosine, sine) of the pitch of seven bodies, height m, nine velocities.

    The bodies are torso, right thigh, leg and foot, then the left ones. Velocities are z and x of
    the torso in m/s, then its pitch, and hip, knee and ankle of the right and the left leg in
    rad/s.
    """
    xp = array_namespace(physics.qpos)
    pitch = physics.qpos[..., 2:3]
    right = pitch - xp.cumulative_sum(physics.qpos[..., 3:6], axis=-1)
    left = pitch - xp.cumulative_sum(physics.qpos[..., 6:9], axis=-1)
    angles = xp.concat([pitch, right, left], axis=-1)
    turned = xp.stack([xp.cos(angles), xp.sin(angles)], axis=-1)
    turned = xp.reshape(turned, (*turned.shape[:-2], 14))
    height = ORIGIN + physics.qpos[..., :1]
    return xp.concat([turned, height, physics.qvel], axis=-1)


def features(physics: Physics) -> Array:
    """(..., 1): forward velocity of the centre of mass, m/s."""
    return physics.sensors["torso_subtreelinvel"][..., :1]


def stand(obs: Array, action: Array, next_obs: Array) -> Array:
    """In [0, 1]: high and upright."""
    standing = tolerance(next_obs[..., 14], HEIGHT, math.inf, margin=HEIGHT / 2)
    return 0.75 * standing + 0.25 * (0.5 + 0.5 * next_obs[..., 0])


def move(obs: Array, action: Array, next_obs: Array, *, speed: float) -> Array:
    """In [0, 1]: standing, times a sixth plus five sixths of moving at `speed` m/s or more."""
    moving = tolerance(
        next_obs[..., -1], speed, math.inf, margin=speed / 2, falloff="linear", edge=0.5
    )
    return stand(obs, action, next_obs) * (5 * moving + 1) * (1 / 6)


def initial(rng: np.random.Generator) -> Start:
    """At rest at the height of standing, with pitch and joints drawn from their ranges."""
    return MODEL.at_rest(MODEL.random_joints(rng))


_task = partial(
    SuiteTask,
    mjcf=MODEL.mjcf,
    observation=observation,
    initial=initial,
    frame_skip=10,
    camera="side",
    traces=("torso",),
)

TASKS = (
    _task(name="dmc-walker-stand", summary="a planar biped stands; 40 Hz", reward=stand),
    _task(
        name="dmc-walker-walk",
        summary="a planar biped walks at 1 m/s; 40 Hz",
        reward=partial(move, speed=1.0),
        features=features,
    ),
    _task(
        name="dmc-walker-run",
        summary="a planar biped runs at 8 m/s; 40 Hz",
        reward=partial(move, speed=8.0),
        features=features,
    ),
)
