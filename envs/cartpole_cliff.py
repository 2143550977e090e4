"""Cart-pole at a cliff: drive a cart in gusts to the end of its rail, and not over it.

The cart and pole are those of `envs.cartpole`, with drag on the cart and the pole hanging, at
12.5 Hz. The reward is greatest where the rail ends, 0.4 m from the start. A random force of 5 N
std, half of the motor's, acts on the cart and is constant within each step. A cart whose middle
passes the end has fallen: the episode ends, which costs the reward of all later steps and `FALL`
besides. To keep a distance of d metres costs d / `REACH` in each step.

The pole hangs because plans are open loop: gusts make an upright pole fall within any plan.
"""

from __future__ import annotations

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs import cartpole
from envs.task import Array, Task

EDGE = 0.4  # m, where the rail ends
REACH = 0.5  # m, distance from the edge at which a step is worth nothing
FALL = 1.0  # in reward
DRAG = 10.0  # N s/m, of the cart
GUSTS = 5.0  # N, std of the force on the cart


def prepare(spec: mujoco.MjSpec) -> None:
    """Cut the rail, mark where the pole hangs from the edge, set the drag and steps of 0.02 s."""
    spec.option.timestep = 0.02
    spec.joint("slide").damping = (DRAG, 0, 0)
    spec.delete(spec.geom("right stop"))
    spec.geom("rail").fromto = (-2.72, 0, 0, EDGE, 0, 0)
    spec.geom("right post").fromto = (EDGE, 0, 0, EDGE, 0, -0.85)
    spec.geom("goal").pos = (EDGE, -0.09, -cartpole.LENGTH)


def terminated(next_obs: Array) -> Array:
    """The cart is past the edge."""
    return next_obs[..., 0] > EDGE


def reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """`1 - |x - EDGE| / REACH - 0.01 a²`, and `FALL` less for a fall; x is the cart's position."""
    xp = array_namespace(next_obs)
    away = xp.abs(next_obs[..., 0] - EDGE)
    force = action[..., 0]
    fallen = xp.astype(terminated(next_obs), next_obs.dtype)
    return 1 - away * (1 / REACH) - 0.01 * (force * force) - FALL * fallen


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hanging at rest at 0, plus uniform noise within 0.02 m, 0.02 rad, 0.02 m/s, 0.02 rad/s."""
    return np.array([0.0, np.pi]) + rng.uniform(-0.02, 0.02, 2), rng.uniform(-0.02, 0.02, 2)


TASK = Task(
    name="cartpole-cliff",
    summary="drive a cart in gusts to the end of its rail, over which it can fall; 10 N, 12.5 Hz",
    mjcf=cartpole.MJCF,
    prepare=prepare,
    observation=cartpole.observation,
    reward=reward,
    terminated=terminated,
    initial=initial,
    process_noise=(GUSTS, 0.0),
    frame_skip=4,
    episode_steps=40,
    traces=("tip",),
    camera="side",
)
