"""Reacher: bring the tip of a planar arm with two joints to a target.

Tassa et al. 2018; dm_control's `suite/reacher.py`. 50 Hz.
"""

from __future__ import annotations

import math
from functools import partial

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import Model, Start, SuiteTask, length, mjcf, move_by_goal, sense_position
from envs.task import Array, Physics
from envs.tolerance import tolerance

MODEL = Model(mjcf("reacher"))
LINK = 0.12  # m, each of the two
FINGER = 0.01  # m, radius of the tip


def prepare(radius: float, spec: mujoco.MjSpec) -> None:
    """A target of this radius in m, which a goal moves."""
    move_by_goal(spec, "target", size=radius)
    sense_position(spec, "target")


def observation(physics: Physics) -> Array:
    """(..., 6): two joints rad, x and y from tip to target m, velocities rad/s."""
    xp = array_namespace(physics.qpos)
    angles = xp.cumulative_sum(physics.qpos, axis=-1)
    x, y = LINK * xp.sum(xp.cos(angles), axis=-1), LINK * xp.sum(xp.sin(angles), axis=-1)
    apart = physics.sensors["target.at"][..., :2] - xp.stack([x, y], axis=-1)
    return xp.concat([physics.qpos, apart, physics.qvel], axis=-1)


def reach(obs: Array, action: Array, next_obs: Array, *, reach: float) -> Array:
    """1 with the tip within `reach` m of the target's middle, else 0."""
    return tolerance(length(next_obs[..., 2:4]), 0.0, reach)


def initial(rng: np.random.Generator) -> Start:
    """At rest, joints anywhere in their ranges."""
    return MODEL.at_rest(MODEL.random_joints(rng))


def goal(rng: np.random.Generator) -> np.ndarray:
    """(1, 3), in m: 5 to 20 cm from the base, in any direction."""
    angle, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.20)
    return np.array([[radius * math.sin(angle), radius * math.cos(angle), 0.01]])


def _task(name: str, radius: float) -> SuiteTask:
    return SuiteTask(
        name=f"dmc-reacher-{name}",
        summary=f"a planar arm reaches for a target of {100 * radius:g} cm; 1 or 0; 50 Hz",
        mjcf=MODEL.mjcf,
        prepare=partial(prepare, radius),
        observation=observation,
        reward=partial(reach, reach=radius + FINGER),
        initial=initial,
        goal=goal,
        frame_skip=1,
        camera="fixed",
        traces=("finger",),
    )


TASKS = (_task("easy", 0.05), _task("hard", 0.015))
