"""Finite Markov decision processes, with exact values, and their environments.

Sutton and Barto 2018, "Reinforcement learning", chapters 3 and 4; Puterman 1994, "Markov decision
processes", for the linear programme. All arrays are numpy float64. `envs.worlds` has finite MDPs
from the literature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.wrappers import TimeLimit
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.sparse.linalg import bicgstab, splu

_SUM_TOLERANCE = 1e-9
"""How far the sum of a distribution may be from 1."""
_DIRECT = 2000
"""Number of states up to which elimination is fast for any transitions."""
_ITERATIONS = 300
"""Iterations of BiCGSTAB before elimination is used; for 10⁶ states on a grid they take about as
long as elimination."""
_PROGRAMME = 10_000
"""Number of pairs of state and action up to which a linear programme takes at most a minute."""


class Optimum(NamedTuple):
    """The optimal values and an optimal policy, exactly."""

    values: np.ndarray  # (S,), V*
    action_values: np.ndarray  # (S, A), Q*
    policy: np.ndarray  # (S,) int, π*; one of several if there are ties


@dataclass(frozen=True, eq=False)
class Layout:
    """Positions of states on a grid, for pictures. Raises ValueError for inconsistent arrays."""

    walls: np.ndarray
    """(rows, columns) bool."""
    cells: np.ndarray
    """(S, 2) int, row and column of each state; -1, -1 for a state that is not shown."""
    moves: np.ndarray
    """(S, A, 2) int, intended change of row and column of each action; 0, 0 to stay."""
    hazards: np.ndarray | None = None
    """(rows, columns) bool, True for holes and cliffs; None if there are none."""

    def __post_init__(self) -> None:
        shapes = self.walls.shape, self.cells.shape, self.moves.shape
        for name, fits in (
            ("walls must be (rows, columns)", len(shapes[0]) == 2),
            ("cells must be (S, 2)", len(shapes[1]) == 2 and shapes[1][1] == 2),
            ("moves must be (S, A, 2)", len(shapes[2]) == 3 and shapes[2][::2] == shapes[1]),
            ("hazards must be like walls", self.hazards is None or self.hazards.shape == shapes[0]),
        ):
            if not fits:
                raise ValueError(f"layout: {name}; walls, cells, moves have shapes {shapes}")
        if not ((self.cells >= -1) & (self.cells < shapes[0])).all():
            raise ValueError(f"layout: cells must lie in {shapes[0]}, or be -1, -1")


@dataclass(frozen=True, eq=False, init=False)
class FiniteMDP:
    """A finite Markov decision process: states 0..S-1, actions 0..A-1.

    An episode ends on arrival in a terminal state. A terminal state has value and rewards 0, and
    its rows of `transitions` are empty.

    Raises ValueError, naming the state and the action, for a row that is not a distribution or a
    reward that is not finite; for a discount outside [0, 1], or of 1 if some state cannot reach
    a terminal one; for a start that is not a distribution over states; for arrays of other shapes;
    for rewards that are not the expectations of `arrival`.
    """

    transitions: sparse.csr_array
    """(S · A, S): row s · A + a is the distribution of the next state. The constructor also takes a
    dense array (S, A, S)."""
    rewards: np.ndarray
    """(S, A), expected rewards. The constructor also takes rewards that depend on the next state,
    dense (S, A, S) or sparse (S · A, S)."""
    discount: float
    """γ, in [0, 1]."""
    start: np.ndarray
    """(S,) distribution of the first state. The constructor also takes one state."""
    terminal: np.ndarray
    """(S,) bool. The constructor also takes a sequence of states."""
    name: str
    """Name for messages and pictures."""
    layout: Layout | None
    """Layout for pictures."""
    arrival: sparse.csr_array | None
    """(S · A, S), the reward of each next state, with the sparsity of `transitions`; None if the
    reward does not depend on the next state."""

    def __init__(
        self,
        transitions: Any,
        rewards: Any,
        discount: float,
        start: Any,
        terminal: Any,
        name: str = "mdp",
        layout: Layout | None = None,
        arrival: Any = None,
    ) -> None:
        rows, states, actions = _rows(transitions, name)
        ends = _mask(terminal, states, name)
        live = np.repeat(~ends, actions)
        rows = _without_terminal_rows(rows, live)
        shape = np.shape(rewards)
        if shape in ((states, actions, states), rows.shape) and shape != (states, actions):
            rewards, arrival = None, rewards
        elif shape != (states, actions):
            raise ValueError(
                f"{name}: rewards must be (S, A) = ({states}, {actions}), (S, A, S) or sparse "
                f"(S · A, S), got {shape}"
            )
        if arrival is not None:
            if np.shape(arrival) not in ((states, actions, states), rows.shape):
                raise ValueError(f"{name}: arrival must be (S · A, S), got {np.shape(arrival)}")
            arrival = _with_sparsity_of(rows, arrival)
            expected = (rows * arrival).sum(1).reshape(states, actions)
            if rewards is not None and not np.allclose(rewards, expected, equal_nan=True):
                raise ValueError(f"{name}: rewards are not those that arrival makes; give only one")
            rewards = expected
        rewards = np.array(rewards, dtype=float)
        rewards[ends] = 0.0
        _check_rows(rows, rewards, live, actions, name)
        if not 0 <= discount <= 1:
            raise ValueError(f"{name}: discount must lie in [0, 1], got {discount!r}")
        if layout is not None and layout.moves.shape != (states, actions, 2):
            raise ValueError(
                f"{name}: the layout's moves must be (S, A, 2) = ({states}, {actions}, 2), "
                f"got {layout.moves.shape}"
            )
        if discount == 1:
            stuck = _stuck_states(rows, ends, actions)
            if stuck.any():
                raise ValueError(
                    f"{name}: with discount 1 every state must be able to end; "
                    f"state {int(stuck.argmax())} reaches no terminal state"
                )
        values = rows, rewards, discount, _distribution(start, states, name), ends
        for field, value in zip(fields(self), (*values, name, layout, arrival), strict=True):
            object.__setattr__(self, field.name, value)

    @property
    def states(self) -> int:
        """S."""
        return len(self.terminal)

    @property
    def actions(self) -> int:
        """A."""
        return self.rewards.shape[1]

    @property
    def deterministic(self) -> bool:
        """Whether every action leads to one state."""
        return bool(np.diff(self.transitions.indptr).max() <= 1)

    @property
    def enterable(self) -> np.ndarray:
        """(S,) bool, where an episode may start or a step may lead, without terminal states."""
        return ((self.transitions.sum(0) > 0) | (self.start > 0)) & ~self.terminal

    @property
    def uniform_policy(self) -> np.ndarray:
        """(S, A), every action with the same probability."""
        return np.full(self.rewards.shape, 1 / self.actions)

    def under(self, policy: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
        """The Markov chain of a policy: P_π (S, S) and r_π (S,).

        `policy` is (S, A) probabilities or (S,) actions, here and below. Raises ValueError for
        rows that are not distributions or actions out of range.
        """
        chosen = self._probabilities(policy)
        states, actions = chosen.shape
        pick = sparse.csr_array(
            (chosen.flatten(), np.arange(states * actions), np.arange(states + 1) * actions),
            shape=(states, states * actions),
        )
        pick.eliminate_zeros()
        return sparse.csr_array(pick @ self.transitions), (chosen * self.rewards).sum(1)

    def evaluate(self, policy: np.ndarray) -> np.ndarray:
        """V_π (S,) = (I - γ P_π)⁻¹ r_π.

        Solved by elimination, or with many states and cycles by BiCGSTAB (van der Vorst 1992) to
        rounding error: |residual| <= 1e-13 (max |r_π| + max |V_π|), and the error of V_π is at most
        |residual| / (1 - γ).

        Raises ValueError, with discount 1, for a policy that never terminates from some state.
        """
        chain, reward = self.under(policy)
        self._check_ends(chain)
        return self._solve(chain, reward)

    def action_values(self, values: np.ndarray) -> np.ndarray:
        """Q (S, A) = R + γ P V, for values V (S,) of the next states."""
        after = (self.transitions @ np.asarray(values, dtype=float)).reshape(self.rewards.shape)
        return self.rewards + self.discount * after

    def expected_return(self, policy: np.ndarray) -> float:
        """J(π), the mean of V_π over the start distribution."""
        return float(self.start @ self.evaluate(policy))

    def expected_steps(self, policy: np.ndarray) -> float:
        """Mean number of steps of an episode, from the start to a terminal state.

        Raises ValueError if a state never reaches one, under this policy or under any.
        """
        ones = np.ones_like(self.rewards)
        clock = FiniteMDP(self.transitions, ones, 1.0, self.start, self.terminal, self.name)
        return clock.expected_return(policy)

    def occupancy(self, policy: np.ndarray) -> np.ndarray:
        """Expected discounted visits (S, A): Σ_t γᵗ P(s_t, a_t), so that J = Σ occupancy · R.

        They sum to 1 / (1 - γ) if nothing terminates. Raises what `evaluate` raises.
        """
        chain, _ = self.under(policy)
        self._check_ends(chain)
        visits = self._solve(sparse.csr_array(chain.T), self.start)
        return visits[:, None] * self._probabilities(policy)

    def policy_gradient(self, logits: np.ndarray) -> np.ndarray:
        """∂J/∂logits (S, A) of the softmax policy (Sutton et al. 2000, theorem 1).

        Raises ValueError for another shape, and what `evaluate` raises.
        """
        logits = np.asarray(logits, dtype=float)
        if logits.shape != self.rewards.shape or not np.isfinite(logits).all():
            raise ValueError(
                f"{self.name}: logits must be finite and (S, A) = {self.rewards.shape}, "
                f"got {logits.shape}"
            )
        policy = np.exp(logits - logits.max(1, keepdims=True))
        policy /= policy.sum(1, keepdims=True)
        action_values = self.action_values(self.evaluate(policy))
        advantage = action_values - (policy * action_values).sum(1, keepdims=True)
        return self.occupancy(policy) * advantage

    def discounted(self, discount: float) -> FiniteMDP:
        """The same MDP with another γ. Raises ValueError for one that the constructor refuses."""
        return FiniteMDP(
            self.transitions,
            self.rewards,
            discount,
            self.start,
            self.terminal,
            self.name,
            self.layout,
            self.arrival,
        )

    def optimum(self) -> Optimum:
        """V*, Q* and π*, from the linear programme min Σ V, V >= R + γ P V (Puterman, 6.9).

        The greedy policy of its solution is then evaluated exactly. Raises ValueError
        if no policy is optimal, because with discount 1 rewards can be collected for ever; and for
        more than 10,000 pairs of state and action, for which use value iteration.
        """
        from scipy.optimize import linprog  # as slow to import as all the rest of `envs`

        if self.rewards.size > _PROGRAMME:
            raise ValueError(
                f"{self.name}: a linear programme takes too long for S · A = {self.rewards.size}, "
                f"more than {_PROGRAMME}; use value iteration"
            )
        live = np.flatnonzero(~self.terminal)
        if not len(live):
            zero = np.zeros(self.states)
            return Optimum(zero, self.rewards.copy(), zero.astype(int))
        rows = (live[:, None] * self.actions + np.arange(self.actions)).ravel()
        own = sparse.csr_array(
            (np.ones(len(rows)), (np.arange(len(rows)), np.arange(len(rows)) // self.actions)),
            shape=(len(rows), len(live)),
        )
        matrix = self.discount * self.transitions[rows][:, live] - own
        found = linprog(
            np.ones(len(live)), A_ub=matrix, b_ub=-self.rewards.ravel()[rows], bounds=(None, None)
        )
        if found.status != 0:
            raise ValueError(f"{self.name}: no policy is best: {found.message}")
        # The multipliers are the visits under π*, so π* terminates where it must, even with ties.
        policy = np.zeros(self.states, dtype=int)
        policy[live] = found.ineqlin.marginals.reshape(len(live), -1).argmin(1)
        unit = min(1.0, np.abs(self.rewards).max())  # of rounding error, where rewards are small
        for _ in range(self.states):  # solved to 1e-7, so that almost always one pass is enough
            values = self.evaluate(policy)
            action_values = self.action_values(values)
            better = action_values.max(1) > values + 1e-9 * (unit + np.abs(values))
            if not better.any():
                return Optimum(values, action_values, policy)
            policy = np.where(better, action_values.argmax(1), policy)
        raise ValueError(f"{self.name}: the linear programme's policy could not be improved to π*")

    def env(
        self,
        *,
        max_steps: int | None = None,
        changes: Mapping[int, FiniteMDP] | None = None,
        render_mode: str | None = None,
    ) -> gymnasium.Env:
        """A `TabularEnv` of this MDP; its episodes are truncated after `max_steps` steps, if given.

        Raises what `TabularEnv` raises.
        """
        env = TabularEnv(self, changes=changes, render_mode=render_mode)
        return env if max_steps is None else TimeLimit(env, max_steps)

    def _probabilities(self, policy: np.ndarray) -> np.ndarray:
        policy = np.asarray(policy)
        if policy.shape == (self.states,) and np.issubdtype(policy.dtype, np.integer):
            if policy.min() < 0 or policy.max() >= self.actions:
                raise ValueError(
                    f"{self.name}: a policy's actions must lie in 0..{self.actions - 1}"
                )
            return np.eye(self.actions)[policy]
        if policy.shape != (self.states, self.actions):
            raise ValueError(
                f"{self.name}: a policy is (S, A) = ({self.states}, {self.actions}) probabilities "
                f"or (S,) integers, got {policy.shape} {policy.dtype}"
            )
        wrong = ~(np.abs(policy.sum(1) - 1) <= _SUM_TOLERANCE) | (policy < 0).any(1)
        if wrong.any():
            raise ValueError(
                f"{self.name}: the policy of state {wrong.argmax()} is no distribution: "
                f"{policy[wrong.argmax()]}"
            )
        return policy.astype(float)

    def _solve(self, chain: sparse.csr_array, right: np.ndarray) -> np.ndarray:
        """(I - γ chain)⁻¹ right, for P_π or its transpose."""
        right = np.asarray(right, dtype=float)
        matrix = sparse.csr_array(
            sparse.eye_array(self.states, format="csr") - self.discount * chain
        )
        if self.states > _DIRECT:
            # Without cycles elimination has no fill-in, and iteration moves one step per sweep.
            components, _ = connected_components(chain, connection="strong")
            if components < self.states:
                found = _iterate(matrix, right)
                if found is not None:
                    return found
        # The diagonal dominates, so pivots on it are stable; they keep the ordering's sparsity.
        options = {"SymmetricMode": True}
        factors: Any = splu(
            sparse.csc_array(matrix),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options=options,
        )
        return factors.solve(right)

    def _check_ends(self, chain: sparse.csr_array) -> None:
        if self.discount < 1:
            return
        stuck = _stuck_states(chain, self.terminal, 1)
        if stuck.any():
            raise ValueError(
                f"{self.name}: with discount 1 a policy must terminate from every state; this one "
                f"never does from state {int(stuck.argmax())}"
            )


class TabularEnv(gymnasium.Env):
    """A finite MDP as an environment: states and actions are integers.

    An episode terminates on arrival in a terminal state. The reward is that of the next state
    if the MDP has `arrival`, else the expected one.

    Args:
        mdp: the first world.
        changes: number of steps -> the world that replaces the current one after these steps. It
            has as many states and actions. Steps are counted over episodes from the last seeded
            reset.
        render_mode: "rgb_array" or None.

    Attributes:
        mdp: the current world.
        steps: number of steps since the last seeded reset.

    Raises:
        ValueError: another render mode, "rgb_array" for a world without a layout, a start in a
            terminal state, a change to a world of another size or before the first step.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}

    def __init__(
        self,
        mdp: FiniteMDP,
        *,
        changes: Mapping[int, FiniteMDP] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self._changes = {0: mdp, **({} if changes is None else changes)}
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"{mdp.name}: render_mode must be rgb_array or None, not {render_mode!r}"
            )
        for step, world in self._changes.items():
            if step < 0 or (step == 0 and world is not mdp):
                raise ValueError(f"{mdp.name}: a change needs at least one step, got {step}")
            if (world.states, world.actions) != (mdp.states, mdp.actions):
                raise ValueError(
                    f"{mdp.name}: a change must keep {mdp.states} states and {mdp.actions} "
                    f"actions, {world.name} has {world.states} and {world.actions}"
                )
            if (world.start > 0)[world.terminal].any():
                raise ValueError(f"{world.name}: an episode cannot start in a terminal state")
            if render_mode is not None and world.layout is None:
                raise ValueError(f"{world.name}: no picture of a world without a layout")
        self.render_mode = render_mode
        self.observation_space = Discrete(mdp.states)
        self.action_space = Discrete(mdp.actions)
        self.steps, self._state, self._over = 0, 0, True
        self._switch_to(mdp)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Draw the first state; with a seed, also return to the first world."""
        super().reset(seed=seed)
        if seed is not None:
            self.steps = 0
            self._switch_to(self._changes[0])
        where = self._draw(self._start_probabilities)
        self._state, self._over = int(self._starts[where]), False
        return self._state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Take a step. Raises ValueError for an invalid action, ResetNeeded after an end."""
        mdp = self.mdp
        if self._over:
            raise gymnasium.error.ResetNeeded(
                f"{mdp.name}: call reset() before the first step of an episode"
            )
        if not 0 <= action < mdp.actions or int(action) != action:
            raise ValueError(f"{mdp.name}: actions are 0..{mdp.actions - 1}, got {action!r}")
        rows = mdp.transitions
        row = self._state * mdp.actions + int(action)
        first, last = rows.indptr[row], rows.indptr[row + 1]
        where = first + self._draw(rows.data[first:last])
        if mdp.arrival is None:
            reward = float(mdp.rewards[self._state, int(action)])
        else:
            reward = float(mdp.arrival.data[where])
        self._state = int(rows.indices[where])
        self._over = bool(mdp.terminal[self._state])
        self.steps += 1
        if self.steps in self._changes:
            self._switch_to(self._changes[self.steps])
        return self._state, reward, self._over, False, {}

    def render(self) -> np.ndarray | None:
        """The world from above, (pixels, pixels, 3) uint8: the agent blue, terminal states green,
        hazards red, starts grey. None without a render mode."""
        if self.render_mode is None:
            return None
        assert self.mdp.layout is not None
        row, column = self.mdp.layout.cells[self._state]
        frame, cell = self._background.copy(), self._cell
        if row >= 0:
            x = np.arange(cell) - (cell - 1) / 2
            disc = x[:, None] ** 2 + x**2 <= (0.36 * cell) ** 2 + 0.5
            frame[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell][disc] = _AGENT
        return frame

    def _switch_to(self, mdp: FiniteMDP) -> None:
        self.mdp = mdp
        self._starts = np.flatnonzero(mdp.start)
        self._start_probabilities = mdp.start[self._starts]
        if self.render_mode is not None:
            self._background, self._cell = _draw_background(mdp)

    def _draw(self, probabilities: np.ndarray) -> int:
        if len(probabilities) == 1:
            return 0
        upto = probabilities.cumsum()
        found = upto.searchsorted(self.np_random.random() * upto[-1], side="right")
        return min(int(found), len(probabilities) - 1)


