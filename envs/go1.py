"""The Unitree Go1 of the quadruped-* tasks: four legs of three joints, 12.7 kg.

Frames, masses, inertias, joint ranges, torque limits and servo gains are the robot's
(envs/assets/go1.xml names the sources); its shapes are primitives. An action moves the servos'
targets from the standing pose, by up to 0.8, 1.2 and 0.9 rad for abduction, thigh and calf.
"""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.task import Array, Physics, Planning

MJCF = Path(__file__).parent / "assets" / "go1.xml"

STANDING = (0.0, 0.9, -1.8) * 4
"""Joint angles, rad, at action 0: front right, front left, rear right, rear left."""

HEIGHT, UP, VELOCITY, SPIN, JOINTS = 0, slice(1, 4), slice(4, 7), slice(7, 10), slice(10, 22)
"""Indices of the parts of `stance`."""


def stance(physics: Physics) -> tuple[Array, ...]:
    """The robot's state without its position and heading: parts that make (..., 34) together.

    Trunk height m; the world's up direction, velocity m/s and angular velocity rad/s in the trunk's
    frame (x ahead, y left); 12 joint angles rad, 12 joint velocities rad/s.
    """
    qpos, qvel, sensors = physics.qpos, physics.qvel, physics.sensors
    return (
        qpos[..., 2:3],
        sensors["up"],
        sensors["velocity"],
        qvel[..., 3:6],
        qpos[..., 7:],
        qvel[..., 6:],
    )


def mean_square(action: Array) -> Array:
    """Mean square of an action (..., 12): (...) in [0, 1]."""
    xp = array_namespace(action)
    return xp.mean(action * action, axis=-1)


def pose(height: float, roll: float, yaw: float, joints: np.ndarray) -> np.ndarray:
    """qpos (19,): the trunk `height` m over the origin, turned by `yaw`, then by `roll` rad.

    `joints` (12,) are the joint angles in rad.
    """
    cr, sr, cy, sy = np.cos(roll / 2), np.sin(roll / 2), np.cos(yaw / 2), np.sin(yaw / 2)
    return np.concatenate([[0, 0, height, cy * cr, cy * sr, sy * sr, sy * cr], joints])


def _coarse(spec: mujoco.MjSpec) -> None:
    spec.option.timestep = 0.01
    # With a handful of contacts projected Gauss-Seidel takes half the time of Newton.
    spec.option.solver = int(mujoco.mjtSolver.mjSOL_PGS)
    spec.option.iterations = 6
    for geom in list(spec.geoms):
        if not (geom.contype or geom.conaffinity):  # visual only
            spec.delete(geom)


PLANNING = Planning(_coarse, 2)
"""3.7 times as fast as the true model. After 0.2 s of random targets, which move the trunk by 38 mm
and the joints by 0.155 rad, the trunk is 5.8 mm (in the worst tenth 10.4 mm) and the joints are
0.016 rad from their place in the true model (medians over 32 draws)."""
