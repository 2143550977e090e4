"""Finger: a planar finger spins a body on a hinge, or turns it to a target angle.

Tassa et al. 2018; dm_control's `suite/finger.py`. 50 Hz.
"""

from __future__ import annotations

import math
from functools import partial

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import (
    Model,
    Start,
    SuiteTask,
    keep_sensors,
    length,
    mjcf,
    move_by_goal,
    sense_position,
)
from envs.task import Array, Physics

MJCF = mjcf("finger")
TOUCH = ("touchtop", "touchbottom")
HINGE = (0.2, 0.4)  # m, x and z
TIP = 0.13  # m, from the hinge: the spot that turns to the target
TARGET = 0.13  # m, from the hinge
SPEED = 15.0  # rad/s


def spinning(spec: mujoco.MjSpec) -> None:
    """Little damping in the hinge."""
    keep_sensors(spec, *TOUCH)
    spec.joint("hinge").damping = np.array([0.03, 0, 0])


def turning(radius: float, spec: mujoco.MjSpec) -> None:
    """A target of this radius in m."""
    keep_sensors(spec, *TOUCH)
    move_by_goal(spec, "target", site=True, size=radius)
    sense_position(spec, "target")


MODEL = Model(MJCF, spinning)


def _common(physics: Physics) -> tuple[list[Array], Array]:
    xp = array_namespace(physics.qpos)
    angle = physics.qpos[..., 2]
    tip = xp.stack([-TIP * xp.sin(angle), TIP * xp.cos(angle)], axis=-1)
    touch = xp.log1p(xp.concat([physics.sensors[name] for name in TOUCH], axis=-1))
    return [physics.qpos[..., :2], tip, physics.qvel, touch], tip


def observation(physics: Physics) -> Array:
    """(..., 9): proximal and distal rad, tip of the body, velocities, touch.

    The tip's x and z are relative to the hinge, in m; velocities are those of proximal, distal and
    hinge in rad/s; touch is log(1 + N) of the finger's top and bottom, one MuJoCo step late.
    """
    return array_namespace(physics.qpos).concat(_common(physics)[0], axis=-1)


def observation_of_target(radius: float, physics: Physics) -> Array:
    """(..., 12): `observation`, the target's x and z from the hinge, and the distance to it in m.

    The distance is the tip's from the surface of the target, negative inside.
    """
    xp = array_namespace(physics.qpos)
    parts, tip = _common(physics)
    at = physics.sensors["target.at"]
    target = xp.stack([at[..., 0] - HINGE[0], at[..., 2] - HINGE[1]], axis=-1)
    distance = length(target - tip) - radius
    return xp.concat([*parts, target, distance[..., None]], axis=-1)


def spin(obs: Array, action: Array, next_obs: Array, *, speed: float = SPEED) -> Array:
    """1 while the body turns clockwise by `speed` rad/s or more, else 0."""
    return array_namespace(next_obs).astype(next_obs[..., 6] <= -speed, next_obs.dtype)


def turn(obs: Array, action: Array, next_obs: Array) -> Array:
    """1 with the tip in the target, else 0."""
    return array_namespace(next_obs).astype(next_obs[..., -1] <= 0, next_obs.dtype)


def initial(rng: np.random.Generator) -> Start:
    """At rest, finger and body at any angles without contacts."""
    return MODEL.at_rest(MODEL.random_apart(rng))


def goal(rng: np.random.Generator) -> np.ndarray:
    """(1, 3), in m: a point around the hinge."""
    angle = rng.uniform(-math.pi, math.pi)
    x, z = TARGET * math.sin(angle), TARGET * math.cos(angle)
    return np.array([[HINGE[0] + x, 0.0, HINGE[1] + z]])


_task = partial(
    SuiteTask,
    mjcf=MJCF,
    initial=initial,
    forces=True,
    frame_skip=2,
    camera="cam0",
    traces=("tip",),
)


def _turn(name: str, radius: float) -> SuiteTask:
    return _task(
        name=f"dmc-finger-{name}",
        summary=f"turn a body until its tip is within {100 * radius:g} cm of a target; 50 Hz",
        prepare=partial(turning, radius),
        observation=partial(observation_of_target, radius),
        reward=turn,
        goal=goal,
    )


TASKS = (
    _task(
        name="dmc-finger-spin",
        summary="spin a body with a finger, 15 rad/s or more; 1 or 0 in each step; 50 Hz",
        prepare=spinning,
        observation=observation,
        reward=spin,
    ),
    _turn("turn-easy", 0.07),
    _turn("turn-hard", 0.03),
)
