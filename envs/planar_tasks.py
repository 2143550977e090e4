"""The planar tasks: those of E2C, PCC and PC3, and two rooms.

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
from functools import cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from envs.planar import PlanarEnv, PlanarTask
from envs.raster import Grid, box, capsule, circle, paint
from envs.task import Array

WHITE = 255.0

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


def planar_env(name: str, **kwargs: Any) -> PlanarEnv:
    """The environment of one of `PLANAR` without its time limit; gymnasium's entry point."""
    return PlanarEnv(PLANAR[name], **kwargs)
