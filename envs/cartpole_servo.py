"""judo's cart-pole: a position servo moves a cart so that its pole swings up and stands.

Model, start and cost are those of judo 0.1.0 (MIT; judo/tasks/cartpole.py), so that returns can be
compared with judo's: the reward is exactly minus judo's cost, and so not in [0, 1]. judo is set to
replan at 20 Hz; as its time step is 0.04 s, it replans at every step, and a control step here is
one time step.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from array_api_compat import array_namespace

from envs.cartpole import observation
from envs.task import Array, Task

RANGE = 1.8  # m, the cart's target position at action 1
UPRIGHT_WIDTH, CENTRE_WIDTH = 0.01, 0.1  # judo's p, the widths of its smoothed absolute values

MJCF = Path(__file__).parent / "assets" / "cartpole_servo.xml"


def reward(
    obs: Array,
    action: Array,
    next_obs: Array,
    *,
    vertical: float = 10.0,
    centred: float = 10.0,
    velocity: float = 0.1,
    control: float = 0.1,
) -> Array:
    """Minus judo's cost of leaning, of being off the centre, of moving and of the cart's target.

    The cost is `vertical` · |cos θ - 1| + `centred` · |x| + ½ `velocity` · |(ẋ, θ̇)|² +
    ½ `control` · u², with the target u in m and |y| = √(y² + p²) - p in the first two terms.
    """
    xp = array_namespace(next_obs)
    below, x, target = next_obs[..., 2] - 1, next_obs[..., 0], action[..., 0]
    speed, spin = next_obs[..., 3], next_obs[..., 4]
    leaning = xp.sqrt(below * below + UPRIGHT_WIDTH**2) - UPRIGHT_WIDTH
    aside = xp.sqrt(x * x + CENTRE_WIDTH**2) - CENTRE_WIDTH
    moving = speed * speed + spin * spin
    effort = (0.5 * control * RANGE**2) * (target * target)
    return -vertical * leaning - centred * aside - (0.5 * velocity) * moving - effort


def success(obs: Array) -> Array:
    """The pole is within 5° of upright and the cart within 0.1 m of the centre."""
    xp = array_namespace(obs)
    return (obs[..., 2] > np.cos(np.radians(5.0))) & (xp.abs(obs[..., 0]) < 0.1)


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Normal about hanging at x = 1 m, with stds of 1 m, 1 rad, 0.1 m/s and 0.1 rad/s."""
    return np.array([1.0, np.pi]) + rng.standard_normal(2), 0.1 * rng.standard_normal(2)


TASK = Task(
    name="cartpole-servo",
    summary="judo's cart-pole: swing up and stand by moving a position servo; 25 Hz",
    mjcf=MJCF,
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=1,
    episode_steps=250,
    traces=("tip",),
    camera="side",
    success=success,
)
