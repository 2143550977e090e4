"""Humanoid: a body with 21 joints stands, walks or runs.

Tassa et al. 2018; dm_control's `suite/humanoid.py`. 40 Hz.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import (
    Model,
    Start,
    SuiteTask,
    gentle,
    keep_sensors,
    length,
    mjcf,
    sense_axes,
    sense_position,
    turned,
)
from envs.task import Array, Physics
from envs.tolerance import tolerance

MODEL = Model(mjcf("humanoid"))
HEIGHT = 1.4  # m, of the head
LIMBS = ("left_hand", "left_foot", "right_hand", "right_foot")
VELOCITY = "torso_subtreelinvel"


def prepare(spec: mujoco.MjSpec) -> None:
    """Sense torso, head, hands and feet instead of touch and forces."""
    keep_sensors(spec, VELOCITY)
    sense_axes(spec, "torso")
    for body in ("torso", "head", *LIMBS):
        sense_position(spec, body)


def prepare_pure(spec: mujoco.MjSpec) -> None:
    """Sense what the reward needs."""
    keep_sensors(spec, VELOCITY)
    sense_axes(spec, "torso", "z")
    sense_position(spec, "head")


def observation(physics: Physics) -> Array:
    """(..., 67): joints, height of the head, hands and feet, direction, velocities.

    In this order: 21 joints rad; head m; xyz of left hand, left foot, right hand and right foot in
    the torso's frame in m; z of the torso's three axes; xyz of the velocity of the centre of mass
    m/s; 27 velocities, the torso's in m/s and rad/s, then the joints'.
    """
    xp, sensors = array_namespace(physics.qpos), physics.sensors
    limbs = [turned(sensors[f"{x}.at"] - sensors["torso.at"], sensors, "torso") for x in LIMBS]
    axes = [sensors[f"torso.{axis}"][..., 2:] for axis in "xyz"]
    head = sensors["head.at"][..., 2:]
    parts = [physics.qpos[..., 7:], head, *limbs, *axes, sensors[VELOCITY], physics.qvel]
    return xp.concat(parts, axis=-1)


def pure(physics: Physics) -> Array:
    """(..., 55): 28 positions (xyz m, quaternion, joints rad) and 27 velocities."""
    return array_namespace(physics.qpos).concat([physics.qpos, physics.qvel], axis=-1)


def features(physics: Physics) -> Array:
    """(..., 5): height of the head m, z of the torso's axis, xyz of the velocity m/s."""
    sensors = physics.sensors
    parts = [sensors["head.at"][..., 2:], sensors["torso.z"][..., 2:], sensors[VELOCITY]]
    return array_namespace(physics.qpos).concat(parts, axis=-1)


def _standing(head: Array, upright: Array, action: Array) -> Array:
    high = tolerance(head, HEIGHT, math.inf, margin=HEIGHT / 4)
    straight = tolerance(upright, 0.9, math.inf, margin=1.9, falloff="linear", edge=0.0)
    return high * straight * gentle(action)


def stand(obs: Array, action: Array, next_obs: Array) -> Array:
    """In [0, 1]: the head high and the torso upright, with small actions, in place."""
    xp = array_namespace(next_obs)
    still = xp.mean(tolerance(next_obs[..., 37:39], margin=2.0), axis=-1)
    return _standing(next_obs[..., 21], next_obs[..., 36], action) * still


def _moving(velocity: Array, speed: float) -> Array:
    """A sixth, plus five sixths for moving in any direction, 1 from `speed` m/s on."""
    fast = tolerance(length(velocity), speed, math.inf, margin=speed, falloff="linear", edge=0.0)
    return (5 * fast + 1) * (1 / 6)


def move(obs: Array, action: Array, next_obs: Array, *, speed: float) -> Array:
    """In [0, 1]: standing, times a sixth plus five sixths of moving at `speed` m/s or more."""
    standing = _standing(next_obs[..., 21], next_obs[..., 36], action)
    return standing * _moving(next_obs[..., 37:39], speed)


def move_pure(obs: Array, action: Array, next_obs: Array, *, speed: float) -> Array:
    """As `move`, from the features."""
    standing = _standing(next_obs[..., -5], next_obs[..., -4], action)
    return standing * _moving(next_obs[..., -3:-1], speed)


def initial(rng: np.random.Generator) -> Start:
    """At rest 1.5 m up, turned and bent in any way without contacts."""
    return MODEL.at_rest(MODEL.random_apart(rng))


_base = partial(
    SuiteTask,
    mjcf=MODEL.mjcf,
    initial=initial,
    frame_skip=5,
    camera="side",
    traces=("torso",),
)


def _task(name: str, summary: str, reward: Callable[..., Array]) -> SuiteTask:
    return _base(
        name=f"dmc-humanoid-{name}",
        summary=f"{summary}; 40 Hz",
        prepare=prepare,
        observation=observation,
        reward=reward,
    )


TASKS = (
    _task("stand", "a body with 21 joints stands", stand),
    _task("walk", "a body with 21 joints walks at 1 m/s", partial(move, speed=1.0)),
    _task("run", "a body with 21 joints runs at 10 m/s", partial(move, speed=10.0)),
    _base(
        name="dmc-humanoid-run-pure-state",
        summary="as dmc-humanoid-run, observing positions and velocities only; 40 Hz",
        prepare=prepare_pure,
        observation=pure,
        features=features,
        reward=partial(move_pure, speed=10.0),
    ),
)
