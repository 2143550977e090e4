"""Quadruped: a body on four legs walks, runs or brings a ball to a target.

dm_control's `suite/quadruped.py` (Tunyasuvunakool et al. 2020). 50 Hz.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import (
    Model,
    Start,
    SuiteTask,
    length,
    mjcf,
    sense_axes,
    sense_position,
    turned,
)
from envs.task import Array, Physics
from envs.tolerance import tolerance

MJCF = mjcf("quadruped")
ARENA = 15.0  # m, half the floor's side in the task fetch
WORKSPACE, BALL, TARGET = 0.3, 0.15, 0.4  # m, radii
_TOES = ("front_left", "front_right", "back_right", "back_left")
FORCES = tuple(f"{kind}_toe_{toe}" for kind in ("force", "torque") for toe in _TOES)


def plain(floor: float, spec: mujoco.MjSpec) -> None:
    """A flat floor of `floor` m to each side; no ball, target or walls."""
    _without_terrain(spec)
    spec.geom("floor").size = [floor, floor, 0.5]
    for wall in ("wall_px", "wall_py", "wall_nx", "wall_ny"):
        spec.delete(spec.geom(wall))
    spec.delete(spec.body("ball"))
    spec.delete(spec.site("target"))


def with_ball(spec: mujoco.MjSpec) -> None:
    """A flat floor between walls, with ball and target."""
    _without_terrain(spec)
    sense_position(spec, "ball")
    sense_position(spec, "target", "site")
    sense_position(spec, "workspace", "site")


def _without_terrain(spec: mujoco.MjSpec) -> None:
    spec.delete(spec.geom("terrain"))
    for sensor in list(spec.sensors):
        if sensor.name.startswith("rf_") or sensor.name == "center_of_mass":
            spec.delete(sensor)
    sense_axes(spec, "torso")
    sense_position(spec, "torso")


def observation(physics: Physics) -> Array:
    """(..., 78): 16 joints, their velocities, 12 activations, torso, inertial sensors, toes.

    In this order: joints rad; rad/s; the actuators' filtered commands; xyz of the torso's velocity
    in its frame m/s; z of its axis; xyz of the accelerometer m/s² and the gyroscope rad/s; arcsinh
    of force N and torque N·m on each toe. Accelerations and forces are one MuJoCo step late.
    """
    xp, sensors = array_namespace(physics.qpos), physics.sensors
    forces = xp.asinh(xp.concat([sensors[name] for name in FORCES], axis=-1))
    parts = [
        physics.qpos[..., 7:23],
        physics.qvel[..., 6:22],
        physics.act,
        sensors["velocimeter"],
        sensors["torso.z"][..., 2:],
        sensors["imu_accel"],
        sensors["imu_gyro"],
        forces,
    ]
    return xp.concat(parts, axis=-1)


def observation_of_ball(physics: Physics) -> Array:
    """(..., 90): `observation`, then ball and target in the torso's frame.

    Of the ball, place m, velocity relative to the torso's m/s and turning rad/s; of the target, its
    place m.
    """
    xp, sensors = array_namespace(physics.qpos), physics.sensors
    qvel = physics.qvel
    vectors = [
        sensors["ball.at"] - sensors["torso.at"],
        qvel[..., 22:25] - qvel[..., :3],
        qvel[..., 25:28],
        sensors["target.at"] - sensors["torso.at"],
    ]
    seen = [turned(vector, sensors, "torso") for vector in vectors]
    return xp.concat([observation(physics), *seen], axis=-1)


def features(physics: Physics) -> Array:
    """(..., 2), in m: level distances from the workspace before it to the ball, ball to target."""
    xp, sensors = array_namespace(physics.qpos), physics.sensors
    ball = sensors["ball.at"]
    others = (sensors["workspace.at"], sensors["target.at"])
    return xp.stack([length((other - ball)[..., :2]) for other in others], axis=-1)


def _upright(obs: Array) -> Array:
    return tolerance(obs[..., 47], 1.0, math.inf, margin=2.0, falloff="linear", edge=0.0)


def move(obs: Array, action: Array, next_obs: Array, *, speed: float) -> Array:
    """In [0, 1]: upright, and moving forward at `speed` m/s or more."""
    moving = tolerance(next_obs[..., 44], speed, math.inf, margin=speed, falloff="linear", edge=0.5)
    return _upright(next_obs) * moving


def fetch(obs: Array, action: Array, next_obs: Array) -> Array:
    """In [0, 1]: upright, near the ball, and the ball near the target."""
    near = {"margin": ARENA * math.sqrt(2), "falloff": "linear", "edge": 0.0}
    reached = tolerance(next_obs[..., -2], 0.0, WORKSPACE + BALL, **near)
    fetched = tolerance(next_obs[..., -1], 0.0, TARGET, **near)
    return _upright(next_obs) * reached * (0.5 + 0.5 * fetched)


def _lifted(model: Model, quat: np.ndarray, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """(nq,): turned by `quat` at this place, lifted by centimetres until nothing touches."""
    start = model.compiled().qpos0.copy()

    def at(height: float) -> np.ndarray:
        qpos = start.copy()
        qpos[:7] = [x, y, height, *quat]
        return qpos

    # Upright, the feet touch the floor at 0.52 m up to rounding; dm_control adds up its heights.
    return model.apart(at(height) for height in itertools.accumulate(itertools.repeat(0.01)))


def turned_start(model: Model, rng: np.random.Generator) -> Start:
    """At rest just above the floor, turned in any way."""
    quat = rng.standard_normal(4)
    return model.at_rest(_lifted(model, quat / np.linalg.norm(quat)))


def placed_start(model: Model, rng: np.random.Generator) -> Start:
    """Upright at rest anywhere, facing anywhere; the ball thrown from 2 m up, anywhere."""
    half, room = rng.uniform(0, 2 * math.pi) / 2, 0.9 * ARENA
    quat = np.array([math.cos(half), 0, 0, math.sin(half)])
    qpos = _lifted(model, quat, *rng.uniform(-room, room, 2))
    qpos[23:26] = [*rng.uniform(-room, room, 2), 2.0]
    qvel = np.zeros(28)
    qvel[22:24] = 5 * rng.standard_normal(2)
    return qpos, qvel


_base = partial(SuiteTask, mjcf=MJCF, forces=True, frame_skip=4, camera="x", traces=("torso",))


def _move(name: str, speed: float) -> SuiteTask:
    model = Model(MJCF, partial(plain, 20 * speed))  # as far as it gets in an episode
    return _base(
        name=f"dmc-quadruped-{name}",
        summary=f"a body on four legs {name}s forward at {speed:g} m/s; 50 Hz",
        prepare=model.prepare,
        observation=observation,
        reward=partial(move, speed=speed),
        initial=partial(turned_start, model),
    )


TASKS = (
    _move("walk", 0.5),
    _move("run", 5.0),
    _base(
        name="dmc-quadruped-fetch",
        summary="a body on four legs brings a ball to a target; 50 Hz",
        prepare=with_ball,
        observation=observation_of_ball,
        features=features,
        reward=fetch,
        initial=partial(placed_start, Model(MJCF, with_ball)),
    ),
)
