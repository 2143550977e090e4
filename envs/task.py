"""A task: an MJCF file and four pure functions.

The four functions are written once in array-API style. The environment runs them on numpy
float64 and float32, planners on torch tensors of any dtype and device; leading dimensions are
free. They sit in the planner's hot loop: no copies that are not needed, no loops over rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np
from array_api_compat import array_namespace, device

Array = Any
"""A numpy array or a torch tensor."""

RewardFn = Callable[[Array, Array, Array], Array]
"""`reward(obs (..., O), action (..., A), next_obs (..., O)) -> (...)`."""

TerminatedFn = Callable[[Array], Array]
"""`terminated(next_obs (..., O)) -> (...)` bool."""


def never(next_obs: Array) -> Array:
    """The termination of a task that does not end: False (...) for `next_obs` (..., O).

    A caller that sees `terminated is never` can leave termination out altogether.
    """
    xp = array_namespace(next_obs)
    return xp.zeros(next_obs.shape[:-1], dtype=xp.bool, device=device(next_obs))


class Planning(NamedTuple):
    """A cheaper model to plan with; `mbrl study robots` measures its error."""

    prepare: Callable[[mujoco.MjSpec], None]
    """Edits to the task's MJCF: integrator, time step, solver, collisions; no new state."""
    frame_skip: int
    """Its MuJoCo steps in a control step; times its time step, the task's own control step."""


class Physics(NamedTuple):
    """What an observation is made of, with any leading dimensions."""

    qpos: Array  # (..., nq)
    qvel: Array  # (..., nv)
    sensors: Mapping[str, Array]  # name -> (..., d), evaluated at this qpos and qvel


class Known(NamedTuple):
    """What is known of an environment's reward and termination as functions of observations."""

    reward: RewardFn | None
    terminated: TerminatedFn | None
    why: str  # what is missing or inexact, in one sentence; empty when nothing is


