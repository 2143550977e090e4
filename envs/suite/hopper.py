"""Hopper: a planar body with one leg stands or hops.

Tassa et al. 2018; dm_control's `suite/hopper.py`. 50 Hz.
"""

from __future__ import annotations

import math
from functools import partial

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import Model, Start, SuiteTask, gentle, mjcf, sense_position
from envs.task import Array, Physics
from envs.tolerance import tolerance

MODEL = Model(mjcf("hopper"))
HEIGHT = 0.6  # m, of the torso over the foot
SPEED = 2.0  # m/s
TOUCH = ("touch_toe", "touch_heel")


def prepare(spec: mujoco.MjSpec) -> None:
    """Sense where torso and foot have their mass."""
    sense_position(spec, "torso", "inertia")
    sense_position(spec, "foot", "inertia")


def observation(physics: Physics) -> Array:
    """(..., 15): height m, pitch and four joints rad, seven velocities, touch.

    Velocities are those of x, z, pitch and joints; touch is log(1 + N) of toe and heel, one MuJoCo
    step late.
    """
    xp = array_namespace(physics.qpos)
    touch = xp.log1p(xp.concat([physics.sensors[name] for name in TOUCH], axis=-1))
    return xp.concat([physics.qpos[..., 1:], physics.qvel, touch], axis=-1)


def features(physics: Physics) -> Array:
    """(..., 2): height of the torso over the foot m, forward velocity of the centre of mass m/s."""
    xp, sensors = array_namespace(physics.qpos), physics.sensors
    height = sensors["torso.at"][..., 2:] - sensors["foot.at"][..., 2:]
    return xp.concat([height, sensors["torso_subtreelinvel"][..., :1]], axis=-1)


def stand(obs: Array, action: Array, next_obs: Array) -> Array:
    """In [0, 1]: 0 unless the torso is 0.6 to 2 m over the foot, then more for small actions."""
    return tolerance(next_obs[..., -2], HEIGHT, 2.0) * gentle(action)


def hop(obs: Array, action: Array, next_obs: Array, *, speed: float = SPEED) -> Array:
    """In [0, 1]: 0 unless it stands, then more for moving forward, 1 from `speed` m/s on."""
    moving = tolerance(
        next_obs[..., -1], speed, math.inf, margin=speed / 2, falloff="linear", edge=0.5
    )
    return tolerance(next_obs[..., -2], HEIGHT, 2.0) * moving


def initial(rng: np.random.Generator) -> Start:
    """At rest 1 m up, with pitch and joints drawn from their ranges."""
    return MODEL.at_rest(MODEL.random_joints(rng))


_task = partial(
    SuiteTask,
    mjcf=MODEL.mjcf,
    prepare=prepare,
    observation=observation,
    features=features,
    initial=initial,
    forces=True,
    frame_skip=4,
    camera="cam0",
    traces=("torso",),
)

TASKS = (
    _task(name="dmc-hopper-stand", summary="a planar body stands on its leg; 50 Hz", reward=stand),
    _task(name="dmc-hopper-hop", summary="a planar body hops on its leg, 2 m/s; 50 Hz", reward=hop),
)
