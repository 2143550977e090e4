"""Swimmer: a chain of links in a fluid swims to a target.

Tassa et al. 2018, after Coulom 2002; dm_control's `suite/swimmer.py`. 33 Hz.
"""

from __future__ import annotations

from functools import partial

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import Model, Start, SuiteTask, length, mjcf, move_by_goal
from envs.task import Array, Physics
from envs.tolerance import tolerance

MJCF = mjcf("swimmer")
RADIUS = 0.1  # m, of the target
HEIGHT = 0.05  # m


def chain(links: int, spec: mujoco.MjSpec) -> None:
    """Hang links behind the head, with motors between them and sensors of their velocities."""
    parent, style = spec.body("head"), spec.find_default("swimmer")
    for i in range(links - 1):
        child = parent.add_body(name=f"segment_{i}", pos=[0, 0.1, 0], childclass="swimmer")
        for kind in ("visual", "inertial"):
            child.add_geom(spec.find_default(kind), name=f"{kind}_{i}")
        child.add_site(style, name=f"site_{i}")
        limit = 360 / links  # degrees, as in the file
        child.add_joint(style, name=f"joint_{i}", range=[-limit, limit])
        motor = spec.add_actuator(name=f"motor_{i}", target=f"joint_{i}")
        motor.trntype = mujoco.mjtTrn.mjTRN_JOINT
        parent = child
        for name, kind in (
            ("velocimeter", mujoco.mjtSensor.mjSENS_VELOCIMETER),
            ("gyro", mujoco.mjtSensor.mjSENS_GYRO),
        ):
            site = {"objtype": mujoco.mjtObj.mjOBJ_SITE, "objname": f"site_{i}"}
            spec.add_sensor(name=f"{name}_{i}", type=kind, **site)
    for camera in spec.body("head").cameras:
        if camera.mode == mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM:
            camera.pos = camera.pos * (links / 6)
    move_by_goal(spec, "target")


def observation(links: int, physics: Physics) -> Array:
    """(..., 4 links + 1): joints rad, x and y from nose to target m, velocities of each link.

    The vector to the target is in the head's frame. Velocities are x and y in m/s and the turning
    in rad/s, in the link's frame.
    """
    xp, sensors = array_namespace(physics.qpos), physics.sensors
    apart = sensors["target_pos"] - sensors["nose_pos"]
    axes = (sensors["head_xaxis"], sensors["head_yaxis"])
    target = xp.stack([xp.sum(apart * axis, axis=-1) for axis in axes], axis=-1)
    pairs = [("head_vel", "head_gyro")]
    pairs += [(f"velocimeter_{i}", f"gyro_{i}") for i in range(links - 1)]
    moving = [part for v, w in pairs for part in (sensors[v][..., :2], sensors[w][..., 2:])]
    return xp.concat([physics.qpos[..., 3:], target, *moving], axis=-1)


def swim(links: int, obs: Array, action: Array, next_obs: Array) -> Array:
    """In [0, 1]: 1 with the nose in the target, a tenth 0.5 m from it."""
    target = next_obs[..., links - 1 : links + 1]
    return tolerance(length(target), 0.0, RADIUS, margin=5 * RADIUS, falloff="long_tail")


def initial(model: Model, rng: np.random.Generator) -> Start:
    """At rest in the middle, in any direction, joints anywhere in their ranges."""
    return model.at_rest(model.random_joints(rng))


def goal(rng: np.random.Generator) -> np.ndarray:
    """(1, 3), in m: within 2 m of the middle in x and y, for a fifth of the episodes 0.3 m."""
    box = 0.3 if rng.random() < 0.2 else 2.0
    return np.array([[*rng.uniform(-box, box, 2), HEIGHT]])


def _task(links: int) -> SuiteTask:
    model = Model(MJCF, partial(chain, links))
    return SuiteTask(
        name=f"dmc-swimmer-swimmer{links}",
        summary=f"a chain of {links} links swims to a target; 33 Hz",
        mjcf=MJCF,
        prepare=model.prepare,
        observation=partial(observation, links),
        reward=partial(swim, links),
        initial=partial(initial, model),
        goal=goal,
        frame_skip=15,
        camera="tracking1",
        traces=("nose",),
    )


TASKS = (_task(6), _task(15))
