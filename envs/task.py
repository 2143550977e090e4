"""A task: an MJCF file and four pure functions.

The four functions are written once in array-API style. The environment runs them on numpy
float64 and float32, planners on torch tensors of any dtype and device; any leading dimensions are
allowed. Planners call them in their inner loop, so they should make no unnecessary copies and no
loops over rows.
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

    A caller can test `terminated is never` and skip terminations.
    """
    xp = array_namespace(next_obs)
    return xp.zeros(next_obs.shape[:-1], dtype=xp.bool, device=device(next_obs))


class Planning(NamedTuple):
    """A cheaper model to plan with; `mbrl study robots` measures its error."""

    prepare: Callable[[mujoco.MjSpec], None]
    """Edits the task's MJCF (integrator, time step, solver, collisions); must not add state."""
    frame_skip: int
    """MuJoCo steps of this model in a control step, which must last as long as the task's."""


class Physics(NamedTuple):
    """The quantities that an observation is computed from, with any leading dimensions."""

    qpos: Array  # (..., nq)
    qvel: Array  # (..., nv)
    sensors: Mapping[str, Array]  # name -> (..., d), evaluated at this qpos and qvel
    act: Array = None  # (..., na): activations of actuators with dynamics


class Known(NamedTuple):
    """An environment's reward and termination as functions of observations, if they are known."""

    reward: RewardFn | None  # None: not known
    terminated: TerminatedFn | None  # None: not known
    why: str  # one sentence on what is missing or inexact; empty if nothing is


@dataclass(frozen=True)
class Task:
    """A control problem in MuJoCo.

    An action is in [-1, 1]^A and is mapped affinely onto each control's `ctrlrange`. The reward
    gets the action in [-1, 1], so a cost in N·m has to scale it. Reward and termination depend
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
    initial: Callable[[np.random.Generator], tuple[np.ndarray, ...]]
    """`initial(rng) -> (qpos (nq,), qvel (nv,))`, or `(qpos, qvel, mocap_pos (nmocap, 3))` where
    the start depends on the places of mocap bodies; `goal` is then not drawn at the start."""
    frame_skip: int
    """MuJoCo steps in a control step."""
    episode_steps: int
    """Control steps in an episode; `envs.make` truncates there."""
    features: Callable[[Physics], Array] | None = None
    """`features(physics) -> (..., F)`: numbers that the reward needs and the observation lacks. The
    environment and the simulator append them to the observations that they give to `reward`, which
    are then (..., O + F). Agents do not see them, so learners have to learn the reward."""
    settle: int = 0
    """MuJoCo steps without controls between `initial` and the first observation."""
    forces: bool = False
    """True if observations read sensors of forces or accelerations. Their values are those of the
    last MuJoCo step, so they lag behind the state by one; at the start of an episode, and where a
    simulator observes a bare state, they are evaluated in that state. The reward must not use
    them."""
    terminated: TerminatedFn = never
    """`terminated(next_obs)`; by default the task never terminates."""
    process_noise: tuple[float, ...] = ()
    """Std of a random force on each degree of freedom, in N or N·m; the force is drawn anew in each
    control step and constant within it. Empty: no noise."""
    camera: str | int = -1
    """Camera to render from; -1 is a free camera that shows the whole scene."""
    prepare: Callable[[mujoco.MjSpec], None] | None = None
    """Edits the MJCF before it is compiled, for example to add sensors, a camera or colours."""
    goal: Callable[[np.random.Generator], np.ndarray] | None = None
    """`goal(rng) -> (nmocap, 3)`: positions of the mocap bodies in m, drawn after `initial`; or
    (nmocap, 7): positions, then quaternions."""
    goal_steps: int = 0
    """Control steps after which a new goal is drawn; 0 keeps one goal for the whole episode."""
    success: Callable[[Array], Array] | None = None
    """`success(obs (..., O)) -> (...)` bool: the task is done in this state."""
    traces: tuple[str, ...] = ()
    """Names of position sensors, sites, geoms or bodies; pictures of a plan show their paths."""
    planning: Planning | None = None
    """A cheaper model to plan with, if there is a good one."""
    gymnasium: bool = False
    """True if an environment of gymnasium steps the task, and this object only describes it. Then
    gymnasium's conventions hold: actions are controls, observations are float64, and
    `Physics.sensors` has the positions of bodies by name, which lag behind the state by one MuJoCo
    step."""

    @property
    def weights(self) -> dict[str, float]:
        """The current weights of the reward by name."""
        parameters = inspect.signature(self.reward).parameters.values()
        return {p.name: float(p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}

    def rewarded(self, physics: Physics) -> Array:
        """What `reward` gets as `obs` and `next_obs`: (..., O), or (..., O + F) with features."""
        obs = self.observation(physics)
        if self.features is None:
            return obs
        return array_namespace(obs).concat([obs, self.features(physics)], axis=-1)

    def traced(self) -> Task:
        """The same task with a position sensor of the same name for each of `traces`."""
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
        """The compiled model of the task; with `planning`, its planning model if it has one.

        Raises ValueError, in one line that names the file or the task, for an MJCF that does not
        compile, an actuator without `ctrlrange`, a sensor of accelerations or forces (these are not
        functions of the state) unless the task sets `forces`, a sensor that the task observes and
        the model lacks, and process noise of the wrong length.
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
        unusable = [
            model.sensor(i).name or f"#{i}"
            for i in range(model.nsensor)
            if model.sensor_needstage[i] == int(mujoco.mjtStage.mjSTAGE_ACC)
        ]
        if unusable and not self.forces:
            raise ValueError(
                f"{self.mjcf}: sensors that need accelerations, not only the state: "
                f"{', '.join(unusable)}"
            )
        if not self.gymnasium:
            views = sensor_views(model, np.zeros(model.nsensordata))
            try:
                start = Physics(np.zeros(model.nq), np.zeros(model.nv), views, np.zeros(model.na))
                self.rewarded(start)
            except KeyError as missing:
                raise ValueError(
                    f"{self.mjcf}: no sensor {missing}, which {self.name} observes; "
                    f"there are {', '.join(views) or 'none'}"
                ) from None
        if len(self.process_noise) not in (0, model.nv):
            raise ValueError(
                f"{self.name}: process_noise needs {model.nv} values, one for each degree of "
                f"freedom, or none; got {len(self.process_noise)}"
            )
        return model


def control_names(model: mujoco.MjModel) -> list[str]:
    """A name for each control (A,): its actuator's, with the input's number if it has several.

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
