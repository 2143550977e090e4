"""A 7-joint arm whose finger tip reaches for a ball.

Lengths, joint ranges, torques, timing, start and cost are those of PETS's 7-DoF reacher (Chua et
al., 2018), so that returns can be compared with the published ones (about -45 over 150 steps); no
gravity.

The observation is joints and target only; the reward finds the finger tip by forward kinematics.
So a learned model need not learn the arm's geometry, and the tip in the reward always agrees with
the predicted joints. The kinematics are some forty elementwise operations, about 2 % of the cost of
an ensemble's forward pass.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from array_api_compat import array_namespace

from envs.task import Array, Physics, Task

SHOULDER_Y = -0.188  # m, of the pan axis; x and z are 0
SHOULDER, UPPER_ARM, FOREARM, HAND = 0.1, 0.4, 0.321, 0.168  # m, as in reacher.xml
TORQUE = 20.0  # N·m at action 1
TARGET = (0.0, 0.25, 0.0)  # m, mean
TARGET_STD = 0.1  # m

MJCF = Path(__file__).parent / "assets" / "reacher.xml"


def observation(physics: Physics) -> Array:
    """(..., 17): seven joint angles rad, seven joint velocities rad/s, target xyz m."""
    qpos, qvel = physics.qpos, physics.qvel
    xp = array_namespace(qpos)
    return xp.concat([qpos[..., :7], qvel[..., :7], qpos[..., 7:]], axis=-1)


def finger_tip(joints: Array) -> tuple[Array, Array, Array]:
    """x, y, z of the finger tip, each (...), in m, for joint angles (..., 7 or more)."""
    xp = array_namespace(joints)
    # The last joint rolls the hand about the axis that the tip lies on, so it does not move the
    # tip. The stack is contiguous for each joint: sines of strided numbers are four times slower.
    angles = xp.stack([joints[..., i] for i in range(6)])
    sin, cos = xp.sin(angles), xp.cos(angles)
    # From the tip back to the base: rotate the chain so far about the joint, then add the link.
    x = HAND * cos[5] + FOREARM  # wrist flex, about y
    z = -HAND * sin[5]
    y = -sin[4] * z  # forearm roll, about x
    z = cos[4] * z
    x, z = cos[3] * x + sin[3] * z + UPPER_ARM, cos[3] * z - sin[3] * x  # elbow
    y, z = cos[2] * y - sin[2] * z, sin[2] * y + cos[2] * z  # upper arm roll
    x, z = cos[1] * x + sin[1] * z + SHOULDER, cos[1] * z - sin[1] * x  # lift
    x, y = cos[0] * x - sin[0] * y, sin[0] * x + cos[0] * y  # pan, about z
    return x, y + SHOULDER_Y, z


def reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """`-|tip - target|² - 0.01 |torque|²`, in m² and (N·m)²."""
    xp = array_namespace(next_obs)
    x, y, z = finger_tip(next_obs)
    dx, dy, dz = x - next_obs[..., 14], y - next_obs[..., 15], z - next_obs[..., 16]
    effort = xp.sum(action * action, axis=-1)
    return -(dx * dx + dy * dy + dz * dz) - (0.01 * TORQUE**2) * effort


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The arm stretched out along x at rest, the target normal about (0, 0.25, 0) with 0.1 m."""
    target = np.array(TARGET) + TARGET_STD * rng.standard_normal(3)
    return np.concatenate([np.zeros(7), target]), np.zeros(10)


TASK = Task(
    name="arm-reacher",
    summary="a 7-joint arm reaches for a ball at a new place each episode; 50 Hz",
    mjcf=MJCF,
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=2,
    episode_steps=150,
    traces=("tip",),
    camera="front",
)
