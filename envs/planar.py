"""Small tasks in a plane whose observations are pictures, as batched functions.

Their states have a few numbers, so a learned representation can be compared with the truth. Steps
and pictures are array-API functions of any number of states, on numpy or torch, so a data set of
random transitions is made in one call (`PlanarTask.triples`). No OpenGL is needed.

The four tasks `pc3-...` are those of E2C (Watter et al. 2015, arXiv 1506.07365) with the constants
of PCC (Levine et al. 2020, arXiv 1909.01506) and PC3 (Shu et al. 2020, "Predictive coding for
locally-linear control", ICML), read from PC3's public code; `two-rooms` follows the dot and wall of
PLDM (Sobal et al. 2025, arXiv 2502.14819). What differs:

- edges are anti-aliased, and places are not rounded to whole pixels;
- `pc3-planar` measures the distance to its goal, where PC3's code adds up signed differences;
  random actions need not be nearly whole numbers; an obstacle is at column 12.5, as in PCC's code,
  where a version of PC3's has 13.5;
- random actions of the pendulum are within 0.65 N·m, as in control, and not 1 N·m;
- in `two-rooms` the dot starts in the left room, stops at a wall without noise, and is a disc.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from array_api_compat import array_namespace, device
from gymnasium.spaces import Box

from envs.raster import Grid, box, capsule, circle, in_blocks, paint
from envs.task import Array

WHITE = 255.0


class Triples(NamedTuple):
    """Transitions from random states by random actions."""

    obs: np.ndarray  # (N, H, W, C) uint8
    action: np.ndarray  # (N, A) in [-1, 1]
    next_obs: np.ndarray  # (N, H, W, C) uint8
    state: np.ndarray  # (N, S)
    next_state: np.ndarray  # (N, S)


@dataclass(frozen=True)
class PlanarTask:
    """A task whose observations are pictures of its state.

    An action is in [-1, 1]^A; `step` scales it and clips it to that box. `step`, `picture` and
    `reached` are in array-API style; states have any leading dimensions.
    """

    name: str
    summary: str
    """One line for listings."""
    action_size: int
    step: Callable[[Array, Array], Array]
    """`step(state (..., S), action (..., A)) -> (..., S)`."""
    picture: Callable[[Array], Array]
    """`picture(state (N, S)) -> (N, H, W, channels)` uint8; `frames` calls it in blocks."""
    size: int
    """H and W of a picture in pixels."""
    channels: int
    pictures: int
    """Consecutive pictures in an observation: 2 where one does not show velocities."""
    states: Callable[[np.random.Generator, int], np.ndarray]
    """`states(rng, count) -> (count, S)`: random states, of which data sets are made."""
    initial: Callable[[np.random.Generator], np.ndarray]
    """`initial(rng) -> (S,)`: where an episode begins, at rest."""
    goal: tuple[float, ...]
    """State to reach where no other is asked for."""
    draw_goal: Callable[[np.random.Generator], np.ndarray]
    """`draw_goal(rng) -> (S,)`: a goal of the published protocol."""
    reached: Callable[[Array, Array], Array]
    """`reached(state (..., S), goal (..., S)) -> (...)` bool."""
    episode_steps: int
    plan_steps: int
    """Steps that a planner looks ahead: PC3's; of `two-rooms` a choice of ours."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an observation."""
        return (self.size, self.size, self.channels * self.pictures)

    def frames(self, state: Array) -> Array:
        """Pictures (..., H, W, channels) uint8 of states (..., S), on the states' device."""
        xp = array_namespace(state)
        if state.shape[-1] != len(self.goal):
            raise ValueError(
                f"{self.name}: want states (..., {len(self.goal)}), got {tuple(state.shape)}"
            )
        rows = xp.reshape(xp.astype(state, xp.float32), (-1, state.shape[-1]))
        seen = in_blocks(self.picture, rows, self.size**2)
        return xp.reshape(seen, (*state.shape[:-1], *seen.shape[1:]))

    def observation(self, before: Array, state: Array) -> Array:
        """Observations (..., H, W, C) uint8 of states (..., S) and those one step before."""
        if self.pictures == 1:
            return self.frames(state)
        xp = array_namespace(state)
        return xp.concat([self.frames(before), self.frames(state)], axis=-1)

    def triples(self, rng: np.random.Generator, count: int) -> Triples:
        """Transitions from `count` random states by uniformly random actions.

        With two pictures a random action leads to each state from one step before (PC3). Raises
        ValueError for a count below 1.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count!r}")
        before = self.states(rng, count)
        actions = rng.uniform(-1, 1, (2, count, self.action_size))
        state = before if self.pictures == 1 else self.step(before, actions[0])
        after = self.step(state, actions[1])
        return Triples(
            self.observation(before, state),
            actions[1].astype(np.float32),
            self.observation(state, after),
            state.astype(np.float32),
            after.astype(np.float32),
        )


class PlanarEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A `PlanarTask` as an environment.

    The reward is 1 for each step that ends in the goal region, and 0 otherwise; an episode never
    terminates. `info` has the true "state" (S,) and the "goal" (S,), both float32. The goal is
    `goal`, by default the task's; `reset(options={"goal": state})` sets another for one episode.

    Raises ValueError for another render mode and for a goal that is not (S,).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        task: PlanarTask,
        render_mode: str | None = None,
        goal: tuple[float, ...] | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.task, self.render_mode = task, render_mode
        self.observation_space = Box(0, 255, task.shape, np.uint8)
        self.action_space = Box(-1.0, 1.0, (task.action_size,), np.float32)
        self._own_goal = self._goal = self._checked(task.goal if goal is None else goal)
        self._before: np.ndarray | None = None
        self._state: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode at rest."""
        super().reset(seed=seed)
        asked = (options or {}).get("goal")
        self._goal = self._own_goal if asked is None else self._checked(asked)
        self._before = self._state = self.task.initial(self.np_random)
        return self._observed(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step.

        Raises ValueError for an action that is not finite or not (A,), ResetNeeded before the
        first reset.
        """
        if self._state is None:
            raise gymnasium.error.ResetNeeded(f"{self.task.name}: call reset() before step()")
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise ValueError(
                f"{self.task.name}: want a finite action of shape {self.action_space.shape}, "
                f"got {action.tolist()}"
            )
        self._before, self._state = self._state, self.task.step(self._state, action)
        reward = float(self.task.reached(self._state, self._goal))
        return self._observed(), reward, False, False, self._info()

    def goal_observation(self) -> np.ndarray:
        """The observation (H, W, C) of standing still at the current goal."""
        return self.task.observation(self._goal, self._goal)

    def render(self) -> np.ndarray | None:
        """The picture enlarged, (h, w, 3) uint8; None without a `render_mode`."""
        if self.render_mode is None or self._state is None:
            return None
        seen = self.task.frames(self._state)
        seen = seen.max(-1) if self.task.channels == 1 else np.maximum(seen[..., 0], seen[..., 1])
        times = -(-240 // self.task.size)
        large = np.kron(seen, np.ones((times, times), np.uint8))
        return np.repeat(large[..., None], 3, axis=-1)

    def _observed(self) -> np.ndarray:
        return self.task.observation(self._before, self._state)

    def _info(self) -> dict[str, Any]:
        assert self._state is not None
        return {"state": self._state.astype(np.float32), "goal": self._goal.astype(np.float32)}

    def _checked(self, goal: Any) -> np.ndarray:
        found = np.asarray(goal, np.float64)
        if found.shape != (len(self.task.goal),) or not np.isfinite(found).all():
            raise ValueError(
                f"{self.task.name}: goal must be {len(self.task.goal)} finite numbers, got {goal!r}"
            )
        return found


def planar_env(name: str, **kwargs: Any) -> PlanarEnv:
    """The environment of one of `PLANAR` without its time limit; gymnasium's entry point."""
    return PlanarEnv(PLANAR[name], **kwargs)


# --- planar navigation: states (row, column) in pixels

FIELD = 40
OBSTACLES = ((20.5, 5.5), (20.5, 12.5), (20.5, 27.5), (20.5, 35.5), (10.5, 20.5), (30.5, 20.5))
"""Rows and columns of the centres of the obstacles."""
OBSTACLE = 2.5  # radius
AGENT = 1.5  # half the side of the square that must not contain the centre of an obstacle
STRIDE = 3.0  # at action 1, along each axis
CORNERS = ((37.0, 37.0), (37.0, 3.0), (3.0, 37.0))


def navigate(state: Array, action: Array) -> Array:
    """Move by up to 3 pixels along each axis; a move onto an obstacle is not made."""
    xp = array_namespace(state)
    moved = xp.clip(state + STRIDE * xp.clip(action, -1.0, 1.0), AGENT, FIELD - AGENT)
    return xp.where(_blocked(moved)[..., None], state, moved)


def _blocked(place: Array) -> Array:
    """Whether places (..., 2) have the centre of an obstacle within `AGENT` on both axes."""
    xp = array_namespace(place)
    centres = xp.asarray(OBSTACLES, dtype=place.dtype, device=device(place))
    away = xp.max(xp.abs(place[..., None, :] - centres), axis=-1)
    return xp.any(away <= AGENT, axis=-1)


def _field(state: Array) -> Array:
    grid = Grid(FIELD, FIELD)
    agent = box(grid, _flip(state), (1.0, 1.0))
    return paint(_like(_obstacles(), state), [(agent, WHITE)])[..., None]


@cache
def _obstacles() -> np.ndarray:
    grid, centres = Grid(FIELD, FIELD), np.array(OBSTACLES, np.float32)
    shapes = [(circle(grid, _flip(centre), OBSTACLE), WHITE) for centre in centres]
    return paint(np.zeros((FIELD, FIELD), np.float32), shapes)


def _free_places(rng: np.random.Generator, count: int) -> np.ndarray:
    def draw(n: int) -> np.ndarray:
        return rng.uniform(AGENT, FIELD - AGENT, (n, 2))

    return _accepted(draw, lambda place: ~_blocked(place), count)


# --- pendulum: states (θ rad, θ velocity rad/s), θ = 0 is up, clockwise

GRAVITY = 9.81  # m/s²
MASS, LENGTH = 0.1, 0.5  # kg, m
TORQUE = 0.65  # N·m at action 1
SPIN = 3 * math.pi  # rad/s at most
CONTROL = 0.02  # s, a step
UPRIGHT = math.pi / 6  # rad


def swing(state: Array, action: Array) -> Array:
    """A pendulum 0.02 s later: θ'' = (m g l sin θ - torque) / (m l² / 3), as in PCC."""
    xp = array_namespace(state)
    torque = TORQUE * xp.clip(action[..., 0], -1.0, 1.0)

    def rates(s: Array) -> Array:
        lever = MASS * GRAVITY * LENGTH * xp.sin(s[..., 0])
        return xp.stack([s[..., 1], (lever - torque) / (MASS * LENGTH**2 / 3)], axis=-1)

    after = _runge_kutta(rates, state)
    return xp.stack([_wrapped(after[..., 0]), xp.clip(after[..., 1], -SPIN, SPIN)], axis=-1)


def _rod(state: Array) -> Array:
    xp = array_namespace(state)
    size = 48
    angle, middle = state[..., 0], xp.zeros_like(state[..., :2]) + size / 2
    tip = middle + (size / 2 - 2) * xp.stack([xp.sin(angle), -xp.cos(angle)], axis=-1)
    rod = capsule(Grid(size, size), middle, tip, 2.0)
    return paint(xp.zeros_like(rod[0]), [(rod, WHITE)])[..., None]


def _any_swing(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform(-1, 1, (count, 2)) * (math.pi, SPIN)


# --- cart-pole: states (θ rad, θ velocity rad/s, place m, velocity m/s), θ = 0 is up

CART = 1.0  # kg
FORCE = 10.0  # N at action 1
RAIL = 2.4  # m, to either side, in pictures and random states
BALANCED = math.pi / 10  # rad
TILT = math.pi / 8  # rad, of starts


def balance(state: Array, action: Array) -> Array:
    """A cart-pole 0.02 s later (Barto, Sutton and Anderson 1983, without friction)."""
    xp = array_namespace(state)
    force = FORCE * xp.clip(action[..., 0], -1.0, 1.0)
    both, pole = CART + MASS, MASS * LENGTH

    def rates(s: Array) -> Array:
        sin, cos, spin = xp.sin(s[..., 0]), xp.cos(s[..., 0]), s[..., 1]
        push = force + pole * spin * spin * sin
        turn = (both * GRAVITY * sin - cos * push) / (4 / 3 * both * LENGTH - pole * cos * cos)
        return xp.stack([spin, turn, s[..., 3], (push - pole * turn * cos) / both], axis=-1)

    after = _runge_kutta(rates, state)
    return xp.stack(
        [
            _wrapped(after[..., 0]),
            xp.clip(after[..., 1], -2 * math.pi, 2 * math.pi),
            after[..., 2],
            xp.clip(after[..., 3], -6.0, 6.0),
        ],
        axis=-1,
    )


def _cart(state: Array) -> Array:
    xp = array_namespace(state)
    size, half = 80, (8.0, 4.0)
    angle, height = state[..., 0], size - 2 * half[1] - 2
    across = size / 2 + state[..., 2] / RAIL * (size / 2 - half[0])
    base = xp.stack([across, xp.zeros_like(across) + height], axis=-1)
    tip = base + 0.65 * size * xp.stack([xp.sin(angle), -xp.cos(angle)], axis=-1)
    grid = Grid(size, size)
    # of one colour, so the nearer shape counts
    seen = xp.minimum(box(grid, base, half), capsule(grid, base, tip, 3.0))
    return paint(xp.zeros_like(seen[0]), [(seen, WHITE)])[..., None]


def _any_balance(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform(-1, 1, (count, 4)) * (BALANCED, 2 * math.pi, RAIL, 6.0)


# --- two rooms: states (x, y) in pixels, y downwards

SIDE = 65
INSIDE = (5.0, 60.0)  # the free square
WALL = (31.0, 34.0)  # x
DOOR = (6.0, 15.0)  # y
PACE = 2.45  # pixels at action 1, along each axis
DOT = 1.5  # radius
SOLID = ((WALL[0], INSIDE[0] - 1, WALL[1], DOOR[0]), (WALL[0], DOOR[1], WALL[1], INSIDE[1] + 1))
"""Left, top, right, bottom of the two parts of the wall."""
_GAP = 1e-2  # pixels by which walls are thicker than shown, more than any rounding error


def walk(state: Array, action: Array) -> Array:
    """Move by up to 2.45 pixels along each axis, as far as the walls."""
    xp = array_namespace(state)
    low, high = INSIDE[0] + _GAP, INSIDE[1] - _GAP
    move = xp.clip(state + PACE * xp.clip(action, -1.0, 1.0), low, high) - state
    part = xp.ones_like(state[..., 0])
    for left, top, right, bottom in SOLID:
        part = xp.minimum(part, _until(state, move, (left, top), (right, bottom)))
    return state + part[..., None] * move


def _until(state: Array, move: Array, low: tuple[float, ...], high: tuple[float, ...]) -> Array:
    """The part (...) of moves (..., 2) that stays `_GAP` away from a box."""
    xp = array_namespace(state)
    speed = xp.where(xp.abs(move) < 1e-9, xp.ones_like(move) * 1e-9, move)
    times = [
        (xp.asarray(corner, dtype=state.dtype, device=device(state)) + gap - state) / speed
        for corner, gap in ((low, -_GAP), (high, _GAP))
    ]
    enter = xp.max(xp.minimum(*times), axis=-1)
    leave = xp.min(xp.maximum(*times), axis=-1)
    # A rounding error may have put a dot that had stopped a little further.
    least = -_GAP / xp.clip(xp.sqrt(xp.sum(move * move, axis=-1)), min=1e-9)
    meets = (enter <= leave) & (enter >= least) & (enter <= 1) & (leave > 0)
    return xp.where(meets, xp.clip(enter, min=0.0), xp.ones_like(enter))


def _rooms(state: Array) -> Array:
    xp = array_namespace(state)
    dot = circle(Grid(SIDE, SIDE), state, DOT)
    dots = paint(xp.zeros_like(dot[0]), [(dot, WHITE)])
    return xp.stack([dots, xp.broadcast_to(_like(_walls(), dots), dots.shape)], axis=-1)


@cache
def _walls() -> np.ndarray:
    grid, blank = Grid(SIDE, SIDE), np.zeros((SIDE, SIDE), np.float32)

    def block(left: float, top: float, right: float, bottom: float) -> np.ndarray:
        middle = np.array([left + right, top + bottom], np.float32) / 2
        return box(grid, middle, ((right - left) / 2, (bottom - top) / 2))

    low, high = INSIDE[0] - 0.5, INSIDE[1] + 0.5
    border = np.abs(block(low, low, high, high)) - 0.5  # a line of one pixel
    return paint(blank, [(shape, WHITE) for shape in (border, *(block(*part) for part in SOLID))])


def _in_rooms(rng: np.random.Generator, count: int) -> np.ndarray:
    def draw(n: int) -> np.ndarray:
        return rng.uniform(INSIDE[0] + _GAP, INSIDE[1] - _GAP, (n, 2))

    def free(place: np.ndarray) -> np.ndarray:
        inside = (place[:, 0] >= WALL[0] - _GAP) & (place[:, 0] <= WALL[1] + _GAP)
        return ~inside | ((place[:, 1] > DOOR[0] + _GAP) & (place[:, 1] < DOOR[1] - _GAP))

    return _accepted(draw, free, count)


# ---


def _near(distance: float) -> Callable[[Array, Array], Array]:
    def reached(state: Array, goal: Array) -> Array:
        xp = array_namespace(state)
        away = state - goal
        return xp.sqrt(xp.sum(away * away, axis=-1)) <= distance

    return reached


def _upright(most: float) -> Callable[[Array, Array], Array]:
    def reached(state: Array, goal: Array) -> Array:
        return array_namespace(state).abs(_wrapped(state[..., 0] - goal[..., 0])) < most

    return reached


def _runge_kutta(rates: Callable[[Array], Array], state: Array, *, steps: int = 2) -> Array:
    """The state after `CONTROL` s, by classical Runge-Kutta steps."""
    h = CONTROL / steps
    for _ in range(steps):
        a = rates(state)
        b = rates(state + h / 2 * a)
        c = rates(state + h / 2 * b)
        d = rates(state + h * c)
        state = state + h / 6 * (a + 2 * b + 2 * c + d)
    return state


def _wrapped(angle: Array) -> Array:
    """The angle in [-π, π)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _flip(point: Array) -> Array:
    """(x, y) from (row, column)."""
    return array_namespace(point).flip(point, axis=-1)


def _like(picture: np.ndarray, other: Array) -> Array:
    """The picture as an array of the other's kind, dtype and device."""
    return array_namespace(other).asarray(picture, dtype=other.dtype, device=device(other))


def _accepted(
    draw: Callable[[int], np.ndarray], accept: Callable[[np.ndarray], np.ndarray], count: int
) -> np.ndarray:
    """The first `count` of draws that are accepted."""
    found = np.empty((0, 2))
    while len(found) < count:
        drawn = draw(2 * (count - len(found)))
        found = np.concatenate([found, drawn[accept(drawn)]])
    return found[:count]


_PENDULUM: dict[str, Any] = {
    "action_size": 1,
    "step": swing,
    "picture": _rod,
    "size": 48,
    "channels": 1,
    "pictures": 2,
    "states": _any_swing,
    "goal": (0.0, 0.0),
    "draw_goal": lambda rng: np.zeros(2),
    "reached": _upright(UPRIGHT),
    "episode_steps": 100,
    "plan_steps": 10,
}

PLANAR: Mapping[str, PlanarTask] = {
    task.name: task
    for task in (
        PlanarTask(
            name="pc3-planar",
            summary="move a square past six obstacles to a corner; PC3's planar task, 40 x 40",
            action_size=2,
            step=navigate,
            picture=_field,
            size=FIELD,
            channels=1,
            pictures=1,
            states=_free_places,
            initial=lambda rng: rng.uniform(3.0, 7.0, 2),
            goal=CORNERS[0],
            draw_goal=lambda rng: np.array(CORNERS[rng.integers(len(CORNERS))]),
            reached=_near(2.0),
            episode_steps=40,
            plan_steps=10,
        ),
        PlanarTask(
            name="pc3-pendulum-balance",
            summary="keep a pendulum upright; PC3's pendulum, two pictures of 48 x 48, 50 Hz",
            initial=lambda rng: np.zeros(2),
            **_PENDULUM,
        ),
        PlanarTask(
            name="pc3-pendulum-swingup",
            summary="swing a pendulum up; PC3's pendulum, two pictures of 48 x 48, 50 Hz",
            initial=lambda rng: np.array([rng.uniform(0.9, 0.95) * math.pi, 0.0]),
            **_PENDULUM,
        ),
        PlanarTask(
            name="pc3-cartpole",
            summary="balance a pole on a cart; PC3's cart-pole, two pictures of 80 x 80, 50 Hz",
            action_size=1,
            step=balance,
            picture=_cart,
            size=80,
            channels=1,
            pictures=2,
            states=_any_balance,
            initial=lambda rng: np.array([rng.uniform(-TILT, TILT), 0.0, 0.0, 0.0]),
            goal=(0.0, 0.0, 0.0, 0.0),
            draw_goal=lambda rng: np.zeros(4),
            reached=_upright(BALANCED),
            episode_steps=50,
            plan_steps=5,
        ),
        PlanarTask(
            name="two-rooms",
            summary="move a dot through a door into the other room; dot and walls, 65 x 65",
            action_size=2,
            step=walk,
            picture=_rooms,
            size=SIDE,
            channels=2,
            pictures=1,
            states=_in_rooms,
            initial=lambda rng: rng.uniform((8.0, 8.0), (28.0, 57.0)),
            goal=(50.0, 45.0),
            draw_goal=lambda rng: rng.uniform((37.0, 8.0), (57.0, 57.0)),
            reached=_near(math.sqrt(2)),
            episode_steps=200,
            plan_steps=20,
        ),
    )
}
"""The tasks by name."""
