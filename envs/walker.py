"""A planar biped runs forward without falling.

Torso, thighs, shins and feet with 100 N·m in hips and knees and 40 N·m in the ankles; 62.5 Hz. The
reward has the form of dm_control's walker (Tassa et al. 2018): standing times running, and standing
alone earns a tenth. Planning with the coarse simulator returns 447 of 500
(10 seeds, none falls).
"""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.task import Array, Physics, Planning, Task
from envs.tolerance import tolerance

MJCF = Path(__file__).parent / "assets" / "walker.xml"

BENT = (0.25, -0.4, 0.15) * 2
"""Hip, knee and ankle, rad, of the right and the left leg at the start; soles level."""


def observation(physics: Physics) -> Array:
    """(..., 18): height m, pitch rad (forwards positive), leg joints rad, then velocities.

    Leg joints are hip, knee and ankle of the right leg, then of the left one. Velocities are x and
    z of the centre of mass m/s, then those of the first eight numbers, m/s and rad/s.
    """
    xp = array_namespace(physics.qpos)
    velocity = physics.sensors["velocity"][..., ::2]
    return xp.concat([physics.qpos[..., 1:], velocity, physics.qvel[..., 1:]], axis=-1)


def reward(
    obs: Array, action: Array, next_obs: Array, *, speed: float = 2.5, effort: float = 0.1
) -> Array:
    """In [0, 1]: upright at standing height, times running at `speed` m/s, with small actions.

    Full actions multiply it by `1 - effort`.
    """
    xp = array_namespace(next_obs)
    pitch = next_obs[..., 1]
    stands = tolerance(next_obs[..., 0], 1.12, 1.4, margin=0.4) * (
        (0.5 + 0.5 * xp.cos(pitch)) * tolerance(pitch, -0.1, 0.35, margin=0.8)
    )
    runs = tolerance(next_obs[..., 8], speed, 1.4 * speed, margin=speed, falloff="linear")
    return stands * (0.1 + 0.9 * runs) * (1 - effort * xp.mean(action * action, axis=-1))


def success(obs: Array) -> Array:
    """On its feet, the torso's middle over 0.9 m, and faster than 1 m/s."""
    return (obs[..., 0] > 0.9) & (obs[..., 8] > 1.0)


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Standing at rest with bent knees, joints within 0.05 rad of `BENT`."""
    return np.concatenate([[0, 1.22, 0], BENT + rng.uniform(-0.05, 0.05, 6)]), np.zeros(9)


def coarse(spec: mujoco.MjSpec) -> None:
    """Double the time step, use a cheaper solver and remove visual geoms.

    2.4 times as fast as the true model. After 0.2 s of random torques, which turn the joints by
    0.95 rad, they are 0.05 rad from their angles in the true model (medians over 32 draws).
    """
    spec.option.timestep = 0.008
    spec.option.solver = int(mujoco.mjtSolver.mjSOL_PGS)
    spec.option.iterations = 6
    for geom in list(spec.geoms):
        if geom.classname.name == "trim":
            spec.delete(geom)


TASK = Task(
    name="walker-run",
    summary="a planar biped runs forward without falling; 62.5 Hz",
    mjcf=MJCF,
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=4,
    episode_steps=500,
    camera="side",
    success=success,
    traces=("torso",),
    planning=Planning(coarse, 2),
)
