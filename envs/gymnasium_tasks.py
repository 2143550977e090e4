"""Reward and termination of gymnasium's own tasks, as functions of their default observations.

Each function gives what `env.step` gives, for an environment made without further arguments. If
default observations do not determine the reward or the termination, the entry is None, `why` has
the reason, and a model has to learn it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import gymnasium
import numpy as np
from array_api_compat import array_namespace

from envs.task import Array, Known, Physics, Task, never


def _displacement(what: str) -> str:
    return (
        f"the reward contains the displacement of the {what} over a control step, which is not in "
        "default observations"
    )


def _within(value: Array, low: float, high: float) -> Array:
    # A comparison with NaN is False, so NaN counts as unhealthy, as in gymnasium.
    return (low < value) & (value < high)


def hopper_terminated(next_obs: Array) -> Array:
    """Hopper-v5: height not over 0.7 m, pitch or a joint out of range, or not finite."""
    xp = array_namespace(next_obs)
    healthy = (next_obs[..., 0] > 0.7) & _within(next_obs[..., 1], -0.2, 0.2)
    return ~(healthy & xp.all(_within(next_obs[..., 1:], -100.0, 100.0), axis=-1))


def walker2d_terminated(next_obs: Array) -> Array:
    """Walker2d-v5: height not in (0.8, 2) m or pitch not in (-1, 1) rad."""
    return ~(_within(next_obs[..., 0], 0.8, 2.0) & _within(next_obs[..., 1], -1.0, 1.0))


def ant_terminated(next_obs: Array) -> Array:
    """Ant-v5: height not in [0.2, 1] m, or a position or velocity not finite."""
    xp = array_namespace(next_obs)
    height = next_obs[..., 0]
    finite = xp.all(xp.isfinite(next_obs[..., :27]), axis=-1)
    return ~(finite & (height >= 0.2) & (height <= 1.0))


def humanoid_terminated(next_obs: Array) -> Array:
    """Humanoid-v5: height not in (1, 2) m."""
    return ~_within(next_obs[..., 0], 1.0, 2.0)


def humanoid_standup_reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """HumanoidStandup-v5: height / MuJoCo's time step - control cost - impact cost + 1."""
    xp = array_namespace(next_obs)
    forces = next_obs[..., -78:]
    impact = xp.clip(0.5e-6 * xp.sum(forces * forces, axis=-1), max=10.0)
    return next_obs[..., 0] / 0.003 - 0.1 * xp.sum(action * action, axis=-1) - impact + 1


def inverted_pendulum_terminated(next_obs: Array) -> Array:
    """InvertedPendulum-v5: pole beyond 0.2 rad, or an observation that is not finite."""
    xp = array_namespace(next_obs)
    finite = xp.all(xp.isfinite(next_obs), axis=-1)
    return ~finite | (xp.abs(next_obs[..., 1]) > 0.2)


def inverted_pendulum_reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """InvertedPendulum-v5: one for each step that does not terminate."""
    xp = array_namespace(next_obs)
    return xp.astype(~inverted_pendulum_terminated(next_obs), next_obs.dtype)


def reacher_reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """Reacher-v5: `-|finger tip - target| - |a|²`; both are in one plane."""
    xp = array_namespace(next_obs)
    x, y = next_obs[..., 8], next_obs[..., 9]
    return -xp.sqrt(x * x + y * y) - xp.sum(action * action, axis=-1)


def pusher_reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """Pusher-v5: `-|object - goal| - 0.5 |object - tips| - 0.1 |a|²`."""
    xp = array_namespace(next_obs)
    tips, thing, goal = next_obs[..., 14:17], next_obs[..., 17:20], next_obs[..., 20:23]
    near, far = thing - tips, thing - goal
    near = xp.sqrt(xp.sum(near * near, axis=-1))
    far = xp.sqrt(xp.sum(far * far, axis=-1))
    return -far - 0.5 * near - 0.1 * xp.sum(action * action, axis=-1)


