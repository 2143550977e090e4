"""The true simulator as a model: a task's physics as `Dynamics`.

A state is MuJoCo's whole integration state, a flat float64 vector: time, positions, velocities,
activations, the solver's warm start, applied forces, goals. From the same state and the same
actions it gives what the environment gives, to the last bit, however many threads share the work.
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

_log = logging.getLogger(__name__)

_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_CTRL = int(mujoco.mjtState.mjSTATE_CTRL)
_FORCE = int(mujoco.mjtState.mjSTATE_QFRC_APPLIED)
_MOTION = int(mujoco.mjtState.mjSTATE_QPOS) | int(mujoco.mjtState.mjSTATE_QVEL)
_SENSOR_STAGE = int(mujoco.mjtStage.mjSTAGE_VEL)
_NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)
_KEPT = 8
"""Batches kept, one for each number of candidates: building one takes milliseconds."""


class Physics(NamedTuple):
    """What a task observes, with any leading dimensions."""

    qpos: np.ndarray  # (..., nq)
    qvel: np.ndarray  # (..., nv)
    sensors: Mapping[str, np.ndarray]  # name -> (..., d)


class PhysicalTask(Protocol):
    """What the simulator needs to know of a task; `envs.Task` is one."""

    @property
    def name(self) -> str:
        """The task's name, for messages."""
        ...

    @property
    def observation(self) -> Callable[[Any], Any]:
        """`observation(physics) -> obs (..., O)`."""
        ...

    @property
    def reward(self) -> Callable[..., Any]:
        """`reward(obs, action, next_obs) -> (...)`."""
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
        """None, or a cheaper model's `frame_skip`."""
        ...

    @property
    def gymnasium(self) -> bool:
        """Gymnasium's conventions: actions are controls, observations float64, and sensors are the
        positions of bodies one MuJoCo step before the state."""
        ...

    def compile(self, *, planning: bool = False) -> mujoco.MjModel:
        """The true model, or the cheaper one to plan with."""
        ...


def has_physics(env: Any) -> bool:
    """Whether a gymnasium environment holds a MuJoCo simulation, as ours and MuJoCo's own do."""
    inner = env.unwrapped
    return isinstance(getattr(inner, "model", None), mujoco.MjModel) and isinstance(
        getattr(inner, "data", None), mujoco.MjData
    )


def physics_state(env: Any) -> Float[Tensor, S]:
    """The simulator's state of what an environment's MuJoCo simulation is in now."""
    model, data = env.unwrapped.model, env.unwrapped.data
    state = np.empty(mujoco.mj_stateSize(model, _STATE))
    mujoco.mj_getState(model, data, state, _STATE)
    return torch.from_numpy(state)


