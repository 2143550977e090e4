"""Finite Markov decision processes, whose every value is known exactly.

Sutton and Barto 2018, "Reinforcement learning", chapters 3 and 4; Puterman 1994, "Markov decision
processes", for the linear programme. All arrays are numpy float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import linprog
from scipy.sparse.linalg import splu

_SUMS_TO = 1e-9
"""How far from one a distribution's sum may lie."""


class Optimum(NamedTuple):
    """What is best, exactly."""

    values: np.ndarray  # (S,), V*
    action_values: np.ndarray  # (S, A), Q*
    policy: np.ndarray  # (S,) int, π*; one of several where actions tie


@dataclass(frozen=True, eq=False)
class FiniteMDP:
    """States 0..S-1, actions 0..A-1, and what follows from each pair.

    Nothing follows a terminal state: its value is 0, its rows of `transitions` and `rewards` are
    emptied. An episode ends on arrival there.

    Raises ValueError, naming the state and the action, for a row that is not a distribution or a
    reward that is not finite; for a discount outside [0, 1], or of 1 where some state cannot reach
    a terminal one; for a start that is no distribution over states.
    """

    transitions: sparse.csr_array
    """(S · A, S), row s · A + a the distribution of the next state; also taken as (S, A, S)."""
    rewards: np.ndarray
    """(S, A), expected; also taken as (S, A, S) or sparse (S · A, S), where the arrival counts."""
    discount: float
    """γ, in [0, 1]."""
    start: np.ndarray
    """(S,) distribution of the first state; also taken as a state."""
    terminal: np.ndarray
    """(S,) bool; also taken as a sequence of states."""
    name: str = "mdp"
    """For messages and pictures."""
    arrival: sparse.csr_array | None = field(default=None, init=False)
    """(S · A, S), the reward of each transition, where it hangs on the arrival."""

    def __post_init__(self) -> None:
        set_: Callable[..., None] = partial(object.__setattr__, self)
        rows, states, actions = _rows(self.transitions, self.rewards, self.name)
        terminal = _mask(self.terminal, states, self.name)
        rewards = self.rewards
        if sparse.issparse(rewards) or np.ndim(rewards) == 3:
            arrival = sparse.csr_array(
                rewards if sparse.issparse(rewards) else np.reshape(rewards, (-1, states))
            ).astype(float)
            rewards = rows.multiply(arrival).sum(1)
            set_("arrival", arrival)
        rewards = np.array(rewards, dtype=float).reshape(states, actions)
        live = np.repeat(~terminal, actions)
        _check_rows(rows, rewards, live, actions, self.name)
        rows = sparse.csr_array(sparse.diags_array(live.astype(float)) @ rows)
        rows.eliminate_zeros()
        rewards[terminal] = 0.0
        set_("transitions", rows)
        set_("rewards", rewards)
        set_("terminal", terminal)
        set_("start", _distribution(self.start, states, self.name))
        if not 0 <= self.discount <= 1:
            raise ValueError(f"{self.name}: discount must lie in [0, 1], got {self.discount!r}")
        if self.discount == 1:
            stuck = _unending(rows, terminal, actions)
            if stuck.any():
                raise ValueError(
                    f"{self.name}: with discount 1 every state must be able to end; "
                    f"state {int(stuck.argmax())} reaches no terminal state"
                )

    @property
    def states(self) -> int:
        """S."""
        return len(self.terminal)

    @property
    def actions(self) -> int:
        """A."""
        return self.rewards.shape[1]

    def under(self, policy: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
        """The chain that a policy makes: P_π (S, S) and r_π (S,).

        `policy` is (S, A) probabilities or (S,) actions, here and below. Raises ValueError for
        rows that are not distributions or actions out of range.
        """
        chosen = self._probabilities(policy)
        states, actions = chosen.shape
        pick = sparse.csr_array(
            (chosen.ravel(), np.arange(states * actions), np.arange(states + 1) * actions),
            shape=(states, states * actions),
        )
        return sparse.csr_array(pick @ self.transitions), (chosen * self.rewards).sum(1)

    def evaluate(self, policy: np.ndarray) -> np.ndarray:
        """V_π (S,) = (I - γ P_π)⁻¹ r_π.

        Raises ValueError, with discount 1, for a policy under which some state never ends.
        """
        chain, reward = self.under(policy)
        return self._solve(chain, reward, policy)

    def action_values(self, values: np.ndarray) -> np.ndarray:
        """Q (S, A) of what is worth V (S,) afterwards."""
        after = (self.transitions @ np.asarray(values, dtype=float)).reshape(self.rewards.shape)
        return self.rewards + self.discount * after

    def expected_return(self, policy: np.ndarray) -> float:
        """J(π): V_π over the start."""
        return float(self.start @ self.evaluate(policy))

    def occupancy(self, policy: np.ndarray) -> np.ndarray:
        """Expected discounted visits (S, A): Σ_t γᵗ P(s_t, a_t), so that J = Σ occupancy · R.

        They sum to 1 / (1 - γ) where nothing ends. Raises what `evaluate` raises.
        """
        chain, _ = self.under(policy)
        visits = self._solve(chain.T.tocsr(), self.start, policy)
        return visits[:, None] * self._probabilities(policy)

    def policy_gradient(self, logits: np.ndarray) -> np.ndarray:
        """∂J/∂logits (S, A) of the softmax policy (Sutton et al. 2000, theorem 1)."""
        logits = np.asarray(logits, dtype=float)
        policy = np.exp(logits - logits.max(1, keepdims=True))
        policy /= policy.sum(1, keepdims=True)
        action_values = self.action_values(self.evaluate(policy))
        advantage = action_values - (policy * action_values).sum(1, keepdims=True)
        return self.occupancy(policy) * advantage

    def optimum(self) -> Optimum:
        """V*, Q* and π*, from the linear programme min Σ V, V >= R + γ P V (Puterman, 6.9).

        The policy that its solution is greedy for is then evaluated exactly. Raises ValueError
        where no policy is best: with discount 1, rewards that one can collect for ever.
        """
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
        # Its multipliers are the visits under π*, so that π* ends where it has to, ties or not.
        policy = np.zeros(self.states, dtype=int)
        policy[live] = found.ineqlin.marginals.reshape(len(live), -1).argmin(1)
        for _ in range(self.states):  # solved to 1e-7, so that almost always one pass is enough
            values = self.evaluate(policy)
            action_values = self.action_values(values)
            better = action_values.max(1) > values + 1e-9 * (1 + np.abs(values))
            if not better.any():
                return Optimum(values, action_values, policy)
            policy = np.where(better, action_values.argmax(1), policy)
        raise ValueError(f"{self.name}: the linear programme's policy could not be bettered to π*")

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
        wrong = ~(np.abs(policy.sum(1) - 1) <= _SUMS_TO) | (policy < 0).any(1)
        if wrong.any():
            raise ValueError(f"{self.name}: the policy of state {wrong.argmax()} does not sum to 1")
        return policy.astype(float)

    def _solve(self, chain: sparse.csr_array, right: np.ndarray, policy: np.ndarray) -> np.ndarray:
        if self.discount == 1:
            stuck = _unending(self.under(policy)[0], self.terminal, 1)
            if stuck.any():
                raise ValueError(
                    f"{self.name}: with discount 1 a policy must end from every state; this one "
                    f"never does from state {int(stuck.argmax())}"
                )
        matrix = sparse.eye_array(self.states, format="csc") - self.discount * chain.tocsc()
        return splu(sparse.csc_array(matrix)).solve(np.asarray(right, dtype=float))


def _rows(transitions: Any, rewards: Any, name: str) -> tuple[sparse.csr_array, int, int]:
    """Transitions as (S · A, S), S and A."""
    if sparse.issparse(transitions):
        rows: Any = sparse.csr_array(transitions).astype(float)
    else:
        dense = np.asarray(transitions, dtype=float)
        if dense.ndim != 3 or dense.shape[0] != dense.shape[2]:
            raise ValueError(f"{name}: transitions must be (S, A, S), got {dense.shape}")
        rows = sparse.csr_array(dense.reshape(-1, dense.shape[2]))
    count, states = rows.shape
    if not states or count % states:
        raise ValueError(f"{name}: sparse transitions must be (S · A, S), got {rows.shape}")
    actions = count // states
    shape = np.shape(rewards)
    if shape not in ((states, actions), (states, actions, states), rows.shape):
        raise ValueError(
            f"{name}: rewards must be (S, A) = ({states}, {actions}), (S, A, S) or sparse "
            f"(S · A, S), got {shape}"
        )
    return rows, states, actions


def _check_rows(rows: Any, rewards: np.ndarray, live: np.ndarray, actions: int, name: str) -> None:
    sums, least = rows.sum(1), np.zeros(rows.shape[0])
    if rows.nnz:
        least = rows.min(1).toarray().ravel()
    wrong = live & ~((np.abs(sums - 1) <= _SUMS_TO) & (least >= 0))
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
    if given.shape != (states,) or not abs(given.sum() - 1) <= _SUMS_TO or (given < 0).any():
        raise ValueError(
            f"{name}: start must be a state in 0..{states - 1} or a distribution (S,) over them"
        )
    return given.astype(float)


def _unending(rows: sparse.csr_array, terminal: np.ndarray, actions: int) -> np.ndarray:
    """Which states (S,) reach no terminal one, whatever is done."""
    edges = rows.tocoo()
    graph = sparse.csr_array(
        (np.ones(len(edges.row), dtype=np.int8), (edges.col, edges.row // actions)),
        shape=(len(terminal), len(terminal)),
    )  # from a state to where one comes from
    reached, front = terminal.copy(), np.flatnonzero(terminal)
    while len(front):
        before = np.unique(graph[front].indices)
        front = before[~reached[before]]
        reached[front] = True
    return ~reached
