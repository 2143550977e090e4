"""A quadruped walks to a flag some metres away in any direction.

The Unitree Go1 at 50 Hz, from standing; the flag is 2 to 3 m away. No gait is prescribed: the
reward is for an upright trunk that moves to the flag at 1 m/s and faces it. Planned with the coarse
simulator, it is at the flag after 7 s on 10 of 10 seeds, with a mean reward of 0.76.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from envs import go1
from envs.task import Array, Physics, Task
from envs.tolerance import tolerance

REACHED = 0.4  # m, the radius of the disc about the flag
SLOW = 0.5  # m from the flag, where it should begin to slow down
GOAL = slice(34, 37)


def observation(physics: Physics) -> Array:
    """(..., 37): `go1.stance`, then the position of the flag's foot in the trunk's frame, m."""
    xp = array_namespace(physics.qpos)
    return xp.concat([*go1.stance(physics), physics.sensors["goal"]], axis=-1)


def reward(
    obs: Array,
    action: Array,
    next_obs: Array,
    *,
    speed: float = 1.0,
    turn: float = 0.5,
    effort: float = 0.1,
) -> Array:
    """In [0, 1]: upright at standing height, times moving to the flag, facing it, small actions.

    The target velocity is `speed` m/s towards the flag, falling to 0 over the last `SLOW` metres.
    Facing away from a distant flag multiplies the reward by `1 - turn`, full actions multiply it by
    `1 - effort`.
    """
    xp = array_namespace(next_obs)
    up = next_obs[..., go1.UP]
    offset, distance = _to_flag(next_obs)
    towards = offset * (1 / xp.clip(distance, min=SLOW))[..., None]
    error = next_obs[..., go1.VELOCITY] - speed * towards
    far = xp.clip(distance * (1 / SLOW), max=1.0)
    return (
        tolerance(next_obs[..., go1.HEIGHT], 0.25, 0.32, margin=0.15)
        * tolerance(up[..., 2], 0.95, 1.0, margin=0.6)
        * tolerance(_norm(error), margin=1.5 * speed, falloff="linear")
        * (1 - 0.5 * turn * (far - towards[..., 0]))
        * (1 - effort * go1.mean_square(action))
    )


def success(obs: Array) -> Array:
    """The trunk is within 0.4 m of the flag and not tipped over."""
    return (_to_flag(obs)[1] < REACHED) & (obs[..., 3] > 0.8)


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Standing at rest, facing along x, joints within 0.05 rad of `go1.STANDING`."""
    joints = np.array(go1.STANDING) + rng.uniform(-0.05, 0.05, 12)
    return go1.pose(0.29, 0.0, 0.0, joints), np.zeros(18)


def goal(rng: np.random.Generator) -> np.ndarray:
    """(1, 3), in m: 2 to 3 m from the origin, in any direction."""
    angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(2.0, 3.0)
    return np.array([[distance * np.cos(angle), distance * np.sin(angle), 0.0]])


def _to_flag(obs: Array) -> tuple[Array, Array]:
    """The horizontal offset of the flag, (..., 3) m in the trunk's frame, and its length (...)."""
    xp = array_namespace(obs)
    up, flag = obs[..., go1.UP], obs[..., GOAL]
    offset = flag - xp.sum(flag * up, axis=-1)[..., None] * up
    return offset, _norm(offset)


def _norm(x: Array) -> Array:
    xp = array_namespace(x)
    return xp.sqrt(xp.sum(x * x, axis=-1) + 1e-12)  # the gradient at 0 is 0, not NaN


TASK = Task(
    name="quadruped-walk",
    summary="a Unitree Go1 walks to a flag 2 to 3 m away in any direction; 50 Hz",
    mjcf=go1.MJCF,
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=5,
    episode_steps=350,
    camera="field",
    goal=goal,
    success=success,
    traces=("trunk",),
    planning=go1.PLANNING,
)