def pendulum_reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """Pendulum-v1: `-(θ² + 0.1 θ̇² + 0.001 u²)` of the state before the step, u within ±2."""
    xp = array_namespace(obs)
    angle, speed = xp.atan2(obs[..., 1], obs[..., 0]), obs[..., 2]
    torque = xp.clip(action[..., 0], min=-2.0, max=2.0)
    return -(angle * angle + 0.1 * (speed * speed) + 0.001 * (torque * torque))


KNOWN: Mapping[str, Known] = {
    "HalfCheetah-v5": Known(None, never, _displacement("torso")),
    "Hopper-v5": Known(
        None,
        hopper_terminated,
        _displacement("torso") + "; termination misses joint speeds of 100 rad/s and more, as "
        "observations clip them to 10",
    ),
    "Walker2d-v5": Known(None, walker2d_terminated, _displacement("torso")),
    "Ant-v5": Known(None, ant_terminated, _displacement("torso")),
    "Humanoid-v5": Known(None, humanoid_terminated, _displacement("centre of mass")),
    "HumanoidStandup-v5": Known(humanoid_standup_reward, never, ""),
    "InvertedPendulum-v5": Known(inverted_pendulum_reward, inverted_pendulum_terminated, ""),
    "InvertedDoublePendulum-v5": Known(
        None,
        None,
        "reward and termination use the tip as it was one substep before the observation, and "
        "speeds before they are clipped to 10",
    ),
    "Reacher-v5": Known(reacher_reward, never, ""),
    "Pusher-v5": Known(pusher_reward, never, ""),
    "Swimmer-v5": Known(None, never, _displacement("front tip")),
    "Pendulum-v1": Known(pendulum_reward, never, ""),
}


def positions_and_velocities(physics: Physics) -> Array:
    """InvertedPendulum-v5: (..., nq + nv)."""
    xp = array_namespace(physics.qpos)
    return xp.concat([physics.qpos, physics.qvel], axis=-1)


def reacher_observation(physics: Physics) -> Array:
    """Reacher-v5: (..., 10), cosines and sines, target, joint speeds, finger tip minus target."""
    xp = array_namespace(physics.qpos)
    angles = physics.qpos[..., :2]
    apart = physics.sensors["fingertip"] - physics.sensors["target"]
    parts = [xp.cos(angles), xp.sin(angles), physics.qpos[..., 2:], physics.qvel[..., :2]]
    return xp.concat([*parts, apart[..., :2]], axis=-1)


def pusher_observation(physics: Physics) -> Array:
    """Pusher-v5: (..., 23), seven angles, seven speeds, tips, object and goal."""
    xp = array_namespace(physics.qpos)
    places = [physics.sensors[name] for name in ("tips_arm", "object", "goal")]
    return xp.concat([physics.qpos[..., :7], physics.qvel[..., :7], *places], axis=-1)


def _unused(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The start of a task that is only described: nothing calls it."""
    raise NotImplementedError("gymnasium starts its own episodes")


def _described(
    name: str, file: str, frame_skip: int, steps: int, observation: Callable[[Physics], Array]
) -> Task:
    known = KNOWN[name]
    assert known.reward is not None and known.terminated is not None
    return Task(
        name=name,
        summary="",
        mjcf=Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / file,
        observation=observation,
        reward=known.reward,
        terminated=known.terminated,
        initial=_unused,
        frame_skip=frame_skip,
        episode_steps=steps,
        gymnasium=True,
    )


DESCRIBED: Mapping[str, Task] = {
    task.name: task
    for task in (
        _described(
            "InvertedPendulum-v5", "inverted_pendulum.xml", 2, 1000, positions_and_velocities
        ),
        _described("Reacher-v5", "reacher.xml", 2, 50, reacher_observation),
        _described("Pusher-v5", "pusher_v5.xml", 5, 100, pusher_observation),
    )
}
"""gymnasium's MuJoCo tasks whose observation, reward and termination are all functions of the
physics, as `Task`s for a simulator. HumanoidStandup-v5 is left out, because it observes contact
forces that gymnasium computes outside the step."""
