"""The suite's model files, which the package dm_control holds, and starts drawn from their joints.

dm_control's own Python does not run on MuJoCo 4 and is never imported: only its MJCF files are
read.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from array_api_compat import array_namespace

from envs.task import Array, Task
from envs.tolerance import tolerance

Start = tuple[np.ndarray, np.ndarray]
"""qpos (nq,) and qvel (nv,)."""

STEPS = 1000
"""Control steps in an episode of every task of the suite."""

_ATTEMPTS = 1000
_FRAMES = {
    "x": mujoco.mjtSensor.mjSENS_FRAMEXAXIS,
    "y": mujoco.mjtSensor.mjSENS_FRAMEYAXIS,
    "z": mujoco.mjtSensor.mjSENS_FRAMEZAXIS,
}
_BODY = int(mujoco.mjtObj.mjOBJ_XBODY)
_INERTIA = int(mujoco.mjtObj.mjOBJ_BODY)
_GEOM = int(mujoco.mjtObj.mjOBJ_GEOM)
_SITE = int(mujoco.mjtObj.mjOBJ_SITE)
_KINDS = {"body": _BODY, "inertia": _INERTIA, "geom": _GEOM, "site": _SITE}


class SuiteMissing(ValueError):
    """The package that holds the suite's model files is not installed; the message is one line."""


@dataclass(frozen=True)
class SuiteTask(Task):
    """A task whose model file is in the package dm_control."""

    episode_steps: int = STEPS

    def compile(self, *, planning: bool = False) -> mujoco.MjModel:
        """As `Task.compile`; raises SuiteMissing if the package is not installed."""
        if not self.mjcf.exists():
            raise SuiteMissing(
                f"{self.name}: its model file comes with the package dm_control, which is not "
                "installed: pip install 'rolloutlab[suite]', or pip install --no-deps dm_control"
            )
        with _no_deprecations():
            return super().compile(planning=planning)


@contextlib.contextmanager
def _no_deprecations() -> Iterator[None]:
    """The model files use an attribute that MuJoCo 4 still takes and warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compiler attribute 'settotalmass'")
        yield


def mjcf(domain: str) -> Path:
    """The model file of a domain; a path that does not exist if dm_control is not installed."""
    found = importlib.util.find_spec("dm_control")  # finds the package without importing it
    folders = (found.submodule_search_locations if found else None) or ["dm_control"]
    return Path(next(iter(folders))) / "suite" / f"{domain}.xml"


@dataclass(frozen=True)
class Model:
    """A model file with edits, compiled when a start first needs its joint ranges."""

    mjcf: Path
    prepare: Callable[[mujoco.MjSpec], None] | None = None

    def compiled(self) -> mujoco.MjModel:
        """The compiled model; the same object at each call."""
        return _compiled(self)

    def random_joints(self, rng: np.random.Generator) -> np.ndarray:
        """(nq,): joints drawn as dm_control's `randomize_limited_and_rotational_joints`.

        Limited hinges and slides are uniform in their range, other hinges uniform in [-π, π]; the
        quaternion of a free joint is four uniform numbers in [0, 1], normalised.
        """
        model = self.compiled()
        qpos = model.qpos0.copy()
        for i in range(model.njnt):
            kind, at = int(model.jnt_type[i]), model.jnt_qposadr[i]
            if kind == int(mujoco.mjtJoint.mjJNT_FREE):
                quat = rng.random(4)
                qpos[at + 3 : at + 7] = quat / np.linalg.norm(quat)
            elif model.jnt_limited[i]:
                qpos[at] = rng.uniform(*model.jnt_range[i])
            elif kind == int(mujoco.mjtJoint.mjJNT_HINGE):
                qpos[at] = rng.uniform(-math.pi, math.pi)
        return qpos

    def apart(self, draws: Iterable[np.ndarray], mocap_pos: np.ndarray | None = None) -> np.ndarray:
        """The first of these positions, each (nq,), without contacts.

        `mocap_pos` (nmocap, 3) are positions of mocap bodies; None leaves them as in the model.
        Raises RuntimeError if a thousand have contacts.
        """
        model = self.compiled()
        data = mujoco.MjData(model)
        if mocap_pos is not None:
            data.mocap_pos[:] = mocap_pos
        for qpos in itertools.islice(draws, _ATTEMPTS):
            data.qpos[:] = qpos
            mujoco.mj_fwdPosition(model, data)
            if not data.ncon:
                return qpos
        raise RuntimeError(f"{self.mjcf.name}: no start without contacts in {_ATTEMPTS} draws")

    def random_apart(self, rng: np.random.Generator) -> np.ndarray:
        """(nq,): joints drawn again until there are no contacts."""
        return self.apart(self.random_joints(rng) for _ in itertools.count())

    def at_rest(self, qpos: np.ndarray) -> Start:
        """These positions without velocities."""
        return qpos, np.zeros(self.compiled().nv)


@functools.cache
def _compiled(model: Model) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(model.mjcf))
    if model.prepare is not None:
        model.prepare(spec)
    with _no_deprecations():
        return spec.compile()


def sense_position(spec: mujoco.MjSpec, name: str, kind: str = "body") -> None:
    """Add a sensor `NAME.at` (3,) of the position in m of a body, its inertia, a geom or a site."""
    sensor = mujoco.mjtSensor.mjSENS_FRAMEPOS
    spec.add_sensor(name=f"{name}.at", type=sensor, objtype=_KINDS[kind], objname=name)


def sense_axes(spec: mujoco.MjSpec, name: str, axes: str = "xyz", kind: str = "body") -> None:
    """Add sensors `NAME.x`, `NAME.y`, `NAME.z` (3,) of a frame's axes in the world."""
    for axis in axes:
        kept = {"objtype": _KINDS[kind], "objname": name}
        spec.add_sensor(name=f"{name}.{axis}", type=_FRAMES[axis], **kept)


