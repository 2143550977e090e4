"""Panda reach: bring the hand of a 7-joint arm to a ball that jumps to a new place every 3 s.

An action is the seven joint velocities, as fractions of the robot's limits (2.175 rad/s, the wrist
2.61 rad/s), which velocity servos hold within the robot's torque limits (87 N·m, the wrist 12 N·m):
zero stands still. 25 Hz; the fingers are fixed half open. Over the 150 steps random actions return
2, and `mbrl mpc --env panda-reach` returns 122 and reaches both goals on 10 of 10 seeds.

The planning model takes a fifth of the MuJoCo steps. After 0.2 s of random joint velocities its
hand is 6 mm from the true one, which has moved 127 mm (means over 512 draws).
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs import panda
from envs.task import Array, Physics, Planning

HOME = (0.0, -0.7854, 0.0, -2.3562, 0.0, 1.5708, 0.7854)  # rad
RADIUS = (0.40, 0.65)  # m, of the goal from the base's axis
BEARING = 1.0  # rad, of the goal to either side of straight ahead
HEIGHT = (0.15, 0.60)  # m, of the goal over the table
NEAR = 0.025  # m, from the goal's centre: the ball's radius

MJCF = panda.ASSETS / "panda_reach.xml"


def prepare(spec: mujoco.MjSpec) -> None:
    """Fix the fingers half open."""
    panda.weld_fingers(spec, 0.02)


def observation(physics: Physics) -> Array:
    """(..., 20): seven joint angles rad, seven velocities rad/s, hand xyz m, goal xyz m."""
    return panda.observation(physics)


def reward(obs: Array, action: Array, next_obs: Array, *, effort: float = 0.1) -> Array:
    """`(1 - effort · mean(a²)) / (1 + (d / 5 cm)²)`, in [0, 1]; d is from the hand to the goal."""
    xp = array_namespace(next_obs)
    apart = next_obs[..., 14:17] - next_obs[..., 17:20]
    near = 1 / (1 + 400 * xp.sum(apart * apart, axis=-1))
    return near * (1 - effort * xp.mean(action * action, axis=-1))


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """At rest near `HOME`, each joint within 0.1 rad."""
    return np.array(HOME) + rng.uniform(-0.1, 0.1, 7), np.zeros(7)


def goal(rng: np.random.Generator) -> np.ndarray:
    """(1, 3), in m: in front of the arm, uniform in radius, bearing and height."""
    radius, bearing = rng.uniform(*RADIUS), rng.uniform(-BEARING, BEARING)
    return np.array(
        [[radius * math.cos(bearing), radius * math.sin(bearing), rng.uniform(*HEIGHT)]]
    )


TASK = panda.ArmTask(
    name="panda-reach",
    summary="a 7-joint arm reaches for a ball that jumps every 3 s; joint velocities, 25 Hz",
    mjcf=MJCF,
    prepare=prepare,
    success=panda.within(NEAR, 14, 17),
    observation=observation,
    reward=reward,
    initial=initial,
    goal=goal,
    goal_steps=75,
    traces=("hand",),
    planning=Planning(panda.coarse(0.02), frame_skip=2),
)
