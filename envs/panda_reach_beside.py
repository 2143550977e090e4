"""Panda reach beside a post: bring the hand to a ball, 10 cm from a post that it must not touch.

Arm, actions and start are those of `envs.panda_reach`; the ball stays for the 75 steps of an
episode. The post is upright, and stands to the left or right of the ball as seen from the arm. A
random torque of `KNOCKS` on each joint, constant within each step, moves the hand by about 7 mm in
a step. If the middle of the hand comes within 6 cm of the post's axis, it has touched: the episode
ends, which costs the reward of all later steps and `TOUCH` besides. The rest of the arm may pass.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs import panda, panda_reach
from envs.task import Array, Physics, Planning

BESIDE = 0.10  # m, from the ball to the post's axis
CLEARANCE = 0.06  # m, from the post's axis to the hand, below which it touches
TOUCH = 5.0  # in reward
KNOCKS = (20.0, 20.0, 20.0, 20.0, 3.0, 3.0, 3.0)  # N·m, std of the torque on each joint
HEIGHT = 0.8  # m, of the post


def prepare(spec: mujoco.MjSpec) -> None:
    """Fix the fingers half open, and add the post with a sensor of its place."""
    panda_reach.prepare(spec)
    post = spec.worldbody.add_body(name="post", mocap=True, pos=(0.5, 0.2, 0.0))
    post.add_geom(
        name="post",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        fromto=(0, 0, 0, 0, 0, HEIGHT),
        size=(0.015, 0, 0),
        material="dark",
        contype=0,
        conaffinity=0,
    )
    spec.add_sensor(
        name="post",
        type=mujoco.mjtSensor.mjSENS_FRAMEPOS,
        objtype=mujoco.mjtObj.mjOBJ_XBODY,
        objname="post",
    )


def observation(physics: Physics) -> Array:
    """(..., 22): that of `envs.panda_reach`, then xy of the post's axis in m."""
    xp = array_namespace(physics.qpos)
    return xp.concat([panda.observation(physics), physics.sensors["post"][..., :2]], axis=-1)


def terminated(next_obs: Array) -> Array:
    """The hand touches the post."""
    apart = next_obs[..., 14:16] - next_obs[..., 20:22]
    return apart[..., 0] ** 2 + apart[..., 1] ** 2 < CLEARANCE**2


def reward(obs: Array, action: Array, next_obs: Array, *, effort: float = 0.1) -> Array:
    """That of `envs.panda_reach`, and `TOUCH` less for a touch."""
    xp = array_namespace(next_obs)
    touched = xp.astype(terminated(next_obs), next_obs.dtype)
    return panda_reach.reward(obs, action, next_obs, effort=effort) - TOUCH * touched


def goal(rng: np.random.Generator) -> np.ndarray:
    """(2, 3), in m: the ball, drawn as in `envs.panda_reach`, and the post beside it."""
    (ball,) = panda_reach.goal(rng)
    bearing, side = math.atan2(ball[1], ball[0]), rng.choice((-1.0, 1.0)) * BESIDE
    post = (ball[0] - side * math.sin(bearing), ball[1] + side * math.cos(bearing), 0.0)
    return np.array([ball, post])


TASK = panda.ArmTask(
    name="panda-reach-beside",
    summary="a 7-joint arm, knocked at random, reaches for a ball beside a post, not touching it",
    mjcf=panda_reach.MJCF,
    prepare=prepare,
    success=panda.within(panda_reach.NEAR, 14, 17),
    observation=observation,
    reward=reward,
    terminated=terminated,
    initial=panda_reach.initial,
    goal=goal,
    process_noise=KNOCKS,
    episode_steps=75,
    traces=("hand",),
    planning=Planning(panda.coarse(0.02), frame_skip=2),
)
