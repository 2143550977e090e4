"""Panda push: push a cube across a table to a goal.

The arm is driven by its Cartesian interface, as in panda-pick: an action is a set-point of the
hand, xyz in a box over the table and roll, pitch and yaw from straight down. 25 Hz. The fingers are
fixed 2 cm apart, so they cannot hold the cube, which has sides of 4 cm and 0.1 kg. Over the 150
steps random actions return 14, and `mbrl mpc --env panda-push` returns 126, with the cube at the
goal on 10 of 10 seeds.

The planning model takes 3 MuJoCo steps where the true one takes 10. After 0.2 s towards random
set-points its hand is 2.3 mm from the true one, which has moved 109 mm (means over 512 draws).
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs import panda
from envs.task import Array, Planning

START = (0.46, 0.50), (-0.04, 0.04)  # m, x and y of the cube
CENTRE = (0.48, 0.0)  # m, of the ring that the goal lies on
RADIUS = (0.12, 0.18)  # m, of that ring
BEHIND = 0.05  # m behind the cube's centre, seen from the goal: where a push begins
NEAR = 0.03  # m from the goal, where the task succeeds

MJCF = panda.ASSETS / "panda_cube.xml"


def prepare(spec: mujoco.MjSpec) -> None:
    """Fix the fingers 2 cm apart and remove their actuator."""
    spec.delete(spec.actuator("grip"))
    for name in ("opening", "gear"):
        spec.delete(spec.tendon(name))
    panda.weld_fingers(spec, 0.01)


observation = panda.observation
"""(..., 33): positions (14), velocities (13), hand xyz m, goal xyz m.

Positions: seven joints rad, cube xyz m and quaternion. Velocities likewise, per s, with three
numbers for the cube's rotation."""


def reward(
    obs: Array,
    action: Array,
    next_obs: Array,
    *,
    place: float = 0.8,
    reach: float = 0.2,
    tilt: float = 0.1,
) -> Array:
    """In [0, 1]: high with the hand behind the cube and the cube at the goal.

    `(reach · behind + place · cube_near) · (1 - tilt · mean(a²))`; the first two weights sum to 1.
    `behind` is 1 / (1 + (d / 5 cm)²) for a distance d from the hand to the point 5 cm behind the
    cube, seen from the goal; `cube_near` is the same for a distance d from cube to goal; a are the
    actions of roll and pitch.
    """
    xp = array_namespace(next_obs)
    cube = next_obs[..., 7:10]
    away = cube - next_obs[..., 30:33]
    square = xp.sum(away * away, axis=-1)
    start = cube + away * (BEHIND / xp.sqrt(square + BEHIND**2))[..., None]
    apart = next_obs[..., 27:30] - start
    behind = 1 / (1 + 400 * xp.sum(apart * apart, axis=-1))
    tilted = action[..., 3:5]
    level = 1 - tilt * xp.mean(tilted * tilted, axis=-1)
    return (reach * behind + place / (1 + 400 * square)) * level


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The hand 20 cm over the table, the cube at rest below it with a random yaw."""
    (x, y), yaw = (rng.uniform(*side) for side in START), rng.uniform(-math.pi, math.pi)
    cube = [x, y, 0.02, math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]
    return np.array([*panda.READY, *cube]), np.zeros(13)


def goal(rng: np.random.Generator) -> np.ndarray:
    """(1, 3), in m: on the table, anywhere on a ring around the cube's start."""
    radius, bearing = rng.uniform(*RADIUS), rng.uniform(-math.pi, math.pi)
    x, y = CENTRE
    return np.array([[x + radius * math.cos(bearing), y + radius * math.sin(bearing), 0.02]])


TASK = panda.ArmTask(
    name="panda-push",
    summary="a 7-joint arm pushes a cube across a table to a goal; hand set-points, 25 Hz",
    mjcf=MJCF,
    prepare=prepare,
    observation=observation,
    reward=reward,
    success=panda.within(NEAR, 7, 30),
    initial=initial,
    goal=goal,
    traces=("hand", "cube"),
    planning=Planning(panda.coarse(0.04 / 3), frame_skip=3),
)
