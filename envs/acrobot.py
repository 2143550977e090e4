"""Acrobot swing-up: two rods that hang from a free hinge, and a servo at the joint between them.

Two uniform thin rods of 1 kg and 0.5 m, with a damping of 0.02 N·m·s/rad at each hinge. An action
is the servo's target angle of the elbow, within ±2.5 rad; the servo has gains of 30 N·m/rad and
2 N·m·s/rad and at most 5 N·m. 25 Hz. It is too weak to lift the rods slowly: they have to be swung
up, and are then balanced by moving the lower one.

With torques as actions, the same planners balanced the rods from 0.05 rad off upright on at most
half of the seeds: the faster of the two unstable modes grows too fast for a plan of one second. The
servo stabilises that mode. Planning with the true simulator then returns 191 over the 250 steps and
succeeds on all of ten seeds; random actions return 4.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from array_api_compat import array_namespace

from envs.task import Array, Physics, Task
from envs.tolerance import tolerance

LENGTH = 0.5  # m, of each rod

MJCF = Path(__file__).parent / "assets" / "acrobot.xml"


def observation(physics: Physics) -> Array:
    """(..., 6): sin and cos of the shoulder, then of the elbow; their velocities in rad/s.

    The shoulder is 0 upright, the elbow where the rods are in line.
    """
    qpos, qvel = physics.qpos, physics.qvel
    xp = array_namespace(qpos)
    shoulder, elbow = qpos[..., 0], qpos[..., 1]
    return xp.stack(
        [
            xp.sin(shoulder),
            xp.cos(shoulder),
            xp.sin(elbow),
            xp.cos(elbow),
            qvel[..., 0],
            qvel[..., 1],
        ],
        axis=-1,
    )


def reward(
    obs: Array,
    action: Array,
    next_obs: Array,
    *,
    motion: float = 0.1,
    effort: float = 0.05,
) -> Array:
    """In [0, 1]: high with the tip near its highest point, at rest, and the elbow's target near 0.

    `near · (1 - motion · min(|ω|² / 25, 1)) · (1 - effort · a²)`: `near` is 1 with the tip at its
    highest point and 0.01 at its lowest, ω are both joint velocities in rad/s.
    """
    xp = array_namespace(next_obs)
    turning, bending, target = next_obs[..., 4], next_obs[..., 5], action[..., 0]
    x, z = tip(next_obs)
    below = 2 * LENGTH - z
    distance = xp.sqrt(x * x + below * below + 1e-12)  # the gradient at 0 is 0, not NaN
    fast = xp.clip((turning * turning + bending * bending) * (1 / 25.0), max=1.0)
    return (
        tolerance(distance, margin=4 * LENGTH, edge=0.01)
        * (1 - motion * fast)
        * (1 - effort * (target * target))
    )


def tip(obs: Array) -> tuple[Array, Array]:
    """Position of the lower rod's end relative to the shoulder: x and z, each (...), in m."""
    sin, cos, sin_elbow, cos_elbow = obs[..., 0], obs[..., 1], obs[..., 2], obs[..., 3]
    return (
        LENGTH * (sin + sin * cos_elbow + cos * sin_elbow),
        LENGTH * (cos + cos * cos_elbow - sin * sin_elbow),
    )


def success(obs: Array) -> Array:
    """The tip is within 5 cm of its highest point and both joints turn at less than 1 rad/s."""
    xp = array_namespace(obs)
    slow = (xp.abs(obs[..., 4]) < 1.0) & (xp.abs(obs[..., 5]) < 1.0)
    return (tip(obs)[1] > 2 * LENGTH - 0.05) & slow


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hanging at rest, plus uniform noise within 0.05 rad and 0.05 rad/s."""
    return np.array([np.pi, 0.0]) + rng.uniform(-0.05, 0.05, 2), rng.uniform(-0.05, 0.05, 2)


TASK = Task(
    name="acrobot-swingup",
    summary="swing two rods up, and hold them, by a servo between them; 5 N·m, 25 Hz",
    mjcf=MJCF,
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=4,
    episode_steps=250,
    camera="side",
    success=success,
    traces=("tip",),
)