def keep_sensors(spec: mujoco.MjSpec, *names: str) -> None:
    """Delete all sensors but these; those that nothing reads cost time in each step."""
    for sensor in list(spec.sensors):
        if sensor.name not in names:
            spec.delete(sensor)


def turned(vector: Array, sensors: Mapping[str, Array], frame: str, axes: str = "xyz") -> Array:
    """(..., len(axes)): a vector (..., 3) of the world in the frame that `sense_axes` has named."""
    xp = array_namespace(vector)
    parts = [xp.sum(vector * sensors[f"{frame}.{axis}"], axis=-1) for axis in axes]
    return xp.stack(parts, axis=-1)


def length(vector: Array) -> Array:
    """(...): the length of a vector (..., d)."""
    xp = array_namespace(vector)
    return xp.sqrt(xp.sum(vector * vector, axis=-1))


def gentle(action: Array) -> Array:
    """(...): 1 without control, falling to 0.8 at full actions (..., A)."""
    xp = array_namespace(action)
    small = tolerance(action, margin=1.0, falloff="quadratic", edge=0.0)
    return 0.8 + 0.2 * xp.mean(small, axis=-1)


def move_by_goal(spec: mujoco.MjSpec, name: str, *, site: bool = False, size: float = 0.0) -> None:
    """Put a geom (or site) of the world into a mocap body of its name, which `Task.goal` places.

    `size` is its new radius; 0 keeps the old one.
    """
    old = spec.site(name) if site else spec.geom(name)
    body = spec.worldbody.add_body(name=name, pos=old.pos, mocap=True)
    radius = [size or old.size[0], *old.size[1:]]
    new: dict[str, Any] = {"name": name, "type": old.type, "size": radius, "material": old.material}
    spec.delete(old)
    if site:
        body.add_site(**new)
    else:
        # without mass, so that cameras which track the centre of mass do not see it
        body.add_geom(contype=0, conaffinity=0, mass=0, **new)