class SeededOnce(gymnasium.Wrapper):
    """A wrapper that passes the seed on at the first reset only.

    A `TabularEnv` returns to its first world at every seeded reset. In this wrapper its world
    changes after the given steps even if every episode is reset with a seed.
    """

    _seeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, without the seed from the second time on."""
        given, self._seeded = None if self._seeded else seed, True
        return self.env.reset(seed=given, options=options)


_AGENT, _GOAL, _HAZARD = (38, 89, 166), (166, 212, 160), (222, 136, 121)
_START, _WALL, _FREE, _LINE = (214, 214, 214), (64, 64, 64), (255, 255, 255), (235, 235, 235)


def _draw_background(mdp: FiniteMDP) -> tuple[np.ndarray, int]:
    """A frame without the agent, and the number of pixels per cell."""
    layout = mdp.layout
    assert layout is not None
    colours = np.full((*layout.walls.shape, 3), _FREE, dtype=np.uint8)
    for states, colour in ((mdp.start > 0, _START), (mdp.terminal, _GOAL)):
        rows, columns = layout.cells[states & (layout.cells[:, 0] >= 0)].T
        colours[rows, columns] = colour
    if layout.hazards is not None:
        colours[layout.hazards] = _HAZARD
    colours[layout.walls] = _WALL
    cell = max(1, min(48, 512 // max(layout.walls.shape)))
    frame = colours.repeat(cell, axis=0).repeat(cell, axis=1)
    if cell >= 8:
        frame[::cell] = _LINE
        frame[:, ::cell] = _LINE
    return frame, cell


def _iterate(matrix: sparse.csr_array, right: np.ndarray) -> np.ndarray | None:
    """The solution by BiCGSTAB and refinement; None after too many iterations.

    Both the largest and the summed absolute residual are at the level of rounding errors.
    """
    found, left = np.zeros_like(right), _ITERATIONS

    def count(_: np.ndarray) -> None:
        nonlocal left
        left -= 1

    while True:
        residual = right - matrix @ found
        sizes = [(np.abs(a).max(), np.abs(a).sum()) for a in (residual, right, found)]
        if all(r <= 1e-13 * (b + x) for r, b, x in zip(*sizes, strict=True)):
            return found
        if left <= 0:
            return None
        found = found + bicgstab(matrix, residual, rtol=1e-8, maxiter=left, callback=count)[0]


def _without_terminal_rows(rows: Any, live: np.ndarray) -> sparse.csr_array:
    """A copy in canonical order, without stored zeros, whose rows that are not live are empty."""
    counts = np.diff(rows.indptr)
    keep = np.repeat(live, counts)
    indptr = np.concatenate([[0], np.cumsum(np.where(live, counts, 0))])
    copy = sparse.csr_array((rows.data[keep], rows.indices[keep], indptr), shape=rows.shape)
    copy.sum_duplicates()
    copy.eliminate_zeros()
    return copy


def _with_sparsity_of(rows: Any, rewards: Any) -> sparse.csr_array:
    """Rewards (S · A, S), with the sparsity of `rows`."""
    at = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), rows.indices
    if sparse.issparse(rewards):
        data: Any = sparse.csr_array(rewards)[at]
    else:
        data = np.reshape(rewards, (rows.shape[0], -1))[at]
    found = sparse.csr_array(rows, copy=True)
    found.data = np.asarray(data, dtype=float).ravel()
    return found


def _rows(transitions: Any, name: str) -> tuple[sparse.csr_array, int, int]:
    """`FiniteMDP.transitions` (S · A, S), S and A, from what the constructor takes."""
    if sparse.issparse(transitions):
        rows: Any = sparse.csr_array(transitions).astype(float)
    else:
        dense = np.asarray(transitions, dtype=float)
        if dense.ndim != 3 or dense.shape[0] != dense.shape[2]:
            raise ValueError(f"{name}: transitions must be (S, A, S), got {dense.shape}")
        rows = sparse.csr_array(dense.reshape(-1, dense.shape[2]))
    count, states = rows.shape
    if not count or count % states:
        raise ValueError(f"{name}: sparse transitions must be (S · A, S), got {rows.shape}")
    return rows, states, count // states


def _check_rows(rows: Any, rewards: np.ndarray, live: np.ndarray, actions: int, name: str) -> None:
    sums, least = rows.sum(1), np.zeros(rows.shape[0])
    if rows.nnz:
        least = rows.min(1).toarray().ravel()
    wrong = live & ~((np.abs(sums - 1) <= _SUM_TOLERANCE) & (least >= 0))
    if wrong.any():
        state, action = divmod(int(wrong.argmax()), actions)
        raise ValueError(
            f"{name}: the transitions of state {state}, action {action} are no distribution: "
            f"they sum to {sums[wrong.argmax()]:.9g}, the least is {least[wrong.argmax()]:.3g}"
        )
    bad = live & ~np.isfinite(rewards.ravel())
    if bad.any():
        state, action = divmod(int(bad.argmax()), actions)
        raise ValueError(f"{name}: the reward of state {state}, action {action} is not finite")


def _mask(terminal: Any, states: int, name: str) -> np.ndarray:
    given = np.asarray(terminal)
    if given.dtype == bool and given.shape == (states,):
        return given.copy()
    mask = np.zeros(states, dtype=bool)
    if given.size and (
        not np.issubdtype(given.dtype, np.integer) or given.min() < 0 or given.max() >= states
    ):
        raise ValueError(f"{name}: terminal must be (S,) bool or states in 0..{states - 1}")
    mask[given.astype(int)] = True
    return mask


def _distribution(start: Any, states: int, name: str) -> np.ndarray:
    given = np.asarray(start)
    if given.ndim == 0 and np.issubdtype(given.dtype, np.integer) and 0 <= given < states:
        return np.eye(1, states, int(given))[0]
    if given.shape != (states,) or not abs(given.sum() - 1) <= _SUM_TOLERANCE or (given < 0).any():
        raise ValueError(
            f"{name}: start must be a state in 0..{states - 1} or a distribution (S,) over them"
        )
    return given.astype(float)


def _stuck_states(rows: sparse.csr_array, terminal: np.ndarray, actions: int) -> np.ndarray:
    """Mask (S,) of the states from which no policy reaches a terminal state."""
    states, ends = len(terminal), np.flatnonzero(terminal)
    ones = np.ones(rows.nnz + len(ends))
    onwards = (ones[: rows.nnz], rows.indices, rows.indptr[::actions])
    back = sparse.csc_array(onwards, shape=(states, states)).tocsr()
    # One more node leads to every terminal state.
    indptr = np.append(back.indptr, rows.nnz + len(ends))
    edges = (ones, np.append(back.indices, ends), indptr)
    graph = sparse.csr_array(edges, shape=(states + 1, states + 1))
    reached = breadth_first_order(graph, states, return_predecessors=False)
    stuck = np.ones(states + 1, dtype=bool)
    stuck[reached] = False
    return stuck[:states]
