"""The Panda of the panda-* tasks: a 7-joint arm with a parallel gripper on a table.

Frames, masses, inertias, joint ranges and torque limits are the robot's (envs/assets/panda.xml
names the sources); its shapes are primitives. As on the robot, the controller compensates the arm's
weight. In these tasks "the hand" is the grasp point between the finger tips.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import mujoco
from array_api_compat import array_namespace

from envs.task import Array, Physics, Task

ASSETS = Path(__file__).parent / "assets"

READY = (0.0, -0.0871, 0.0, -2.5418, 0.0, 2.4546, 0.7854)
"""Joint angles, rad, that hold the hand straight down at (0.45, 0, 0.20) m, fingers along y."""


ArmTask = partial(Task, frame_skip=10, episode_steps=150, camera="front")
"""A task of the arm: 6 s at 25 Hz."""


def observation(physics: Physics) -> Array:
    """(..., nq + nv + 6): positions, velocities, xyz of the hand and xyz of the goal in m."""
    xp = array_namespace(physics.qpos)
    return xp.concat(
        [physics.qpos, physics.qvel, physics.sensors["hand"], physics.sensors["goal"]], axis=-1
    )


def within(distance: float, a: int, b: int) -> Callable[[Array], Array]:
    """Whether two points of observations are near each other: a `success`.

    Args:
        distance: in m; nearer is near.
        a: column of the observation where one point, of three columns, begins.
        b: that of the other.
    """

    def near(obs: Array) -> Array:
        xp = array_namespace(obs)
        apart = obs[..., a : a + 3] - obs[..., b : b + 3]
        return xp.sum(apart * apart, axis=-1) < distance**2

    return near


def weld_fingers(spec: mujoco.MjSpec, opening: float) -> None:
    """Fix the fingers to the hand, each `opening` m from its closed position."""
    for name, side in (("left finger", 1), ("right finger", -1)):
        spec.delete(spec.joint(name))
        body = spec.body(name)
        body.pos = (body.pos[0], body.pos[1] + side * opening, body.pos[2])


def coarse(timestep: float) -> Callable[[mujoco.MjSpec], None]:
    """The `Planning.prepare` of a model with MuJoCo steps of `timestep` seconds."""

    def prepare(spec: mujoco.MjSpec) -> None:
        spec.option.timestep = timestep

    return prepare
