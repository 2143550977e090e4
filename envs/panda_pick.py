"""Panda pick: grasp a cube on a table and hold it at a goal in the air.

The arm is driven by its Cartesian interface: an action is a set-point of the hand (xyz in a box
over the table, roll, pitch and yaw from straight down) and the fingers' opening. A spring of
600 N/m and a damper of 80 N·s/m pull the hand there with at most 60 N along each axis, within the
joints' torque limits. 25 Hz. The cube has sides of 4 cm and 0.1 kg, as in gym-hil. Over the 150
steps random actions return 2, and `mbrl mpc --env panda-pick` returns 124, with the cube held at
the goal on 10 of 10 seeds.

The planning model takes 3 MuJoCo steps where the true one takes 10. After 0.2 s towards random
set-points with a lifted cube, its hand is 1.3 mm from the true one, which has moved 76 mm; its
cube, which is dropped in some draws, is 12 mm off after moving 89 mm (means over 64 draws). With 2
steps the fingers lose the cube.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from envs import panda
from envs.task import Array, Planning

START = (0.45, 0.55), (-0.12, 0.12)  # m, x and y of the cube
GOAL = (0.40, 0.55), (-0.15, 0.15), (0.24, 0.34)  # m, x, y and z of its centre
YAW = 0.3  # rad, the largest turn of the cube to either side
GRASP = 0.04  # m, between the finger pads when they hold the cube
NEAR = 0.03  # m from the goal, where the task succeeds

MJCF = panda.ASSETS / "panda_cube.xml"


observation = panda.observation
"""(..., 37): positions (16), velocities (15), hand xyz m, goal xyz m.

Positions: seven joints rad, two fingers m, cube xyz m and quaternion. Velocities likewise, per
s, with three numbers for the cube's rotation."""


def reward(
    obs: Array,
    action: Array,
    next_obs: Array,
    *,
    reach: float = 0.2,
    grasp: float = 0.1,
    place: float = 0.7,
    tilt: float = 0.05,
) -> Array:
    """Reach, then grasp, then place, in [0, 1].

    `hand_near · (reach + grasp · closed + place · cube_near) · (1 - tilt · mean(a²))`; the first
    three weights sum to 1. `hand_near` is 1 / (1 + (d / 5 cm)²) for a distance d from hand to cube,
    `closed` is 1 with the fingers at the cube's width and falls to 0 as they open, `cube_near` is
    1 / (1 + 2 (d / 10 cm)²) for a distance d from cube to goal, and a are the actions of roll and
    pitch.
    """
    xp = array_namespace(next_obs)
    cube = next_obs[..., 9:12]
    apart, away = next_obs[..., 31:34] - cube, cube - next_obs[..., 34:37]
    hand_near = 1 / (1 + 400 * xp.sum(apart * apart, axis=-1))
    cube_near = 1 / (1 + 200 * xp.sum(away * away, axis=-1))
    closed = 1 - xp.clip(next_obs[..., 7] + next_obs[..., 8] - GRASP, min=0.0, max=0.04) * 25
    tilted = action[..., 3:5]
    level = 1 - tilt * xp.mean(tilted * tilted, axis=-1)
    return hand_near * (reach + grasp * closed + place * cube_near) * level


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The open hand 20 cm over the table, the cube at rest in the rectangle `START` below it."""
    (x, y), yaw = (rng.uniform(*side) for side in START), rng.uniform(-YAW, YAW)
    cube = [x, y, 0.02, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
    return np.array([*panda.READY, 0.04, 0.04, *cube]), np.zeros(15)


def goal(rng: np.random.Generator) -> np.ndarray:
    """(1, 3), in m: uniform in the box `GOAL`."""
    return np.array([[rng.uniform(*side) for side in GOAL]])


TASK = panda.ArmTask(
    name="panda-pick",
    summary="a 7-joint arm grasps a cube and holds it in the air; hand set-points, 25 Hz",
    mjcf=MJCF,
    observation=observation,
    reward=reward,
    success=panda.within(NEAR, 9, 34),
    initial=initial,
    goal=goal,
    traces=("hand", "cube"),
    planning=Planning(panda.coarse(0.04 / 3), frame_skip=3),
)
