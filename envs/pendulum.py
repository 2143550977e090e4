"""Pendulum swing-up with a motor too weak to lift the rod in one go.

A uniform rod of 1 kg and 1 m without friction. The motor has 2 N·m, and holding the rod level takes
4.9 N·m, so it takes a few swings; 20 Hz. The constants are those of gymnasium's Pendulum-v1; the
reward lies in (-0.01, 1], as the cart-pole's does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from array_api_compat import array_namespace

from envs.task import Array, Physics, Task

MJCF = Path(__file__).parent / "assets" / "pendulum.xml"


def observation(physics: Physics) -> Array:
    """(..., 3): sin θ, cos θ, θ velocity rad/s; θ = 0 is up."""
    xp = array_namespace(physics.qpos)
    angle = physics.qpos[..., 0]
    return xp.stack([xp.sin(angle), xp.cos(angle), physics.qvel[..., 0]], axis=-1)


def reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """`exp(-|tip - upright tip|²) - 0.01 a²`, the tip in m."""
    xp = array_namespace(next_obs)
    torque = action[..., 0]
    # |tip - upright tip|² = sin² + (cos - 1)² is not simplified, because a model's sin and cos
    # need not lie on the unit circle.
    aside, below = next_obs[..., 0], next_obs[..., 1] - 1
    return xp.exp(-(aside * aside + below * below)) - 0.01 * (torque * torque)


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hanging at rest, plus uniform noise within 0.1 rad and 0.05 rad/s."""
    return np.array([np.pi]) + rng.uniform(-0.1, 0.1, 1), rng.uniform(-0.05, 0.05, 1)


TASK = Task(
    name="pendulum-swingup",
    summary="swing a rod up with a motor too weak to lift it in one go; 20 Hz",
    mjcf=MJCF,
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=5,
    episode_steps=150,
    traces=("tip",),
    camera="side",
)
