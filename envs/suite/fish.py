"""Fish: right itself, or swim to a target, in a fluid.

Tassa et al. 2018; dm_control's `suite/fish.py`. 25 Hz.
"""

from __future__ import annotations

from functools import partial

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import (
    Start,
    SuiteTask,
    keep_sensors,
    length,
    mjcf,
    move_by_goal,
    sense_axes,
    sense_position,
    turned,
)
from envs.task import Array, Physics
from envs.tolerance import tolerance

REACH = 0.045  # m: radii of mouth and target


def still(spec: mujoco.MjSpec) -> None:
    """Only the torso's direction is sensed."""
    keep_sensors(spec)
    sense_axes(spec, "torso", "z")


def swimming(spec: mujoco.MjSpec) -> None:
    """The target moves by a goal; mouth and target are sensed."""
    still(spec)
    move_by_goal(spec, "target")
    sense_position(spec, "target")
    sense_position(spec, "mouth", "geom")
    sense_axes(spec, "mouth", "xyz", "geom")


def observation(physics: Physics) -> Array:
    """(..., 21): seven joints rad, cosine of the torso's tilt, 13 velocities.

    Velocities are the torso's in the world in m/s, its turning in its own frame in rad/s, then the
    joints' in rad/s.
    """
    xp = array_namespace(physics.qpos)
    up = physics.sensors["torso.z"][..., 2:]
    return xp.concat([physics.qpos[..., 7:], up, physics.qvel], axis=-1)


def observation_of_target(physics: Physics) -> Array:
    """(..., 24): joints, tilt, xyz from mouth to target in the mouth's frame in m, velocities."""
    xp = array_namespace(physics.qpos)
    sensors = physics.sensors
    target = turned(sensors["target.at"] - sensors["mouth.at"], sensors, "mouth")
    up = sensors["torso.z"][..., 2:]
    return xp.concat([physics.qpos[..., 7:], up, target, physics.qvel], axis=-1)


def upright(obs: Array, action: Array, next_obs: Array) -> Array:
    """In [0, 1]: 1 upright, a tenth with the torso on its side."""
    return tolerance(next_obs[..., 7], 1.0, 1.0, margin=1.0)


def swim(obs: Array, action: Array, next_obs: Array) -> Array:
    """In [0, 1]: seven eighths for the mouth near the target, one eighth for being upright."""
    near = tolerance(length(next_obs[..., 8:11]), 0.0, REACH, margin=2 * REACH)
    return 0.875 * near + 0.0625 * (next_obs[..., 7] + 1)


def initial(rng: np.random.Generator) -> Start:
    """At rest, turned in any way, joints within 0.2 rad."""
    quat = rng.standard_normal(4)
    qpos = [0.0, 0.0, 0.1, *quat / np.linalg.norm(quat), *rng.uniform(-0.2, 0.2, 7)]
    return np.array(qpos), np.zeros(13)


def goal(rng: np.random.Generator) -> np.ndarray:
    """(1, 3), in m: in a box of 0.8 x 0.8 x 0.2."""
    return rng.uniform([[-0.4, -0.4, 0.1]], [[0.4, 0.4, 0.3]])


_task = partial(
    SuiteTask,
    mjcf=mjcf("fish"),
    initial=initial,
    frame_skip=10,
    camera="tracking_top",
    traces=("mouth",),
)

TASKS = (
    _task(
        name="dmc-fish-upright",
        summary="a fish rights itself; 25 Hz",
        prepare=still,
        observation=observation,
        reward=upright,
    ),
    _task(
        name="dmc-fish-swim",
        summary="a fish swims to a target, upright; 25 Hz",
        prepare=swimming,
        observation=observation_of_target,
        reward=swim,
        goal=goal,
    ),
)
