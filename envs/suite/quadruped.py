"""Quadruped: a body on four legs walks, runs, brings a ball to a target or climbs out of a bowl.

dm_control's `suite/quadruped.py` (Tunyasuvunakool et al. 2020). 50 Hz.

In the task escape dm_control draws a new terrain for each episode and writes it into MuJoCo's
model, which is no part of the state. Here the model holds a fixed set of terrains, drawn as there.
Each lies in a mocap body; an episode draws one, and the others lie far below the floor. So the
terrain is part of the state, and a planner's simulator gets it with the state.
"""

from __future__ import annotations

import itertools
import math
from functools import cache, partial

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
TERRAINS = 16
TERRAIN, STEEPEST, BUMP = 30.0, 5.0, 2.0  # m: half its side, the bowl's height, a bump's width
SMOOTHEST = 0.15  # the least factor of a bump
_GRID = 201  # heights along a side
_BURIED = -100.0  # m, where the other terrains lie; rangefinders see no farther than 20 m
_WORKSPACE_AT = (0.8, 0.0, -0.2)  # m, in the torso's frame
RANGES = tuple(f"rf_{row}{column}" for row in range(4) for column in range(5))
_TOES = ("front_left", "front_right", "back_right", "back_left")
FORCES = tuple(f"{kind}_toe_{toe}" for kind in ("force", "torque") for toe in _TOES)


def plain(floor: float, spec: mujoco.MjSpec) -> None:
    """A flat floor of `floor` m to each side; no ball, target or walls."""
    _without_terrain(spec)
    _without_walls(spec, floor)


def _without_walls(spec: mujoco.MjSpec, floor: float) -> None:
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


def in_bowl(count: int, seed: int, spec: mujoco.MjSpec) -> None:
    """A flat floor with so many terrains, each in a mocap body; the first lies in the middle."""
    _without_walls(spec, 40.0)
    old = spec.geom("terrain")
    # MuJoCo scales heights to [0, 1], so the greatest goes into the size.
    for k, heights in enumerate(terrains(count, seed)):
        name, top = f"terrain_{k}", float(heights.max())
        grid = {"nrow": _GRID, "ncol": _GRID, "userdata": (heights / top).ravel().tolist()}
        spec.add_hfield(name=name, size=[TERRAIN, TERRAIN, top, 0.1], **grid)
        body = spec.worldbody.add_body(name=name, mocap=True, pos=placed(0, count)[k])
        kind = mujoco.mjtGeom.mjGEOM_HFIELD
        body.add_geom(name=name, type=kind, hfieldname=name, rgba=old.rgba)
    spec.delete(old)
    spec.delete(spec.hfield("terrain"))
    spec.stat.extent = 2 * TERRAIN  # cameras must not count what is buried
    spec.delete(spec.sensor("center_of_mass"))
    _sense_torso(spec)


def terrain(rng: np.random.Generator) -> np.ndarray:
    """(201, 201): heights in m of a bowl with smooth random bumps, as in dm_control.

    The bowl rises to its brim 15 m from the middle and falls again. dm_control's heights may fall
    a little below 0, which is under the floor; here they end at 0.
    """
    from scipy.ndimage import zoom  # slow to import

    side = np.linspace(-1, 1, _GRID)
    radius = np.clip(np.hypot(side, side[:, None]), 0.04, 1)
    bowl = 0.5 - np.cos(2 * np.pi * radius) / 2
    count = int(2 * TERRAIN / BUMP)
    bumps = rng.uniform(SMOOTHEST, 1, (count, count))
    heights = bowl * np.asarray(zoom(bumps, _GRID / count))
    return STEEPEST * heights.clip(0)


@cache
def terrains(count: int = TERRAINS, seed: int = 0) -> tuple[np.ndarray, ...]:
    """So many terrains, drawn one after another; the same objects at each call."""
    rng = np.random.default_rng(seed)
    return tuple(terrain(rng) for _ in range(count))


def placed(chosen: int, count: int = TERRAINS) -> np.ndarray:
    """(count, 3): positions of the mocap bodies, the chosen one a centimetre under the floor."""
    places = np.tile([0.0, 0.0, _BURIED], (count, 1))
    places[chosen] = [0.0, 0.0, -0.01]
    return places


def _without_terrain(spec: mujoco.MjSpec) -> None:
    spec.delete(spec.geom("terrain"))
    for sensor in list(spec.sensors):
        if sensor.name.startswith("rf_") or sensor.name == "center_of_mass":
            spec.delete(sensor)
    _sense_torso(spec)


