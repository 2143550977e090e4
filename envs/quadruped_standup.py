"""A quadruped that lies folded, on its belly or on its side, stands up and stands still.

The Unitree Go1 at 50 Hz, dropped from a few centimetres with its legs folded and rolled by up to
90 degrees. Planned with the coarse simulator, it stands still after 5 s on 9 of 10 seeds.
"""

from __future__ import annotations

import mujoco
import numpy as np
from array_api_compat import array_namespace, device

from envs import go1
from envs.task import Array, Physics, Task
from envs.tolerance import tolerance

FOLDED = (0.0, 1.3, -2.7) * 4  # rad


def prepare(spec: mujoco.MjSpec) -> None:
    """Remove the flag and its sensor, which this task does not need."""
    spec.delete(spec.sensor("goal"))
    spec.delete(spec.body("flag"))


def observation(physics: Physics) -> Array:
    """(..., 34): `go1.stance`."""
    xp = array_namespace(physics.qpos)
    return xp.concat(go1.stance(physics), axis=-1)


def reward(
    obs: Array,
    action: Array,
    next_obs: Array,
    *,
    posture: float = 0.5,
    still: float = 0.7,
    effort: float = 0.3,
) -> Array:
    """In [0, 1]: high for an upright robot in its standing pose, at rest, with small actions.

    `stands · (1 - posture · stands² · p) · (1 - still · stands² · m) · (1 - effort · stands² · e)`:
    `stands` is 1 for an upright trunk at standing height, p reaches 1 for joints that are 0.8 rad
    off the standing pose (root mean square), m reaches 1 for a trunk that moves at 0.5 m/s, and e
    is the mean square of the action. The factor stands² keeps the penalties small for a lying
    robot, so that lying still earns no more than moving.
    """
    xp = array_namespace(next_obs)
    up = next_obs[..., go1.UP]
    tilt = xp.sqrt(xp.sum(up[..., :2] * up[..., :2], axis=-1) + 1e-12)
    standing = xp.asarray(go1.STANDING, dtype=next_obs.dtype, device=device(next_obs))
    off = next_obs[..., go1.JOINTS] - standing
    posed = tolerance(xp.sqrt(xp.mean(off * off, axis=-1) + 1e-12), margin=0.8, falloff="linear")
    calm = tolerance(xp.sqrt(_motion(next_obs) + 1e-12), margin=0.5, falloff="linear")
    stands = (
        (0.5 + 0.5 * up[..., 2])
        * (0.2 + 0.8 * tolerance(tilt, 0.0, 0.1, margin=0.6, falloff="linear"))
        * tolerance(next_obs[..., go1.HEIGHT], 0.26, 0.31, margin=0.16, falloff="linear")
    )
    gate = stands * stands
    return (
        stands
        * (1 - posture * gate * (1 - posed))
        * (1 - still * gate * (1 - calm))
        * (1 - effort * gate * go1.mean_square(action))
    )


def success(obs: Array) -> Array:
    """Tilted by less than 18 degrees, over 0.23 m high, slower than 0.2 m/s or 0.9 rad/s."""
    return (obs[..., 3] > 0.95) & (obs[..., go1.HEIGHT] > 0.23) & (_motion(obs) < 0.04)


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """At rest just over the floor, rolled by up to 90 degrees either way, legs folded."""
    roll, yaw = rng.uniform(-np.pi / 2, np.pi / 2), rng.uniform(-np.pi, np.pi)
    joints = np.array(FOLDED) + rng.uniform(-0.1, 0.1, 12)
    return go1.pose(0.11 + 0.12 * abs(np.sin(roll)), roll, yaw, joints), np.zeros(18)


def _motion(obs: Array) -> Array:
    """The trunk's squared speed in m²/s², (...); 1 rad/s counts as 0.22 m/s."""
    xp = array_namespace(obs)
    velocity, spin = obs[..., go1.VELOCITY], obs[..., go1.SPIN]
    return xp.sum(velocity * velocity, axis=-1) + 0.05 * xp.sum(spin * spin, axis=-1)


TASK = Task(
    name="quadruped-standup",
    summary="a Unitree Go1 lying on its belly or side stands up and stands still; 50 Hz",
    mjcf=go1.MJCF,
    prepare=prepare,
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=5,
    episode_steps=250,
    camera="chase",
    success=success,
    traces=("trunk",),
    planning=go1.PLANNING,
)
