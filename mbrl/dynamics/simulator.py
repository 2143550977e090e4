"""The true simulator as a model: a task's physics as `Dynamics`.

A state is MuJoCo's whole integration state, a flat float64 vector: time, positions, velocities,
activations, the solver's warm start, applied forces, goals. From the same state and actions it
computes the same numbers as the environment, to the last bit, with any number of threads.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import mujoco
import numpy as np
import torch
from jaxtyping import Float
from mujoco.batch import Batch, SimulationError
from torch import Tensor

from mbrl.dynamics.derivatives import SmoothSimulator
from mbrl.parallel import apart
from mbrl.randomisation import Randomisation
from mbrl.types import RewardFn, Step, TerminatedFn, Unrolled
from planners.checks import check_memory

_log = logging.getLogger(__name__)

_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_CTRL = int(mujoco.mjtState.mjSTATE_CTRL)
_FORCE = int(mujoco.mjtState.mjSTATE_QFRC_APPLIED)
_MOTION = sum(
    int(part)
    for part in (
        mujoco.mjtState.mjSTATE_QPOS,
        mujoco.mjtState.mjSTATE_QVEL,
        mujoco.mjtState.mjSTATE_ACT,
    )
)
_SENSOR_STAGE = int(mujoco.mjtStage.mjSTAGE_VEL)
_FORCE_STAGE = int(mujoco.mjtStage.mjSTAGE_ACC)
_NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)
_KEPT = 8
"""Number of batches kept, one for each number of candidates, because building one takes
milliseconds."""


class Physics(NamedTuple):
    """The arrays that observations are computed from, with any leading dimensions."""

    qpos: np.ndarray  # (..., nq)
    qvel: np.ndarray  # (..., nv)
    sensors: Mapping[str, np.ndarray]  # name -> (..., d)
    act: np.ndarray  # (..., na)


class PhysicalTask(Protocol):
    """The attributes of a task that the simulator uses; `envs.Task` has them."""

    @property
    def name(self) -> str:
        """The task's name, for messages."""
        ...

    @property
    def observation(self) -> Callable[[Any], Any]:
        """`observation(physics) -> obs (..., O)`."""
        ...

    @property
    def rewarded(self) -> Callable[[Any], Any]:
        """`rewarded(physics) -> (..., O + F)`: the observation, then what else the reward needs."""
        ...

    @property
    def reward(self) -> Callable[..., Any]:
        """`reward(obs, action, next_obs) -> (...)`; gets rows of `rewarded`."""
        ...

    @property
    def forces(self) -> bool:
        """Whether observations read sensors of forces, which lag by one MuJoCo step."""
        ...

    @property
    def terminated(self) -> Callable[[Any], Any]:
        """`terminated(next_obs) -> (...)` bool."""
        ...

    @property
    def frame_skip(self) -> int:
        """MuJoCo steps in a control step."""
        ...

    @property
    def process_noise(self) -> tuple[float, ...]:
        """Std of a random force on each degree of freedom; empty for none."""
        ...

    @property
    def planning(self) -> Any:
        """A cheaper model to plan with, which has a `frame_skip`; None if there is none."""
        ...

    @property
    def gymnasium(self) -> bool:
        """Whether the task follows gymnasium's conventions.

        Actions are then controls, observations float64, and sensors the positions of bodies one
        MuJoCo step before the state.
        """
        ...

    def compile(self, *, planning: bool = False) -> mujoco.MjModel:
        """The true model, or the cheaper one to plan with."""
        ...


def has_physics(env: Any) -> bool:
    """Whether a gymnasium environment has a MuJoCo simulation, as attributes `model` and `data`."""
    inner = env.unwrapped
    return isinstance(getattr(inner, "model", None), mujoco.MjModel) and isinstance(
        getattr(inner, "data", None), mujoco.MjData
    )


def physics_state(env: Any) -> Float[Tensor, " S"]:
    """The current state of an environment's MuJoCo simulation, as a state of the simulator."""
    model, data = env.unwrapped.model, env.unwrapped.data
    state = np.empty(mujoco.mj_stateSize(model, _STATE))
    mujoco.mj_getState(model, data, state, _STATE)
    return torch.from_numpy(state)