class Simulator:
    """A task's physics as a model: `members` true simulators that step in batches.

    One member is the task itself. With more, the first is the task and the others are drawn by
    `randomisation`; `score_fn` and its objectives then make a plan that holds for all of them.

    Args:
        task: physics, observation, reward and termination.
        planning: step the task's cheaper planning model, where it has one.
        members: E.
        randomisation: of the members after the first.
        rng: draws them.
        threads: that share a batch; as many as torch has if None.

    Attributes:
        model: the (first) member's MuJoCo model.
        reward, terminated: the task's; set them to plan for something else.
        nominal: the member that is the task itself.
        own_threads: batches run on threads of their own, which torch's would compete with.

    Raises:
        ValueError: an MJCF that does not compile, members or threads below one, members without
            a `rng`, a planning model with another state or another control step.
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
        # The dtype of the environment's observations, so that rewards are computed from the same
        # numbers.
        self._dtype = np.float64 if task.gymnasium else np.float32
        self._gust = np.asarray(task.process_noise, dtype=float)
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
        task.observation(Physics(self._data.qpos, self._data.qvel, recorder))
        self._uses_sensors = recorder.accessed  # if not, rollouts do not record them

    @property
    def state_size(self) -> int:
        """S."""
        return self._state_size

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """One random number a degree of freedom in a control step, or none."""
        return self._gust.shape

    @property
    def control_step(self) -> float:
        """Seconds between two actions."""
        return self.model.opt.timestep * self.frame_skip

    def state(
        self, qpos: np.ndarray, qvel: np.ndarray, *, mocap_pos: np.ndarray | None = None
    ) -> Float[Tensor, S]:
        """The state (S,) of measured positions (nq,) and velocities (nv,), at rest otherwise.

        Raises ValueError for other shapes or numbers that are not finite.
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
        """Not supported: an observation does not hold the whole state of the physics.

        Raises ValueError, always; `state` makes one from positions and velocities.
        """
        raise ValueError(
            f"{self.task.name}: the simulator starts from the whole physics, which an observation "
            "does not hold; give it the environment's state, or Simulator.state(qpos, qvel)"
        )

    def decode(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead O"]:
        """Observations of states, float32, as the first member sees them."""
        rows = state.reshape(-1, state.shape[-1]).numpy(force=True)
        obs = self._decode(rows, members=1).astype(self._dtype)
        return torch.from_numpy(obs).to(state.device).reshape(*state.shape[:-1], obs.shape[-1])

    def step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        *,
        noise: Float[Tensor, "E B *noise_shape"] | None,
    ) -> Step:
        """One control step of each member; states that diverge become NaN.

        `noise` drives the task's process noise, where it has one: (E, B, nv), else (E, B, 0).
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
        gusts: Any = 0.0
        if noise is not None and self._gust.size:
            gusts = self._gust * noise.reshape(-1, self._gust.size).numpy(force=True)
        after, before, obs = self.observed_step(rows, moves, gusts=gusts, members=self.members)
        before, obs = before.astype(self._dtype), obs.astype(self._dtype)
        reward, ended = self.reward(before, moves, obs), self.terminated(obs)
        return Step(
            torch.from_numpy(after).to(state.device).reshape(*lead, size),
            torch.from_numpy(np.asarray(reward)).to(state.device).reshape(lead),
            torch.from_numpy(np.asarray(ended)).to(state.device).reshape(lead),
        )

    def unroll(
        self,
        state: Float[Tensor, S],
        actions: Float[Tensor, "N H A"],
        *,
        particles: int = 1,
        noise: Float[Tensor, "H P *noise_shape"] | None = None,
        reward: RewardFn | None = None,
        terminated: TerminatedFn | None = None,
    ) -> Unrolled:
        """All candidates from one state over the whole horizon, in one native call.

        Particle p belongs to member p // (P / E). `noise` is standard normal, (H, P, nv),
        and the same for every candidate; None leaves process noise out.

        Raises ValueError for wrong shapes, or particles that are not a multiple of the members.
        """
        if particles < 1 or particles % self.members:
            raise ValueError(
                f"particles must be a positive multiple of the {self.members} members, "
                f"got {particles}"
            )
        start, moves = state.numpy(force=True), actions.numpy(force=True)
        draws = None if noise is None else noise.numpy(force=True)
        physics, bad = self._roll(start, moves, particles, draws)
        obs = self.task.observation(physics).astype(self._dtype)
        plans = moves[None] if particles == 1 else np.broadcast_to(moves, (particles, *moves.shape))
        before, after = obs[:, :, :-1], obs[:, :, 1:]
        earn: Callable[..., Any] = reward or self.reward
        gain = np.asarray(earn(before, plans, after))
        ends: Callable[..., Any] = terminated or self.terminated
        # A task that never ends has a termination named `never`, which is not called.
        endless = getattr(ends, "__name__", "") == "never"
        ended = None if endless else np.asarray(ends(after))
        earned, device = torch.from_numpy(gain), state.device
        if device.type != "cpu":
            earned = earned.to(device)
        return Unrolled(
            earned,
            None if ended is None else torch.from_numpy(ended).to(device),
            None if bad is None else torch.from_numpy(~bad).to(device),
        )

    def smooth(
        self,
        state: Float[Tensor, S],
        *,
        action_repeat: int = 1,
        reward: RewardFn | None = None,
    ) -> SmoothSimulator:
        """Dynamics and cost from a state with derivatives, for `planners.ILQR`.

        Raises ValueError for several members, or a task of gymnasium's.
        """
        return SmoothSimulator(self, state, action_repeat=action_repeat, reward=reward)

    def trace(
        self, state: Float[Tensor, S], actions: Float[Tensor, "N H A"], sensors: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Paths of sensors under plans carried out by the first member: name -> (N, H + 1, d).

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
        gusts: np.ndarray | float = 0.0,
        members: int = 1,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A control step: next states (n, S), observations (n, O) before and after, in float64.

        From states (n, S) and actions (n, A), the first `members` members' one after another,
        under forces `gusts` (n, nv) in N or N·m. States that diverge become NaN.
        """
        before = self._decode(rows, members)
        batch = self._batch(len(rows) // members, members)
        batch.state[:] = rows
        batch.ctrl = self._offset + self._scale * moves
        if self._gust.size:  # the state holds the environment's last gust, which must not persist
            batch.qfrc_applied = gusts
        stage = _SENSOR_STAGE if self._uses_sensors and not self.task.gymnasium else _NO_STAGE
        bad = _guarded(batch, lambda: batch.step(nstep=self.frame_skip, stage=stage))
        after = batch.state.copy()
        if bad is not None:
            after[bad] = np.nan
        return after, before, self._observe(batch)

    # From here on numpy only: on arrays of this size its calls cost a third of torch's.

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
        # Sensors recorded at a substep are those of the state before it: one substep more shows
        # the last state's.
        with_sensors, lagging = with_sensors or self._uses_sensors, self.task.gymnasium
        substeps = horizon * skip + (with_sensors and not lagging)
        gusty = self._gust.size > 0  # the state holds the last gust, which must not persist
        spec, width = (_CTRL | _FORCE, size + model.nv) if gusty else (_CTRL, size)
        inputs = np.empty((particles, count, substeps, width))
        held = inputs[:, :, : horizon * skip].reshape(particles, count, horizon, skip, width)
        held[..., :size] = (self._offset + self._scale * moves)[:, :, None]
        if gusty:
            held[..., size:] = 0.0
            if draws is not None:
                held[..., size:] = (self._gust * draws[:horizon]).swapaxes(0, 1)[:, None, :, None]
        if substeps > horizon * skip:
            inputs[:, :, -1] = inputs[:, :, -2]

        rows = len(batch.state)
        out: dict[Any, np.ndarray] = {_MOTION: np.empty((rows, substeps, model.nq + model.nv))}
        if with_sensors:
            shape = getattr(self._data, self._field).shape
            out[self._field] = np.empty((rows, substeps, *shape))
        batch.state[:] = state
        flat = inputs.reshape(rows, substeps, width)
        bad = _guarded(batch, lambda: batch.rollout(substeps, flat, spec, (*out,), out=out))

        motion = np.empty((particles, count, horizon + 1, model.nq + model.nv))
        motion[:, :, 0] = state[1 : 1 + model.nq + model.nv]  # behind the time
        recorded = out[_MOTION].reshape(particles, count, substeps, -1)
        motion[:, :, 1:] = recorded[:, :, skip - 1 : horizon * skip : skip]
        sensed = None
        if with_sensors:
            sensed = out[self._field].reshape(particles, count, substeps, -1)
            if lagging:
                last = sensed[:, :, skip - 1 :: skip]
                sensed = np.concatenate([sensed[:, :, :1], last], axis=2)
            else:
                sensed = sensed[:, :, ::skip]
        views = {} if sensed is None else self._views(sensed)
        physics = Physics(motion[..., : model.nq], motion[..., model.nq :], views)
        return physics, None if bad is None else bad.reshape(particles, count)

    def _batch(self, count: int, members: int) -> Batch:
        """`count` simulations of each member, member by member."""
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
        """Observations (n, O) of states (n, S), as the first `members` members see them."""
        batch = self._batch(len(rows) // members, members)
        batch.state[:] = rows
        if self._uses_sensors:
            batch.bind(self._field)  # must precede the call that fills it
            _guarded(batch, lambda: batch.forward(stage=_SENSOR_STAGE))
        return self._observe(batch)

    def _observe(self, batch: Batch) -> np.ndarray:
        """Observations (n, O) of the present states of a batch, a copy."""
        views = {}
        if self._uses_sensors:
            views = self._views(batch.bind(self._field).reshape(len(batch.state), -1))
        physics = Physics(batch.bind("qpos"), batch.bind("qvel"), views)
        return np.array(self.task.observation(physics))

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
    """Run a call on the batch; which simulations diverged or failed, (n,), or None if none did."""
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
