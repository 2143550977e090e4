"""Point mass: move a mass in a plane to the middle.

Tassa et al. 2018; dm_control's `suite/point_mass.py`. 50 Hz. In the hard task the two actions push
in directions that are drawn anew in each episode and not observed.
"""

from __future__ import annotations

from functools import partial

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.suite.model import Model, Start, SuiteTask, gentle, length, mjcf
from envs.task import Array, Physics
from envs.tolerance import tolerance

MODEL = Model(mjcf("point_mass"))
RADIUS = 0.015  # m, of the target
PARALLEL = 0.9  # largest cosine between the two directions


def turnable(spec: mujoco.MjSpec) -> None:
    """Let each action push along the x axis of a mocap body, which `goal` turns."""
    for actuator in list(spec.actuators):
        spec.delete(actuator)
    for tendon in list(spec.tendons):
        spec.delete(tendon)
    spec.body("pointmass").add_site(name="pointmass", group=4)
    for name in ("t1", "t2"):
        body = spec.worldbody.add_body(name=name, mocap=True)
        body.add_site(name=name, group=4)
        spec.add_actuator(
            name=name,
            trntype=mujoco.mjtTrn.mjTRN_SITE,
            target="pointmass",
            refsite=name,
            gear=[0.1, 0, 0, 0, 0, 0],
            ctrlrange=[-1, 1],
            ctrllimited=True,
        )


def observation(physics: Physics) -> Array:
    """(..., 4): x and y in m from the middle, velocities m/s."""
    return array_namespace(physics.qpos).concat([physics.qpos, physics.qvel], axis=-1)


def reach(obs: Array, action: Array, next_obs: Array) -> Array:
    """In [0, 1]: within 1.5 cm of the middle, with small actions."""
    near = tolerance(length(next_obs[..., :2]), 0.0, RADIUS, margin=RADIUS)
    return near * gentle(action)


def initial(rng: np.random.Generator) -> Start:
    """At rest anywhere in the arena."""
    return MODEL.at_rest(MODEL.random_joints(rng))


def directions(vectors: np.ndarray) -> np.ndarray:
    """(2, 7): `Task.goal` by which the actions push along these unit vectors (2, 2)."""
    half = np.arctan2(vectors[:, 1], vectors[:, 0]) / 2
    zero = np.zeros((2, 2))
    quats = np.column_stack([np.cos(half), zero, np.sin(half)])
    return np.column_stack([zero, np.zeros(2), quats])


def goal(rng: np.random.Generator) -> np.ndarray:
    """(2, 7): two directions that are not too parallel, as positions and quaternions."""

    def unit() -> np.ndarray:
        vector = rng.standard_normal(2)
        return vector / np.linalg.norm(vector)

    first, second = unit(), unit()
    while abs(first @ second) > PARALLEL:
        second = unit()
    return directions(np.stack([first, second]))


_task = partial(
    SuiteTask,
    mjcf=MODEL.mjcf,
    observation=observation,
    reward=reach,
    initial=initial,
    frame_skip=1,
    camera="fixed",
    traces=("pointmass",),
)

TASKS = (
    _task(name="dmc-point-mass-easy", summary="move a mass to the middle; 50 Hz"),
    _task(
        name="dmc-point-mass-hard",
        summary="move a mass to the middle; actions push in unknown directions; 50 Hz",
        prepare=turnable,
        goal=goal,
    ),
)
