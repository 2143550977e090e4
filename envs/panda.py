"""The Panda of the panda-* tasks: a 7-joint arm with a parallel gripper on a table.

Frames, masses, inertias, joint ranges and torque limits are the robot's (envs/assets/panda.xml
names the sources), drawn and collided with primitives. As on the robot, the controller carries the
arm's own weight. The grasp point, between the finger tips, is what the tasks call the hand.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mujoco

ASSETS = Path(__file__).parent / "assets"

READY = (0.0, -0.0871, 0.0, -2.5418, 0.0, 2.4546, 0.7854)
"""Joint angles, rad, that hold the hand straight down at (0.45, 0, 0.20) m, fingers along y."""


def weld_fingers(spec: mujoco.MjSpec, opening: float) -> None:
    """Make the fingers part of the hand, each `opening` metres from closed."""
    for name, side in (("left finger", 1), ("right finger", -1)):
        spec.delete(spec.joint(name))
        body = spec.body(name)
        body.pos = (body.pos[0], body.pos[1] + side * opening, body.pos[2])


def coarse(timestep: float) -> Callable[[mujoco.MjSpec], None]:
    """What makes a planning model of `timestep` seconds a step."""

    def prepare(spec: mujoco.MjSpec) -> None:
        spec.option.timestep = timestep

    return prepare
