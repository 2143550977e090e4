"""Cart-pole: balance one pole, or swing up one, two or three, by pushing a cart.

Tassa et al. 2018; dm_control's `suite/cartpole.py`. 10 N, 100 Hz.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import Start, SuiteTask, gentle, mjcf
from envs.task import Array, Physics
from envs.tolerance import tolerance

MJCF = mjcf("cartpole")
NEAR = 0.25  # m, of the cart from the middle
UPRIGHT = 0.995  # cosine of an angle


def chain(poles: int, spec: mujoco.MjSpec) -> None:
    """Hang further poles on the first, one on the end of another."""
    parent, style = spec.body("pole_1"), spec.find_default("pole")
    for number in range(2, poles + 1):
        child = parent.add_body(name=f"pole_{number}", pos=[0, 0, 1], childclass="pole")
        child.add_joint(style, name=f"hinge_{number}")
        child.add_geom(style, name=f"pole_{number}")
        parent = child
    spec.geom("floor").pos = [0, 0, 1 - poles - 0.05]
    spec.camera("fixed").pos = [0, -1 - 2 * poles, 1]
    spec.camera("lookatcart").pos = [0, -2 * poles, 2]


def observation(physics: Physics) -> Array:
    """(..., 2 + 3 P): cart m, (cosine, sine) of each pole's angle from upright, velocities.

    The velocities are the cart's in m/s and the hinges' in rad/s. A hinge turns relative to the
    pole before.
    """
    xp = array_namespace(physics.qpos)
    angles = xp.cumulative_sum(physics.qpos[..., 1:], axis=-1)
    turned = xp.stack([xp.cos(angles), xp.sin(angles)], axis=-1)
    turned = xp.reshape(turned, (*turned.shape[:-2], -1))
    return xp.concat([physics.qpos[..., :1], turned, physics.qvel], axis=-1)


def _parts(obs: Array) -> tuple[Array, Array, Array]:
    """Cart (...), cosines (..., P) and hinge velocities (..., P) of an observation."""
    poles = (obs.shape[-1] - 2) // 3
    return obs[..., 0], obs[..., 1 : 1 + 2 * poles : 2], obs[..., 2 + 2 * poles :]


def smooth(obs: Array, action: Array, next_obs: Array) -> Array:
    """In [0, 1]: upright, with the cart near the middle, small actions and slow poles."""
    xp = array_namespace(next_obs)
    cart, cosines, spins = _parts(next_obs)
    upright = xp.mean(0.5 + 0.5 * cosines, axis=-1)
    centred = 0.5 + 0.5 * tolerance(cart, margin=2.0)
    slow = 0.5 + 0.5 * xp.min(tolerance(spins, margin=5.0), axis=-1)
    return upright * gentle(action) * slow * centred


def sparse(obs: Array, action: Array, next_obs: Array) -> Array:
    """1 with all poles within 5.7° of upright and the cart within 0.25 m of the middle, else 0."""
    xp = array_namespace(next_obs)
    cart, cosines, _ = _parts(next_obs)
    upright = xp.min(tolerance(cosines, UPRIGHT, math.inf), axis=-1)
    return tolerance(cart, -NEAR, NEAR) * upright


def balanced(rng: np.random.Generator) -> Start:
    """Near upright: cart within 0.1 m, angle within 0.034 rad, velocities of std 0.01."""
    qpos = np.array([rng.uniform(-0.1, 0.1), rng.uniform(-0.034, 0.034)])
    return qpos, 0.01 * rng.standard_normal(2)


def hanging(poles: int, rng: np.random.Generator) -> Start:
    """The first pole hangs; cart, its angle and velocities have std 0.01, further angles 0.1."""
    qpos = np.concatenate(
        [
            0.01 * rng.standard_normal(1),
            math.pi + 0.01 * rng.standard_normal(1),
            0.1 * rng.standard_normal(poles - 1),
        ]
    )
    return qpos, 0.01 * rng.standard_normal(1 + poles)


def _task(name: str, summary: str, reward: Callable[..., Array], poles: int = 1) -> SuiteTask:
    return SuiteTask(
        name=f"dmc-cartpole-{name}",
        summary=f"{summary}; 10 N, 100 Hz",
        mjcf=MJCF,
        prepare=partial(chain, poles) if poles > 1 else None,
        observation=observation,
        reward=reward,
        initial=balanced if name.startswith("balance") else partial(hanging, poles),
        frame_skip=1,
        camera="fixed",
        traces=(f"pole_{poles}",),
    )


TASKS = (
    _task("balance", "keep a pole upright by pushing its cart", smooth),
    _task("balance-sparse", "keep a pole upright in the middle; 1 or 0 in each step", sparse),
    _task("swingup", "swing up a pole by pushing its cart", smooth),
    _task("swingup-sparse", "swing up a pole in the middle; 1 or 0 in each step", sparse),
    _task("two-poles", "swing up two poles, one on the other", smooth, 2),
    _task("three-poles", "swing up three poles, one on another", smooth, 3),
)
