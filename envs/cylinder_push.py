"""judo's cylinder push: a disc pushes another to the middle of a table.

Model, start and cost are those of judo 0.1.0 (MIT; judo/tasks/cylinder_push.py), so that returns
compare with its own: the reward is minus its cost, exactly, and so not in [0, 1]. judo asks for a
plan at 20 Hz, yet its time step is 0.02 s: its own driver replans at every second one, 25 Hz, and
here a control step is two.

The cost wants the pusher's centre 0.25 m behind the cart's, where two discs of 0.25 m cannot be:
touching at rest at the goal costs 0.015625 a step.
"""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.task import Array, Physics, Planning, Task

OFFSET = 0.25  # m behind the cart's centre, where the pusher should be
RADIUS = 0.25  # m, of both

MJCF = Path(__file__).parent / "assets" / "cylinder_push.xml"


def observation(physics: Physics) -> Array:
    """(..., 8): pusher x, y and cart x, y in m; their velocities in m/s. The goal is the origin."""
    xp = array_namespace(physics.qpos)
    return xp.concat([physics.qpos, physics.qvel], axis=-1)


def reward(
    obs: Array,
    action: Array,
    next_obs: Array,
    *,
    proximity: float = 0.5,
    goal: float = 0.1,
) -> Array:
    """`-½ proximity |pusher - behind|² - ½ goal |cart|²` in m², with `behind` 0.25 m behind the
    cart as seen from the goal."""
    xp = array_namespace(next_obs)
    x, y = next_obs[..., 2], next_obs[..., 3]
    square = x * x + y * y
    # At the goal the direction is undefined: judo's cost is NaN, here `behind` is the cart itself.
    scale = 1 + OFFSET / xp.sqrt(xp.clip(square, min=1e-12))
    dx, dy = next_obs[..., 0] - scale * x, next_obs[..., 1] - scale * y
    return (-0.5 * proximity) * (dx * dx + dy * dy) - (0.5 * goal) * square


def success(obs: Array) -> Array:
    """The cart is within 0.05 m of the goal; judo's limit is 0.3 m."""
    x, y = obs[..., 2], obs[..., 3]
    return x * x + y * y < 0.05**2


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """At rest in any direction from the goal, the pusher at 1 m and the cart at 2 m."""
    angle = rng.uniform(0, 2 * np.pi, 2)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([cos[0], sin[0], 2 * cos[1], 2 * sin[1]]), np.zeros(4)


def as_spheres(spec: mujoco.MjSpec) -> None:
    """Discs at one height touch where spheres of their radius do, which takes no search.

    MuJoCo finds the discs' contact to about 1e-3 rad: after a second of pushing the models have
    parted by 1.6 mm, the median of 300 random pushes along which pusher and cart went 1.6 m.
    """
    for name in ("pusher", "cart"):
        spec.geom(name).type = mujoco.mjtGeom.mjGEOM_SPHERE


TASK = Task(
    name="cylinder-push",
    summary="judo's cylinder push: a disc pushes another to the middle of a table; 25 Hz",
    mjcf=MJCF,
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=2,
    episode_steps=250,
    camera="table",
    success=success,
    traces=("pusher", "cart"),
    planning=Planning(as_spheres, 2),
)
