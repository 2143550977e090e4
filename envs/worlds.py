"""Finite worlds from the literature.

Each function returns a `FiniteMDP`; the first line of its docstring appears in listings. `WORLDS`
maps names to functions, and `envs.make(name)` builds an environment. The free cells of a grid are
its states, numbered row by row. Actions of grids are up, right, down, left unless stated otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from scipy import sparse

from envs.tabular import FiniteMDP, Layout
from envs.wet_chicken import RIVER, SPEED, TURBULENCE

_FOUR = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
"""Changes of row and column: up, right, down, left."""
_KING = np.concatenate([_FOUR, [(-1, 1), (1, 1), (1, -1), (-1, -1), (0, 0)]])
"""`_FOUR`, then the diagonals, then no move."""

_DYNA = (
    ".......#G",
    "..#....#.",
    "S.#....#.",
    "..#......",
    ".....#...",
    ".........",
)
_ROOMS = (
    "#############",
    "#.....#.....#",
    "#.....#.....#",
    "#...........#",
    "#.....#.....#",
    "#.....#.....#",
    "##.####.....#",
    "#.....###.###",
    "#.....#.....#",
    "#.....#.....#",
    "#...........#",
    "#.....#.....#",
    "#############",
)
_LAKES = {
    4: ("SFFF", "FHFH", "FFFH", "HFFG"),
    8: (
        "SFFFFFFF",
        "FFFFFFFF",
        "FFFHFFFF",
        "FFFFFHFF",
        "FFFHFFFF",
        "FHHFFFHF",
        "FHFFHFHF",
        "FFFHFFFG",
    ),
}


def chain(states: int = 5, *, slip: float = 0.2, discount: float = 0.95) -> FiniteMDP:
    """Move along a chain to a reward of 10 at its end, or back to one of 2; actions slip.

    Dearden, Friedman and Russell 1998, "Bayesian Q-learning", as in Strens 2000. Action 0 moves one
    state on with reward 0; in the last state it stays there with reward 10. Action 1 moves to the
    first state with reward 2. With probability `slip` an action has the effect of the other. It
    never terminates. Raises ValueError for fewer than 2 states or slip outside [0, 1].
    """
    _require(states >= 2, f"chain: states must be at least 2, got {states!r}")
    _require(0 <= slip <= 1, f"chain: slip must lie in [0, 1], got {slip!r}")
    here = np.arange(states)
    on, back = np.minimum(here + 1, states - 1), np.zeros_like(here)
    targets = np.stack([np.stack([on, back], -1), np.stack([back, on], -1)], 1)
    arrival = sparse.lil_array((states * 2, states))
    arrival[:, 0] = 2.0
    arrival[-2:, -1] = 10.0
    layout = Layout(
        walls=np.zeros((1, states), dtype=bool),
        cells=np.stack([back, here], -1),
        moves=_same_moves(np.array([(0, 1), (0, -1)]), states),
    )
    return FiniteMDP(
        _transitions(targets, [1 - slip, slip]), arrival.tocsr(), discount, 0, [], "chain", layout
    )


def garnet(
    states: int,
    actions: int,
    branching: int,
    *,
    rng: np.random.Generator,
    ends: int = 0,
    discount: float = 0.95,
) -> FiniteMDP:
    """A random MDP (Archibald, McKinnon and Thomas 1995; rewards of Bhatnagar et al. 2009).

    Each action in each state has `branching` possible next states; their probabilities are the
    distances between uniformly random cuts of [0, 1]. Expected rewards are standard normal. The
    last `ends` states are terminal; with 0 it never terminates. An episode starts in any other
    state, with equal probabilities. Raises ValueError unless 1 <= branching <= states,
    actions >= 1 and 0 <= ends < states.
    """
    _require(
        1 <= branching <= states,
        f"garnet: branching must lie in 1..{states}, the states, got {branching!r}",
    )
    _require(actions >= 1, f"garnet: actions must be at least 1, got {actions!r}")
    _require(0 <= ends < states, f"garnet: ends must lie in 0..{states - 1}, got {ends!r}")
    live = np.arange(states) < states - ends
    pairs = states * actions
    targets = np.stack([rng.choice(states, branching, replace=False) for _ in range(pairs)])
    cuts = np.sort(rng.random((pairs, branching - 1)), axis=1)
    probabilities = np.diff(cuts, prepend=0.0, append=1.0)
    shape = (states, actions, branching)
    return FiniteMDP(
        _transitions(targets.reshape(shape), probabilities.reshape(shape)),
        rng.standard_normal((states, actions)),
        discount,
        live / live.sum(),
        ~live,
        "garnet",
    )


def cliff_walk(*, slippery: bool = False, discount: float = 1.0) -> FiniteMDP:
    """Walk to a goal along a cliff; a fall costs 100 and leads back to the start.

    Sutton and Barto 2018, example 6.6; gymnasium's CliffWalking-v1, cell for cell. From the lower
    left to the lower right corner, each step -1; a step onto the cliff between them costs 100 and
    leads back to the start. The cliff's ten cells are states that no action reaches. If
    slippery, a move goes in the intended direction with probability 1/3 and to each side with 1/3;
    a fall and a step can then lead to the same state, so rewards are expected rewards.
    """
    start, goal = 36, 47
    hazards = np.zeros((4, 12), dtype=bool)
    hazards[3, 1:-1] = True
    turning = (1 / 3, 1 / 3, 0.0, 1 / 3) if slippery else (1.0,)
    targets, probabilities, cells = _grid_moves(np.zeros((4, 12), dtype=bool), turning=turning)
    falls = hazards.ravel()[targets]
    return FiniteMDP(
        _transitions(np.where(falls, start, targets), probabilities),
        np.where(falls, -100.0, -1.0) @ probabilities,
        discount,
        start,
        [goal],
        "cliff-walk",
        Layout(np.zeros((4, 12), dtype=bool), cells, _same_moves(_FOUR, 48), hazards),
    )


def frozen_lake(size: int = 4, *, slippery: bool = True, discount: float = 0.99) -> FiniteMDP:
    """Cross slippery ice to a goal that pays 1, past holes that end the episode.

    gymnasium's FrozenLake-v1 of `size` 4 or 8, cell for cell; actions left, down, right, up. The
    goal pays 1 and ends the episode, as holes do. If slippery, a move goes in the intended
    direction with probability 1/3 and to each side with 1/3. Raises ValueError for another size.
    """
    _require(size in _LAKES, f"frozen-lake: size must be 4 or 8, got {size!r}")
    lake = _letters(_LAKES[size])
    turning = (1 / 3, 1 / 3, 0.0, 1 / 3) if slippery else (1.0,)
    order = _FOUR[[3, 2, 1, 0]]
    targets, probabilities, cells = _grid_moves(
        np.zeros(lake.shape, bool), moves=order, turning=turning
    )
    goal = np.flatnonzero(lake.ravel() == "G")
    return FiniteMDP(
        _transitions(targets, probabilities),
        _rewards_on_arrival(goal, targets.shape),
        discount,
        0,
        np.isin(lake.ravel(), ["G", "H"]),
        "frozen-lake",
        Layout(np.zeros(lake.shape, bool), cells, _same_moves(order, lake.size), lake == "H"),
    )


def four_rooms(goal: tuple[int, int] = (7, 9), *, discount: float = 0.9) -> FiniteMDP:
    """Walk through hallways to a goal in another room that pays 1; moves are random.

    Sutton, Precup and Singh 1999, "Between MDPs and semi-MDPs", figure 2; 104 states. A move goes
    in the intended direction with probability 2/3, and in each other direction with 1/9. `goal` is
    a row and a column, counted from 0 with the outer walls; the default is the hallway to the lower
    right room. Arrival pays 1. An episode starts in any other cell. Raises ValueError for a goal in
    a wall.
    """
    walls = _letters(_ROOMS) == "#"
    inside = 0 <= goal[0] < walls.shape[0] and 0 <= goal[1] < walls.shape[1]
    _require(inside and not walls[goal], f"four-rooms: goal {goal} is not a free cell")
    return _maze("four-rooms", walls, None, goal, discount, turning=(2 / 3, 1 / 9, 1 / 9, 1 / 9))


def dyna_maze(*, discount: float = 0.95) -> FiniteMDP:
    """Walk around walls to a goal that pays 1.

    Sutton and Barto 2018, figure 8.2: 47 states.
    """
    letters = _letters(_DYNA)
    return _maze("dyna-maze", letters == "#", _find(letters, "S"), _find(letters, "G"), discount)


def blocking_maze(*, changed: bool = False, discount: float = 0.95) -> FiniteMDP:
    """Walk to a goal that pays 1, through a gap in a wall that later moves.

    Sutton and Barto 2018, figure 8.4: the gap is on the right, and if `changed` on the left. The
    book changes it after 1000 steps, as `envs.make("blocking-maze")` does. The 47 states are the
    cells that are free before or after the change.
    """
    return _gap_maze("blocking-maze", [0] if changed else [8], [0, 8], discount)


def shortcut_maze(*, changed: bool = False, discount: float = 0.95) -> FiniteMDP:
    """Walk to a goal that pays 1, around a wall in which a shorter way opens later.

    Sutton and Barto 2018, figure 8.5: a gap on the left, and if `changed` another on the right. The
    book changes it after 3000 steps, as `envs.make("shortcut-maze")` does. The 47 states are the
    cells that are free before or after the change.
    """
    return _gap_maze("shortcut-maze", [0, 8] if changed else [0], [0, 8], discount)


def deep_sea(
    size: int = 10,
    *,
    windy: bool = False,
    rng: np.random.Generator | None = None,
    discount: float = 1.0,
) -> FiniteMDP:
    """Dive through a grid; only going right in every step, each at a small cost, pays 1.

    Osband et al. 2019, "Deep exploration via randomized value functions"; as in bsuite. In
    each of `size` steps one moves down a row, and a column left by action 0 or right by action 1,
    which costs 0.01 / size. Going right in the last column pays 1. The optimal return is 0.99, and
    random exploration needs about 2^size episodes to find it. If windy, a move right fails with
    probability 1 / size (bsuite's noise on the last rewards is omitted). `rng` draws for each state
    which action goes right; without it action 1 does. States are row · size + column, and size² at
    the end. Raises ValueError for size below 2.
    """
    _require(size >= 2, f"deep-sea: size must be at least 2, got {size!r}")
    row, column = np.divmod(np.arange(size * size), size)
    over = size * size
    left = np.where(row == size - 1, over, (row + 1) * size + np.maximum(column - 1, 0))
    stay = np.where(row == size - 1, over, (row + 1) * size + column)
    right = np.where(row == size - 1, over, (row + 1) * size + np.minimum(column + 1, size - 1))
    targets = np.stack([np.stack([left, left], -1), np.stack([right, stay], -1)], 1)
    rewards = np.stack([np.zeros(over), (column == size - 1) - 0.01 / size], -1)
    moves = np.broadcast_to([(1, -1), (1, 1)], (over, 2, 2))
    if rng is not None:
        swap = rng.integers(2, size=over).astype(bool)
        for array in (targets, rewards):
            array[swap] = array[swap][:, ::-1]
        moves = np.where(swap[:, None, None], moves[:, ::-1], moves)
    fails = 1 / size if windy else 0.0
    end = np.full((1, 2, 2), over)
    return FiniteMDP(
        _transitions(np.concatenate([targets, end]), np.array([1 - fails, fails])),
        np.concatenate([rewards, np.zeros((1, 2))]),
        discount,
        0,
        [over],
        "deep-sea",
        Layout(
            walls=np.zeros((size, size), dtype=bool),
            cells=np.concatenate([np.stack([row, column], -1), [(-1, -1)]]),
            moves=np.concatenate([moves, np.zeros((1, 2, 2), dtype=int)]),
        ),
    )


def windy_grid(moves: int = 4, *, stochastic: bool = False, discount: float = 1.0) -> FiniteMDP:
    """Walk to a goal through wind that blows upwards, each step -1.

    Sutton and Barto 2018, example 6.5, and exercises 6.9 and 6.10. `moves` is 4, 8 with the
    diagonals (up right, down right, down left, up left), or 9 with staying last. The wind of the
    column that a move leaves shifts it upwards; if stochastic, wind that is not 0 is one cell less
    or one cell more with probability 1/3 each. Raises ValueError for other moves.
    """
    _require(moves in (4, 8, 9), f"windy-grid: moves must be 4, 8 or 9, got {moves!r}")
    wind = np.array([0, 0, 0, 1, 1, 1, 2, 2, 1, 0])
    shape = (7, len(wind))
    cells = np.argwhere(np.ones(shape, dtype=bool))
    column = cells[:, 1]
    gusts = np.array([0, -1, 1] if stochastic else [0])
    lift = wind[column][:, None] + gusts * (wind[column] > 0)[:, None]  # (S, K)
    to = np.repeat((cells[:, None] + _KING[:moves])[:, :, None], len(gusts), axis=2)
    to[..., 0] -= lift[:, None]
    to = np.clip(to, 0, np.array(shape) - 1)
    return FiniteMDP(
        _transitions(np.ravel_multi_index((to[..., 0], to[..., 1]), shape), 1 / len(gusts)),
        np.full((len(cells), moves), -1.0),
        discount,
        30,
        [37],
        "windy-grid",
        Layout(np.zeros(shape, dtype=bool), cells, _same_moves(_KING[:moves], len(cells))),
    )


def open_grid(size: int = 10, *, slip: float = 0.0, discount: float = 0.99) -> FiniteMDP:
    """Walk from the upper left to the lower right corner, without walls, each step -1.

    size² cells; with probability `slip` a move goes to the left or right of its direction instead.
    10⁶ states take a second or two to build. Without slip V* is -(1 - γᵈ) / (1 - γ) at d steps from
    the goal. Raises ValueError for size below 2 or slip outside [0, 1].
    """
    _require(size >= 2, f"open-grid: size must be at least 2, got {size!r}")
    _require(0 <= slip <= 1, f"open-grid: slip must lie in [0, 1], got {slip!r}")
    walls = np.zeros((size, size), dtype=bool)
    turning = (1 - slip, slip / 2, 0.0, slip / 2) if slip else (1.0,)
    targets, probabilities, cells = _grid_moves(walls, turning=turning)
    return FiniteMDP(
        _transitions(targets, probabilities),
        np.full((size * size, 4), -1.0),
        discount,
        0,
        [size * size - 1],
        "open-grid",
        Layout(walls, cells, _same_moves(_FOUR, size * size)),
    )


def wet_chicken(*, discount: float = 0.95) -> FiniteMDP:
    """Paddle close to a waterfall, where rewards are higher, without going over it.

    Hans and Udluft 2009, "Efficient uncertainty propagation for reinforcement learning with limited
    data": 5 × 5 cells of a river above the fall. The fall is at y = 5. The reward is y, and
    after going over the fall the canoe starts again at (0, 0). Actions: drift, hold (y - 1),
    paddle back (y - 2), right and left (x). The water adds 3 x / 5 and uniform turbulence within
    ±(3.5 - 3 x / 5) to y, which is rounded. States are 5 y + x. `envs.WetChicken` is the
    continuous version.
    """
    size, moves = RIVER, np.array([(0, 0), (-1, 0), (-2, 0), (0, 1), (0, -1)])
    y, x = np.divmod(np.arange(size * size), size)
    speed = SPEED * x / size
    spread = (TURBULENCE - speed)[:, None, None]
    middle = (y + speed)[:, None, None] + moves[:, :1]  # (S, A, 1)
    # A cell's probability is in proportion to its overlap with the interval of the turbulence.
    cell = np.arange(-2 * size, 3 * size)
    above = np.minimum(cell + 0.5, middle + spread)
    below = np.maximum(cell - 0.5, middle - spread)
    probabilities = np.maximum(above - below, 0.0) / (2 * spread)  # (S, A, cells)
    beside = np.clip(x[:, None] + moves[:, 1], 0, size - 1)
    targets = np.where(cell >= size, 0, np.maximum(cell, 0) * size + beside[..., None])
    rows = _transitions(targets, probabilities)
    return FiniteMDP(
        rows,
        np.broadcast_to(y.astype(float), (size * size, len(moves), size * size)),
        discount,
        0,
        [],
        "wet-chicken-grid",
        Layout(np.zeros((size, size), bool), np.stack([y, x], -1), _same_moves(moves, size * size)),
    )


WORLDS: Mapping[str, Callable[..., FiniteMDP]] = {
    "chain": chain,
    "cliff-walk": cliff_walk,
    "frozen-lake": frozen_lake,
    "four-rooms": four_rooms,
    "dyna-maze": dyna_maze,
    "blocking-maze": blocking_maze,
    "shortcut-maze": shortcut_maze,
    "deep-sea": deep_sea,
    "windy-grid": windy_grid,
    "open-grid": open_grid,
    "wet-chicken-grid": wet_chicken,
}
"""The worlds by name; each function can be called without arguments."""

CHANGES: Mapping[str, int] = {"blocking-maze": 1000, "shortcut-maze": 3000}
"""Steps after which the worlds with an argument `changed` change, as in Sutton and Barto's book."""


def small(*, discount: float) -> dict[str, Callable[[], FiniteMDP]]:
    """Functions that make worlds of about a hundred states at most, deterministic ones first.

    They are those of `WORLDS`, some of them also in a stochastic variant, and a `garnet`, all with
    the same discount.
    """
    return {
        "chain": lambda: chain(slip=0.0, discount=discount),
        "cliff walk": lambda: cliff_walk(discount=discount),
        "frozen lake": lambda: frozen_lake(slippery=False, discount=discount),
        "Dyna maze": lambda: dyna_maze(discount=discount),
        "blocking maze": lambda: blocking_maze(discount=discount),
        "shortcut maze": lambda: shortcut_maze(discount=discount),
        "deep sea": lambda: deep_sea(5, discount=discount),
        "windy grid": lambda: windy_grid(discount=discount),
        "open grid": lambda: open_grid(10, discount=discount),
        "chain, slips": lambda: chain(discount=discount),
        "cliff walk, slippery": lambda: cliff_walk(slippery=True, discount=discount),
        "frozen lake, slippery": lambda: frozen_lake(discount=discount),
        "deep sea, windy": lambda: deep_sea(5, windy=True, discount=discount),
        "four rooms": lambda: four_rooms(discount=discount),
        "windy grid, gusts": lambda: windy_grid(stochastic=True, discount=discount),
        "wet chicken": lambda: wet_chicken(discount=discount),
        "garnet": lambda: garnet(10, 2, 3, rng=np.random.default_rng(0), discount=discount),
    }


def world_env(
    name: str, *, render_mode: str | None = None, change_at: int | None = None, **options: Any
) -> gymnasium.Env:
    """The environment of a world: the entry point that gymnasium calls.

    `options` are arguments of the world's function; `change_at` sets the number of steps before a
    change, for worlds that change. Raises what the function and `TabularEnv` raise.
    """
    build, changes = WORLDS[name], {}
    if name in CHANGES:
        after = CHANGES[name] if change_at is None else change_at
        changes = {after: build(changed=True, **options)}
    elif change_at is not None:
        raise ValueError(f"{name}: never changes; those that do are {', '.join(CHANGES)}")
    return build(**options).env(changes=changes, render_mode=render_mode)


for _name in WORLDS:
    if _name not in gymnasium.registry:
        gymnasium.register(_name, entry_point="envs.worlds:world_env", kwargs={"name": _name})


def _maze(
    name: str,
    walls: np.ndarray,
    start: tuple[int, int] | None,
    goal: tuple[int, int],
    discount: float,
    *,
    turning: Sequence[float] = (1.0,),
    free: np.ndarray | None = None,
) -> FiniteMDP:
    """A grid whose goal pays 1 on arrival; with `start` None, episodes start in any other cell."""
    free = ~walls if free is None else free
    targets, probabilities, cells = _grid_moves(walls, turning=turning, free=free)
    number = _state_numbers(free)
    end = number[goal]
    first: Any = None if start is None else number[start]
    if first is None:
        first = np.full(len(cells), 1 / (len(cells) - 1))
        first[end] = 0.0
    return FiniteMDP(
        _transitions(targets, probabilities),
        _rewards_on_arrival(np.array([end]), targets.shape),
        discount,
        first,
        [end],
        name,
        Layout(walls, cells, _same_moves(_FOUR, len(cells))),
    )


def _gap_maze(name: str, gaps: list[int], all_gaps: list[int], discount: float) -> FiniteMDP:
    """A maze of 6 × 9 cells; gaps in a wall, the fourth row, lead from the start to the goal.

    `gaps` are the columns of the gaps, and `all_gaps` those of the gaps before and after a change,
    whose cells are states as well.
    """
    walls = np.zeros((6, 9), dtype=bool)
    walls[3] = True
    free = ~walls
    walls[3, gaps], free[3, all_gaps] = False, True
    return _maze(name, walls, (5, 3), (0, 8), discount, free=free)


def _grid_moves(
    walls: np.ndarray,
    *,
    moves: np.ndarray = _FOUR,
    turning: Sequence[float] = (1.0,),
    free: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where moves end: states (S, A, K), probabilities (K,), and the cells (S, 2) of states.

    A move into an edge or a wall has no effect. `turning[k]` is the probability that action a has
    the effect of action a + k, k < K. `free` (rows, columns) bool marks the cells that are states;
    if None, those without walls.
    """
    free = ~walls if free is None else free
    number, cells = _state_numbers(free), np.argwhere(free)
    ends = np.empty((len(cells), len(moves)), dtype=np.int32)
    for action, move in enumerate(moves):
        row, column = np.clip(cells + move, 0, np.array(walls.shape) - 1).T
        ends[:, action] = np.where(walls[row, column], np.arange(len(cells)), number[row, column])
    kept = [k for k, probability in enumerate(turning) if probability > 0]
    turned = [np.roll(ends, -k, axis=1) for k in kept]
    return np.stack(turned, -1), np.array([turning[k] for k in kept]), cells


def _transitions(targets: np.ndarray, probabilities: Any) -> sparse.csr_array:
    """Rows (S · A, S) from targets (S, A, K) and their probabilities, which are broadcast."""
    states, actions, kinds = targets.shape
    return sparse.csr_array(
        (
            np.broadcast_to(probabilities, targets.shape).ravel(),
            targets.ravel(),
            np.arange(0, targets.size + 1, kinds, dtype=np.int32),
        ),
        shape=(states * actions, states),
    )


def _rewards_on_arrival(states: np.ndarray, shape: tuple[int, ...]) -> sparse.csr_array:
    """Rewards (S · A, S) of 1 for arrival in some states."""
    pairs = shape[0] * shape[1]
    return sparse.csr_array(
        (
            np.ones(pairs * len(states)),
            np.tile(states, pairs),
            np.arange(pairs + 1) * len(states),
        ),
        shape=(pairs, shape[0]),
    )


def _state_numbers(free: np.ndarray) -> np.ndarray:
    """The state of each cell (rows, columns), -1 where there is none."""
    return np.where(free, free.cumsum().reshape(free.shape) - 1, -1).astype(np.int32)


def _same_moves(moves: np.ndarray, states: int) -> np.ndarray:
    return np.broadcast_to(moves, (states, *moves.shape))


def _letters(text: Sequence[str]) -> np.ndarray:
    return np.array([list(line) for line in text])


def _find(letters: np.ndarray, letter: str) -> tuple[int, int]:
    row, column = np.argwhere(letters == letter)[0]
    return int(row), int(column)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