class Simulator:
    """A task's physics as a model: `members` true simulators that step in batches.

    The first member is the task itself; the others have parameters drawn by `randomisation`. The
    objective of `score_fn` combines the returns of a plan in all of them.

    Args:
        task: physics, observation, reward and termination.
        planning: whether to use the task's cheaper planning model, if it has one.
        members: E.
        randomisation: of the parameters of members after the first.
        rng: random stream of these parameters.
        threads: number of threads that step a batch; as many as torch uses if None.

    Attributes:
        model: MuJoCo's model of the first member.
        reward, terminated: those of the task; set them to plan for another reward or termination.
        nominal: index of the member that is the task itself.
        own_threads: True, because batches step on threads that are not torch's.

    Raises:
        ValueError: an MJCF that does not compile, members or threads below one, several members
            without `rng`, a planning model with another state or another control step.
    """

    nominal = 0
    own_threads = True

    def __init__(
        self,
        task: PhysicalTask,
        *,
        planning: bool = False,
        members: int = 1,
        randomisation: Randomisation | None = None,
        rng: np.random.Generator | None = None,
        threads: int | None = None,
    ) -> None:
        threads = torch.get_num_threads() if threads is None else threads
        for name, value in (("members", members), ("threads", threads)):
            if not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if members > 1 and rng is None:
            raise ValueError(f"{members} members need a rng to draw their parameters from")
        self.task, self.members, self.threads = task, members, threads
        self.model = task.compile(planning=planning)
        self.frame_skip = task.frame_skip
        if planning and task.planning is not None:
            self.frame_skip = task.planning.frame_skip
            _check_planning(task, self.model)
        spread = Randomisation() if randomisation is None else randomisation
        check_memory(f"members {members}: the simulators", members * self.model.nbuffer)
        self.models = [self.model]
        for _ in range(members - 1):
            assert rng is not None
            self.models.append(spread.draw(self.model, rng))
        self.reward: Callable[..., Any] = task.reward
        self.terminated: Callable[[Any], Any] = task.terminated
        low, high = self.model.actuator_ctrlrange.T
        self._offset, self._scale = (low + high) / 2, (high - low) / 2
        if task.gymnasium:
            self._offset, self._scale = np.zeros_like(low), np.ones_like(low)
        # the dtype of the environment's observations, so that rewards are equal to the last bit
        self._dtype = np.float64 if task.gymnasium else np.float32
        self._force_std = np.asarray(task.process_noise, dtype=float)
        self._state_size = int(mujoco.mj_stateSize(self.model, _STATE))
        self._batches: dict[tuple[int, int], tuple[Batch, Callable[[], None]]] = {}
        self._data = mujoco.MjData(self.model)
        self._sensors = {
            self.model.sensor(i).name: slice(address, address + size)
            for i, (address, size) in enumerate(
                zip(self.model.sensor_adr, self.model.sensor_dim, strict=True)
            )
        }
        self._field = "sensordata"
        if task.gymnasium:
            bodies = range(self.model.nbody)
            self._sensors = {self.model.body(i).name: slice(3 * i, 3 * i + 3) for i in bodies}
            self._field = "xpos"
        recorder = _AccessRecorder(self._views(getattr(self._data, self._field).reshape(-1)))
        start = Physics(self._data.qpos, self._data.qvel, recorder, self._data.act)
        self._obs_size = len(task.observation(start))
        task.rewarded(start)
        self._uses_sensors = recorder.accessed
        kinds = np.repeat(self.model.sensor_needstage, self.model.sensor_dim)
        self._lagging = np.flatnonzero(kinds == _FORCE_STAGE) if task.forces else None

    @property
    def state_size(self) -> int:
        """S."""
        return self._state_size

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(nv,): a random force on each degree of freedom in a control step; (0,) for none."""
        return self._force_std.shape

    @property
    def control_step(self) -> float:
        """Seconds between two actions."""
        return self.model.opt.timestep * self.frame_skip

    def state(
        self, qpos: np.ndarray, qvel: np.ndarray, mocap_pos: np.ndarray | None = None
    ) -> Float[Tensor, " S"]:
        """The state (S,) with these positions (nq,) and velocities (nv,), and else that of a reset.

        `mocap_pos` (nmocap, 3) are positions of mocap bodies in m. Raises ValueError for other
        shapes or numbers that are not finite.
        """
        model, data = self.model, self._data
        mujoco.mj_resetData(model, data)
        given = {"qpos": qpos, "qvel": qvel} | (
            {} if mocap_pos is None else {"mocap_pos": mocap_pos}
        )
        for name, value in given.items():
            value, place = np.asarray(value, dtype=float), getattr(data, name)
            if value.shape != place.shape or not np.isfinite(value).all():
                raise ValueError(
                    f"{self.task.name}: {name} must be finite and of shape {place.shape}, "
                    f"got {value.shape}"
                )
            place[:] = value
        state = np.empty(self.state_size)
        mujoco.mj_getState(model, data, state, _STATE)
        return torch.from_numpy(state)

    def encode(
        self,
        obs: Float[Tensor, "*lead O"],
        *,
        state: Tensor | None = None,
        action: Tensor | None = None,
    ) -> Float[Tensor, "*lead S"]:
        """Always raises ValueError, because an observation does not contain the whole state.

        Use `physics_state` of the environment, or `state` from positions and velocities.
        """
        raise ValueError(
            f"{self.task.name}: the simulator starts from the whole physics, which an observation "
            "does not hold; give it the environment's state, or Simulator.state(qpos, qvel)"
        )

    def decode(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead O"]:
        """Observations of states in the first member; float32, or float64 if `task.gymnasium`."""
        rows = state.reshape(-1, state.shape[-1]).numpy(force=True)
        obs = self._decode(rows, members=1)[..., : self._obs_size].astype(self._dtype)
        return torch.from_numpy(obs).to(state.device).reshape(*state.shape[:-1], obs.shape[-1])

    def step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        *,
        noise: Float[Tensor, "E B *noise_shape"] | None,
    ) -> Step:
        """One control step of each member; states that diverge become NaN.

        `noise` is standard normal, (E, B, nv) for a task with process noise, else (E, B, 0). Raises
        ValueError for states or actions of other shapes.
        """
        lead, size = state.shape[:-1], state.shape[-1]
        if lead[0] != self.members or size != self.state_size:
            raise ValueError(
                f"{self.task.name}: state must be (E, B, S) with E = {self.members} and "
                f"S = {self.state_size}, got {tuple(state.shape)}"
            )
        if action.shape != (*lead, self.model.nu):
            raise ValueError(
                f"{self.task.name}: action must be (E, B, A) = {(*lead, self.model.nu)}, "
                f"got {tuple(action.shape)}"
            )
        rows = state.reshape(-1, size).numpy(force=True)
        moves = action.reshape(len(rows), -1).numpy(force=True)
        forces: Any = 0.0
        if noise is not None and self._force_std.size:
            forces = self._force_std * noise.reshape(-1, self._force_std.size).numpy(force=True)
        after, before, obs = self.observed_step(rows, moves, forces=forces, members=self.members)
        before, obs = before.astype(self._dtype), obs.astype(self._dtype)
        reward = self.reward(before, moves, obs)
        ended = self.terminated(obs[..., : self._obs_size])
        return Step(
            torch.from_numpy(after).to(state.device).reshape(*lead, size),
            torch.from_numpy(np.asarray(reward)).to(state.device).reshape(lead),
            torch.from_numpy(np.asarray(ended)).to(state.device).reshape(lead),
        )

    def unroll(
        self,
        state: Float[Tensor, " S"],
        actions: Float[Tensor, "N H A"],
        *,
        particles: int = 1,
        noise: Float[Tensor, "H P *noise_shape"] | None = None,
        reward: RewardFn | None = None,
        terminated: TerminatedFn | None = None,
    ) -> Unrolled:
        """Roll out all candidates from one state over the whole horizon, in one native call.

        Particle p belongs to member p // (P / E). `noise` is standard normal, (H, P, nv),
        and the same for every candidate; None is no process noise.

        Raises ValueError for wrong shapes, or particles that are not a multiple of the members.
        """
        if particles < 1 or particles % self.members:
            raise ValueError(
                f"particles must be a positive multiple of the {self.members} members, "
                f"got {particles}"
            )
        trajectories, steps = particles * len(actions), actions.shape[1] + 1
        check_memory(
            f"{len(actions)} candidates, {particles} particles, {steps - 1} steps: the simulation",
            8 * trajectories * (steps * self.state_size + self.model.nq),
        )
        start, moves = state.numpy(force=True), actions.numpy(force=True)
        draws = None if noise is None else noise.numpy(force=True)
        physics, bad = self._roll(start, moves, particles, draws)
        obs = self.task.rewarded(physics).astype(self._dtype)
        plans = moves[None] if particles == 1 else np.broadcast_to(moves, (particles, *moves.shape))
        before, after = obs[:, :, :-1], obs[:, :, 1:]
        reward_of: Callable[..., Any] = reward or self.reward
        rewards = torch.from_numpy(np.asarray(reward_of(before, plans, after)))
        ends: Callable[..., Any] = terminated or self.terminated
        # A task that never ends has a termination named `never`, which is not called.
        endless = getattr(ends, "__name__", "") == "never"
        ended = None if endless else np.asarray(ends(after[..., : self._obs_size]))
        device = state.device
        return Unrolled(
            rewards.to(device),
            None if ended is None else torch.from_numpy(ended).to(device),
            None if bad is None else torch.from_numpy(~bad).to(device),
        )

    def smooth(
        self,
        state: Float[Tensor, " S"],
        *,
        action_repeat: int = 1,
        reward: RewardFn | None = None,
    ) -> SmoothSimulator:
        """The simulator from a state with derivatives, for `planners.ILQR`.

        Raises ValueError for several members, or one of gymnasium's tasks.
        """
        return SmoothSimulator(self, state, action_repeat=action_repeat, reward=reward)

    def trace(
        self, state: Float[Tensor, " S"], actions: Float[Tensor, "N H A"], sensors: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Values of sensors along N plans in the first member: name -> (N, H + 1, d).

        Raises ValueError for a sensor that the model lacks.
        """
        for name in sensors:
            if name not in self._sensors:
                raise ValueError(
                    f"{self.task.name}: no sensor {name!r}; there are {', '.join(self._sensors)}"
                )
        moves = actions.numpy(force=True)
        physics, _ = self._roll(
            state.numpy(force=True), moves, 1, None, members=1, with_sensors=True
        )
        return {name: physics.sensors[name][0] for name in sensors}

    def observed_step(
        self,
        rows: np.ndarray,
        moves: np.ndarray,
        *,
        forces: np.ndarray | float = 0.0,
        members: int = 1,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A control step: next states (n, S), what the reward gets before and after, in float64.

        These are observations (n, O), with features of the task (n, O + F).
        `rows` are states (n, S) and `moves` actions (n, A), grouped by member, of the first
        `members`. `forces` (n, nv) act on the degrees of freedom, in N or N·m. States that diverge
        become NaN.
        """
        before = self._decode(rows, members)
        batch = self._batch(len(rows) // members, members)
        batch.state[:] = rows
        batch.ctrl = self._offset + self._scale * moves
        if self._force_std.size:  # the state contains the last random force, which must not persist
            batch.qfrc_applied = forces
        stage = _SENSOR_STAGE if self._uses_sensors and not self.task.gymnasium else _NO_STAGE
        bad = _guarded(batch, lambda: batch.step(nstep=self.frame_skip, stage=stage))
        after = batch.state.copy()
        if bad is not None:
            after[bad] = np.nan
        return after, before, self._observe(batch)

    # The methods below use numpy, whose calls cost a third of torch's on arrays of this size.

    def _roll(
        self,
        state: np.ndarray,
        moves: np.ndarray,
        particles: int,
        draws: np.ndarray | None,
        members: int | None = None,
        with_sensors: bool = False,
    ) -> tuple[Physics, np.ndarray | None]:
        """Physics (P, N, H + 1, .), and which trajectories diverged, (P, N) or None."""
        model, skip = self.model, self.frame_skip
        count, horizon, size = moves.shape
        if state.shape != (self.state_size,) or size != model.nu:
            raise ValueError(
                f"{self.task.name}: state must be ({self.state_size},) and actions "
                f"(N, H, {model.nu}), got {state.shape} and {moves.shape}"
            )
        members = self.members if members is None else members
        batch = self._batch(particles // members * count, members)
        # The sensors recorded in a substep are those of the state before it, so one more substep is
        # needed for those of the last state.
        with_sensors, lagging = with_sensors or self._uses_sensors, self.task.gymnasium
        substeps = horizon * skip + (with_sensors and not lagging)
        noisy = (
            self._force_std.size > 0
        )  # the state contains the last force, which must not persist
        spec, width = (_CTRL | _FORCE, size + model.nv) if noisy else (_CTRL, size)
        inputs = np.empty((particles, count, substeps, width))
        held = inputs[:, :, : horizon * skip].reshape(particles, count, horizon, skip, width)
        held[..., :size] = (self._offset + self._scale * moves)[:, :, None]
        if noisy:
            held[..., size:] = 0.0
            if draws is not None:
                forces = self._force_std * draws[:horizon]
                held[..., size:] = forces.swapaxes(0, 1)[:, None, :, None]
        if substeps > horizon * skip:
            inputs[:, :, -1] = inputs[:, :, -2]

        rows = len(batch.state)
        moving, whole = model.nq + model.nv, model.nq + model.nv + model.na
        out: dict[Any, np.ndarray] = {_MOTION: np.empty((rows, substeps, whole))}
        if with_sensors:
            shape = getattr(self._data, self._field).shape
            out[self._field] = np.empty((rows, substeps, *shape))
        batch.state[:] = state
        flat = inputs.reshape(rows, substeps, width)
        bad = _guarded(batch, lambda: batch.rollout(substeps, flat, spec, (*out,), out=out))

        motion = np.empty((particles, count, horizon + 1, whole))
        motion[:, :, 0] = state[1 : 1 + whole]  # the first number is the time
        recorded = out[_MOTION].reshape(particles, count, substeps, -1)
        motion[:, :, 1:] = recorded[:, :, skip - 1 : horizon * skip : skip]
        sensed = None
        if with_sensors:
            sensed = out[self._field].reshape(particles, count, substeps, -1)
            if lagging:
                last = sensed[:, :, skip - 1 :: skip]
                sensed = np.concatenate([sensed[:, :, :1], last], axis=2)
            else:
                every = sensed
                sensed = every[:, :, ::skip]
                if self._lagging is not None:
                    last = every[:, :, skip - 1 : horizon * skip : skip]
                    sensed = sensed.copy()
                    sensed[:, :, 1:, self._lagging] = last[..., self._lagging]
        views = {} if sensed is None else self._views(sensed)
        qpos, qvel, act = (
            motion[..., : model.nq],
            motion[..., model.nq : moving],
            motion[..., moving:],
        )
        physics = Physics(qpos, qvel, views, act)
        return physics, None if bad is None else bad.reshape(particles, count)

    def _batch(self, count: int, members: int) -> Batch:
        """`count` simulations of each member, grouped by member."""
        key = (count, members)
        if key not in self._batches:
            if len(self._batches) >= _KEPT:
                self._batches.pop(next(iter(self._batches)))
            batch, spread = apart(lambda: Batch(self.model, count * members, self.threads))
            if members > 1:
                batch.set_models([model for model in self.models for _ in range(count)])
            self._batches[key] = batch, spread
        batch, spread = self._batches[key]
        spread()
        return batch

    def _decode(self, rows: np.ndarray, members: int) -> np.ndarray:
        """`rewarded` (n, O + F) of states (n, S), grouped by member, of the first `members`."""
        batch = self._batch(len(rows) // members, members)
        batch.state[:] = rows
        if self._uses_sensors:
            batch.bind(self._field)  # must precede the call that fills it
            stage = _SENSOR_STAGE if self._lagging is None else _FORCE_STAGE
            _guarded(batch, lambda: batch.forward(stage=stage))
        return self._observe(batch)

    def _observe(self, batch: Batch) -> np.ndarray:
        """`rewarded` (n, O + F) of the current states of a batch, a copy."""
        views = {}
        if self._uses_sensors:
            views = self._views(batch.bind(self._field).reshape(len(batch.state), -1))
        act = batch.bind("act") if self.model.na else np.empty((len(batch.state), 0))
        physics = Physics(batch.bind("qpos"), batch.bind("qvel"), views, act)
        return np.array(self.task.rewarded(physics))

    def _views(self, sensed: np.ndarray) -> dict[str, np.ndarray]:
        return {name: sensed[..., where] for name, where in self._sensors.items()}


class _AccessRecorder(Mapping[str, np.ndarray]):
    """A mapping that records whether it was accessed."""

    def __init__(self, views: Mapping[str, np.ndarray]) -> None:
        self._views, self.accessed = views, False

    def __getitem__(self, name: str) -> np.ndarray:
        self.accessed = True
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        self.accessed = True
        return iter(self._views)

    def __len__(self) -> int:
        self.accessed = True
        return len(self._views)


def _guarded(batch: Batch, call: Callable[[], Any]) -> np.ndarray | None:
    """Call a function that steps the batch; returns which simulations diverged or failed.

    The result is (n,) bool, or None if none did.
    """
    batch.warning[:] = 0
    failed: Any = False
    try:
        call()
    except SimulationError as error:
        _log.info("%s", error)
        failed = batch.status != 0
    warned = batch.warning
    if failed is False and not np.count_nonzero(warned):
        return None
    bad = warned[:, :, 1].any(1) | failed
    return bad if bad.any() else None


def _check_planning(task: PhysicalTask, model: mujoco.MjModel) -> None:
    true = task.compile()
    sizes = [(mujoco.mj_stateSize(m, _STATE), m.nq, m.nv, m.nu) for m in (true, model)]
    steps = (true.opt.timestep * task.frame_skip, model.opt.timestep * task.planning.frame_skip)
    if sizes[0] != sizes[1] or not math.isclose(*steps):
        raise ValueError(
            f"{task.name}: its planning model must have the same state and control step; "
            f"(S, nq, nv, nu) are {sizes[0]} and {sizes[1]}, steps {steps[0]:g} and {steps[1]:g} s"
        )
