"""judo's cylinder push: a disc pushes another to the middle of a table.

Model, start and cost are those of judo 0.1.0 (MIT; judo/tasks/cylinder_push.py), so that returns
can be compared with judo's: the reward is exactly minus judo's cost, and so not in [0, 1]. judo is
set to replan at 20 Hz; as its time step is 0.02 s, it replans at every second step (25 Hz), and a
control step here is two time steps.

The cost would be 0 with the pusher's centre 0.25 m behind the cart's, where it cannot be, because
both discs have a radius of 0.25 m. With the cart at the goal and the discs touching, a step costs
at least 0.015625.
"""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.task import Array, Physics, Planning, Task

OFFSET = 0.25  # m behind the cart's centre, where the pusher's should be
RADIUS = 0.25  # m, of both discs

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
    """`-½ proximity |pusher - behind|² - ½ goal |cart|²` in m².

    `behind` is the point 0.25 m behind the cart, seen from the goal.
    """
    xp = array_namespace(next_obs)
    x, y = next_obs[..., 2], next_obs[..., 3]
    square = x * x + y * y
    # At the goal "behind" is undefined: judo's cost is NaN; here `behind` is the cart's centre.
    scale = 1 + OFFSET / xp.sqrt(xp.clip(square, min=1e-12))
    dx, dy = next_obs[..., 0] - scale * x, next_obs[..., 1] - scale * y
    return (-0.5 * proximity) * (dx * dx + dy * dy) - (0.5 * goal) * square


def success(obs: Array) -> Array:
    """The cart is within 0.05 m of the goal; judo's limit is 0.3 m."""
    x, y = obs[..., 2], obs[..., 3]
    return x * x + y * y < 0.05**2


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """At rest, the pusher 1 m and the cart 2 m from the goal, each in a random direction."""
    angle = rng.uniform(0, 2 * np.pi, 2)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([cos[0], sin[0], 2 * cos[1], 2 * sin[1]]), np.zeros(4)


def as_spheres(spec: mujoco.MjSpec) -> None:
    """Replace both discs by spheres, whose contact MuJoCo computes in closed form.

    Discs at one height touch where spheres of their radius do. MuJoCo searches for the discs'
    contact, and finds its direction to about 1e-3 rad: after a second of pushing, along which
    pusher and cart move 1.6 m, the two models differ by 1.6 mm (median of 300 random pushes).
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
