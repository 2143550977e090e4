"""Half-cheetah: run forward.

gymnasium's model and observation (HalfCheetah-v5), with one difference that makes the reward a
function of observations: it uses the torso's forward velocity at the end of the step, not its mean
over the step, which default observations do not contain. This is the usual choice in model-based
work such as PETS.
"""

from __future__ import annotations

from pathlib import Path

import gymnasium
import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs import scene
from envs.task import Array, Physics, Task

MJCF = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"


def prepare(spec: mujoco.MjSpec) -> None:
    """Add light, colours and a camera; set the total mass without a deprecated attribute."""
    total = spec.compiler.settotalmass
    spec.compiler.settotalmass = -1
    ratio = total / spec.compile().body_mass.sum()
    for geom in spec.geoms:
        geom.density *= ratio
    scene.dress(
        spec,
        {
            "floor": "floor",
            "bshin": "blue",
            "fshin": "blue",
            "bfoot": "dark",
            "ffoot": "dark",
        },
        default="orange",
    )
    spec.worldbody.first_body().add_camera(
        name="side",
        mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACK,
        pos=(0.2, -3.0, 0.45),
        xyaxes=(1, 0, 0, 0, 0.22, 1),
        fovy=42,
    )


def observation(physics: Physics) -> Array:
    """(..., 17): height m, pitch, six joints rad; velocities x, z m/s, pitch and joints rad/s."""
    xp = array_namespace(physics.qpos)
    return xp.concat([physics.qpos[..., 1:], physics.qvel], axis=-1)


def reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """Forward velocity in m/s `- 0.1 |a|²`."""
    xp = array_namespace(next_obs)
    return next_obs[..., 8] - 0.1 * xp.sum(action * action, axis=-1)


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Standing, plus noise: uniform in ±0.1 on positions, normal with std 0.1 on velocities."""
    return rng.uniform(-0.1, 0.1, 9), 0.1 * rng.standard_normal(9)


TASK = Task(
    name="half-cheetah",
    summary="run forward on two legs in a plane; 20 Hz",
    mjcf=MJCF,
    prepare=prepare,
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=5,
    episode_steps=1000,
    traces=("torso",),
    camera="side",
)
