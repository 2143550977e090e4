"""A 7-joint arm pushes a cylinder to a goal on a table.

The model is gymnasium's (the arm PETS used) with firm contacts of the cylinder (`prepare`); start,
timing, torques and cost are PETS's (Chua et al., 2018), so that returns can be compared with the
published ones (about -55 over 150 steps). The goal does not move, so it is a constant in the reward
and not part of the observation.
"""

from __future__ import annotations

from pathlib import Path

import gymnasium
import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs import scene
from envs.task import Array, Physics, Task

TORQUE = 2.0  # N·m at action 1
GOAL = (0.45, -0.05, -0.323)  # m
START = (-0.25, 0.15)  # m, mean offset (y, x) of the cylinder from the goal
START_STD = 0.025  # m
CYLINDER = 0.04  # kg, the armature of the cylinder's joints in gymnasium's model

MJCF = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "pusher_v5.xml"


def prepare(spec: mujoco.MjSpec) -> None:
    """Add the sensors that the observation reads, light, colours and a camera."""
    for name in ("tips_arm", "object"):
        spec.add_sensor(
            name=name,
            type=mujoco.mjtSensor.mjSENS_FRAMEPOS,
            objtype=mujoco.mjtObj.mjOBJ_XBODY,
            objname=name,
        )
    # The cylinder weighs 8 mg, and its inertia is the joints' armature. MuJoCo makes contacts as
    # soft as the mass asks: the gripper would sink into the cylinder and not push it faster than
    # 5 cm/s. As mass the same inertia gives the same equations of motion and firm contacts.
    cylinder = spec.body("object")
    cylinder.geoms[0].mass = CYLINDER
    for joint in cylinder.joints:
        joint.armature = 0.0
    scene.dress(
        spec,
        {
            "table": "floor",
            "goal": "green",
            "object": "orange",
            "sp": "blue",
            "ef": "blue",
            "wf": "blue",
            "r_wrist_roll_link": "dark",
            "tips_arm": "dark",
            "e1p": "dark",
            "e2p": "dark",
        },
        default="white",
    )
    spec.stat.extent = 1.2
    spec.stat.center = (0.3, 0.0, -0.2)
    spec.worldbody.add_camera(
        name="table",
        pos=(1.55, 1.15, 0.95),
        xyaxes=(-0.62, 0.785, 0, -0.42, -0.33, 0.845),
        fovy=36,
    )


def observation(physics: Physics) -> Array:
    """(..., 20): seven joint angles rad, seven velocities rad/s, tips xyz m, object xyz m."""
    xp = array_namespace(physics.qpos)
    return xp.concat(
        [
            physics.qpos[..., :7],
            physics.qvel[..., :7],
            physics.sensors["tips_arm"],
            physics.sensors["object"],
        ],
        axis=-1,
    )


def reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """`-1.25 |object - goal|₁ - 0.5 |tips - object|₁ - 0.1 |torque|²`, in m and (N·m)²."""
    xp = array_namespace(next_obs)
    x, y, z = next_obs[..., 17], next_obs[..., 18], next_obs[..., 19]
    to_goal = xp.abs(x - GOAL[0]) + xp.abs(y - GOAL[1]) + xp.abs(z - GOAL[2])
    to_object = xp.sum(xp.abs(next_obs[..., 14:17] - next_obs[..., 17:20]), axis=-1)
    effort = xp.sum(action * action, axis=-1)
    return -1.25 * to_goal - 0.5 * to_object - (0.1 * TORQUE**2) * effort


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The arm stretched out and nearly at rest; the cylinder normal about `START` from the goal."""
    cylinder = np.array(START) + START_STD * rng.standard_normal(2)
    qpos = np.concatenate([np.zeros(7), cylinder, np.zeros(2)])
    return qpos, np.concatenate([rng.uniform(-0.005, 0.005, 7), np.zeros(4)])


TASK = Task(
    name="arm-pusher",
    summary="a 7-joint arm pushes a cylinder to a goal on a table; 25 Hz",
    mjcf=MJCF,
    prepare=prepare,
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=4,
    episode_steps=150,
    traces=("tips_arm", "object"),
    camera="table",
)