def _sense_torso(spec: mujoco.MjSpec) -> None:
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


def observation_of_terrain(physics: Physics) -> Array:
    """(..., 101): `observation`, the middle of the bowl in the torso's frame, and ranges.

    The middle's place in m, then tanh of the distances in m along 20 rays ahead; 1 where a ray
    meets nothing.
    """
    xp, sensors = array_namespace(physics.qpos), physics.sensors
    middle = turned(-sensors["torso.at"], sensors, "torso")
    ranges = xp.concat([sensors[name] for name in RANGES], axis=-1)
    seen = xp.where(ranges == -1.0, 1.0, xp.tanh(ranges))
    return xp.concat([observation(physics), middle, seen], axis=-1)


def features(physics: Physics) -> Array:
    """(..., 2), in m: level distances from the workspace before it to the ball, ball to target."""
    xp, sensors = array_namespace(physics.qpos), physics.sensors
    ball = sensors["ball.at"]
    others = (sensors["workspace.at"], sensors["target.at"])
    return xp.stack([length((other - ball)[..., :2]) for other in others], axis=-1)


def _upright(obs: Array, lean: float = 0.0) -> Array:
    """In [0, 1]: 0 upside down, 1 where the torso leans by at most `lean` degrees."""
    least = math.cos(math.radians(lean))
    kept = {"margin": 1 + least, "falloff": "linear", "edge": 0.0}
    return tolerance(obs[..., 47], least, math.inf, **kept)


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


def escape(obs: Array, action: Array, next_obs: Array) -> Array:
    """In [0, 1]: upright, and 30 m or more from the middle of the bowl."""
    xp = array_namespace(next_obs)
    x, y, z = (next_obs[..., 78 + i] - at for i, at in enumerate(_WORKSPACE_AT))
    away = length(xp.stack([x, y, z], axis=-1))
    kept = {"margin": TERRAIN, "falloff": "linear", "edge": 0.0}
    return _upright(next_obs, lean=20.0) * tolerance(away, TERRAIN, math.inf, **kept)


def lifted(
    model: Model,
    quat: np.ndarray,
    x: float = 0.0,
    y: float = 0.0,
    mocap_pos: np.ndarray | None = None,
) -> np.ndarray:
    """(nq,): turned by `quat` at this place, lifted by centimetres until nothing touches."""
    start = model.compiled().qpos0.copy()

    def at(height: float) -> np.ndarray:
        qpos = start.copy()
        qpos[:7] = [x, y, height, *quat]
        return qpos

    # Upright, the feet touch the floor at 0.52 m up to rounding; dm_control adds up its heights.
    heights = itertools.accumulate(itertools.repeat(0.01))
    return model.apart((at(height) for height in heights), mocap_pos)


def turned_start(model: Model, rng: np.random.Generator) -> Start:
    """At rest just above the floor, turned in any way."""
    return model.at_rest(lifted(model, _any_turn(rng)))


def _any_turn(rng: np.random.Generator) -> np.ndarray:
    quat = rng.standard_normal(4)
    return quat / np.linalg.norm(quat)


def start_in_bowl(
    model: Model, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At rest just above the middle of one of the terrains, turned in any way."""
    places = placed(int(rng.integers(count)), count)
    return *model.at_rest(lifted(model, _any_turn(rng), mocap_pos=places)), places


def placed_start(model: Model, rng: np.random.Generator) -> Start:
    """Upright at rest anywhere, facing anywhere; the ball thrown from 2 m up, anywhere."""
    half, room = rng.uniform(0, 2 * math.pi) / 2, 0.9 * ARENA
    quat = np.array([math.cos(half), 0, 0, math.sin(half)])
    qpos = lifted(model, quat, *rng.uniform(-room, room, 2))
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


def escape_task(count: int = TERRAINS, seed: int = 0) -> SuiteTask:
    """dmc-quadruped-escape with so many terrains, drawn from a seed; others test on new ground."""
    model = Model(MJCF, partial(in_bowl, count, seed))
    return _base(
        name="dmc-quadruped-escape",
        summary=f"a body on four legs climbs out of a bowl, one of {count} terrains; 50 Hz",
        prepare=model.prepare,
        observation=observation_of_terrain,
        reward=escape,
        initial=partial(start_in_bowl, model, count),
    )


TASKS = (
    _move("walk", 0.5),
    _move("run", 5.0),
    escape_task(),
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