@dataclass(frozen=True)
class Task:
    """A control problem in MuJoCo.

    An action is in [-1, 1]^A and is mapped affinely onto each control's `ctrlrange`; the reward
    gets the action as it was given, so a cost in N·m scales it back. Reward and termination depend
    on their arguments only. Keyword-only parameters of `reward` with numbers as defaults are
    its weights: `weights` lists them and `functools.partial` sets them.
    """

    name: str
    summary: str
    """One line for listings."""
    mjcf: Path
    observation: Callable[[Physics], Array]
    """`observation(physics) -> obs (..., O)`."""
    reward: RewardFn
    initial: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    """`initial(rng) -> (qpos (nq,), qvel (nv,))`."""
    frame_skip: int
    """MuJoCo steps in a control step."""
    episode_steps: int
    """Control steps in an episode; `envs.make` truncates there."""
    terminated: TerminatedFn = never
    """By default the task does not end."""
    process_noise: tuple[float, ...] = ()
    """Std of a random force on each degree of freedom, in N or N·m, drawn once a control step
    and held over it; empty for none."""
    camera: str | int = -1
    """Camera to render from; -1 is a free camera that sees everything."""
    prepare: Callable[[mujoco.MjSpec], None] | None = None
    """Edits to a borrowed MJCF before it is compiled: sensors, a camera, colours."""
    goal: Callable[[np.random.Generator], np.ndarray] | None = None
    """`goal(rng) -> (nmocap, 3)`: where the MJCF's mocap bodies stand, drawn after `initial`."""
    goal_steps: int = 0
    """Control steps after which the goal is drawn anew; 0 keeps it over the episode."""
    success: Callable[[Array], Array] | None = None
    """`success(obs (..., O)) -> (...)` bool: the task is done in this state."""
    traces: tuple[str, ...] = ()
    """Position sensors, sites, geoms or bodies whose paths show a plan in pictures."""
    planning: Planning | None = None
    """A cheaper model to plan with, where there is a good one."""
    gymnasium: bool = False
    """The task only describes one that gymnasium steps, by gymnasium's conventions: actions are
    controls, observations float64, and in place of sensors there are the places of bodies by
    name, as they lag behind the state within MuJoCo's last step."""

    @property
    def weights(self) -> dict[str, float]:
        """The reward's weights by name, as they stand."""
        parameters = inspect.signature(self.reward).parameters.values()
        return {p.name: float(p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}

    def traced(self) -> Task:
        """The same task with a position sensor for each of `traces` that has none."""
        kinds = {
            "site": mujoco.mjtObj.mjOBJ_SITE,
            "geom": mujoco.mjtObj.mjOBJ_GEOM,
            "body": mujoco.mjtObj.mjOBJ_XBODY,
        }

        def prepare(spec: mujoco.MjSpec) -> None:
            if self.prepare is not None:
                self.prepare(spec)
            for name in self.traces:
                if spec.sensor(name) is None:
                    kind = next(kind for kind in kinds if getattr(spec, kind)(name) is not None)
                    spec.add_sensor(
                        name=name,
                        type=mujoco.mjtSensor.mjSENS_FRAMEPOS,
                        objtype=kinds[kind],
                        objname=name,
                    )

        return replace(self, prepare=prepare)

    def compile(self, *, planning: bool = False) -> mujoco.MjModel:
        """The task's model, or its planning model.

        Raises ValueError, in one line that names the file, for an MJCF that does not compile, an
        actuator without `ctrlrange`, a sensor of accelerations or forces (these are not functions
        of the state), a sensor that the task observes and the model lacks, and process
        noise of the wrong length.
        """
        try:
            spec = mujoco.MjSpec.from_file(str(self.mjcf))
            if self.prepare is not None:
                self.prepare(spec)
            if planning and self.planning is not None:
                self.planning.prepare(spec)
            model = spec.compile()
        except (ValueError, OSError) as error:
            raise ValueError(f"{self.mjcf}: {' '.join(str(error).split())}") from error
        names = zip(control_names(model), model.actuator_ctrllimited, strict=True)
        unlimited = [name for name, limited in names if not limited]
        if unlimited:
            raise ValueError(
                f"{self.mjcf}: actuators without ctrlrange, so without a bounded action: "
                f"{', '.join(unlimited)}"
            )
        unsteady = [
            model.sensor(i).name or f"#{i}"
            for i in range(model.nsensor)
            if model.sensor_needstage[i] == int(mujoco.mjtStage.mjSTAGE_ACC)
        ]
        if unsteady:
            raise ValueError(
                f"{self.mjcf}: sensors that need accelerations, not only the state: "
                f"{', '.join(unsteady)}"
            )
        if not self.gymnasium:
            views = sensor_views(model, np.zeros(model.nsensordata))
            try:
                self.observation(Physics(np.zeros(model.nq), np.zeros(model.nv), views))
            except KeyError as missing:
                raise ValueError(
                    f"{self.mjcf}: no sensor {missing}, which {self.name} observes; "
                    f"there are {', '.join(views) or 'none'}"
                ) from None
        if len(self.process_noise) not in (0, model.nv):
            raise ValueError(
                f"{self.name}: process_noise needs {model.nv} values, one a degree of freedom, "
                f"or none; got {len(self.process_noise)}"
            )
        return model


def control_names(model: mujoco.MjModel) -> list[str]:
    """A name for each control (A,): its actuator's, and which input it is where there are several.

    Since MuJoCo 4 an actuator may take several controls: the position and velocity that a PID
    controller is to reach, the four numbers of an orientation.
    """
    actuators = range(len(model.actuator_gaintype))
    inputs = getattr(model, "actuator_ctrlnum", [1] * len(actuators))
    return [
        (model.actuator(i).name or f"#{i}") + (f" (input {k + 1} of {count})" if count > 1 else "")
        for i, count in zip(actuators, inputs, strict=True)
        for k in range(count)
    ]


def actuation(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Offset and scale, each (A,), with `ctrl = offset + scale * action`."""
    low, high = model.actuator_ctrlrange.T
    return (low + high) / 2, (high - low) / 2


def sensor_views(model: mujoco.MjModel, sensordata: Array) -> dict[str, Array]:
    """Each sensor's view (..., d) of `sensordata` (..., nsensordata), under its name."""
    return {
        model.sensor(i).name: sensordata[..., address : address + size]
        for i, (address, size) in enumerate(zip(model.sensor_adr, model.sensor_dim, strict=True))
    }
