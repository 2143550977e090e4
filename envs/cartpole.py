"""Cart-pole swing-up: push a cart so that the pole hanging from it stands upright.

A 1 kg cart on a rail of ±2.5 m, a 10 N motor, and a uniform thin rod of 0.1 kg and 0.6 m without
friction; 25 Hz. The reward is the one of PETS (Chua et al., 2018), per step in [-0.01, 1]. Planning
with the true simulator returns 128 over the 150 steps.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from array_api_compat import array_namespace

from envs.task import Array, Physics, Task

LENGTH = 0.6  # m, of the pole

MJCF = Path(__file__).parent / "assets" / "cartpole.xml"


def observation(physics: Physics) -> Array:
    """(..., 5): cart position m, sin θ, cos θ, cart velocity m/s, θ velocity rad/s; θ = 0 is up."""
    qpos, qvel = physics.qpos, physics.qvel
    xp = array_namespace(qpos)
    angle = qpos[..., 1]
    return xp.stack(
        [qpos[..., 0], xp.sin(angle), xp.cos(angle), qvel[..., 0], qvel[..., 1]], axis=-1
    )


def reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """`exp(-|tip - upright tip|² / 0.36) - 0.01 a²`; the upright tip is over the rail's centre."""
    xp = array_namespace(next_obs)
    aside = next_obs[..., 0] * (1 / LENGTH) + next_obs[..., 1]
    below = next_obs[..., 2] - 1
    force = action[..., 0]
    return xp.exp(-(aside * aside + below * below)) - 0.01 * (force * force)


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hanging at rest at the rail's centre, plus uniform noise.

    It is within 0.02 m, 0.05 rad, 0.02 m/s and 0.02 rad/s.
    """
    return (
        np.array([0.0, np.pi]) + rng.uniform(-1, 1, 2) * (0.02, 0.05),
        rng.uniform(-0.02, 0.02, 2),
    )


TASK = Task(
    name="cartpole-swingup",
    summary="swing a hanging pole up by pushing its cart; 10 N, 25 Hz",
    mjcf=MJCF,
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=4,
    episode_steps=150,
    traces=("tip",),
    camera="side",
)

NOISY = dataclasses.replace(
    TASK,
    name="cartpole-swingup-noisy",
    summary="cart-pole swing-up with gusts on the cart; needs replanning; 10 N, 25 Hz",
    # A fifth of the motor's force. With the true simulator, replanning at every step returns 126
    # of 150, as without gusts; the actions planned without gusts return 21 ± 11 when replayed.
    process_noise=(2.0, 0.0),
)
