"""Dynamic programming for known finite MDPs, with error bounds.

Puterman 1994, "Markov decision processes", chapters 6 and 7. All arrays are numpy float64; states
and actions are integers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from mbrl.types import FiniteMDP
from planners.compile import compiled


class Solution(NamedTuple):
    """The values found, a greedy policy, and a bound on their error."""

    values: np.ndarray  # (S,)
    action_values: np.ndarray  # (S, A)
    policy: np.ndarray  # (S,) int, greedy for the action values; of ties the lowest action
    iterations: int  # number of policies evaluated (policy iteration) or of sweeps (others)
    residual: float  # max |T V - V| of the last V, with T the Bellman optimality operator
    bound: float  # |values - V*|, |action_values - Q*| <= bound, |V_policy - V*| <= 2 · bound


def value_iteration(
    mdp: FiniteMDP, *, tolerance: float = 1e-6, sweeps: int | None = None
) -> Solution:
    """Value iteration, until the values are known to lie within the tolerance of V*.

    After a backup T V, MacQueen's bounds (Puterman, section 6.6.3) hold: V* - T V lies in
    γ / (1 - γ) · [min, max](T V - V). The values returned are the middle of that interval, and the
    bound is half its width plus an allowance for rounding.

    The initial values satisfy V <= T V, and so do all later ones. They therefore increase towards
    V*, at least as fast as in plain value iteration, and converge for every discount below 1. The
    method depends on the MDP:

    - With terminal states: Gauss-Seidel sweeps, alternately forward and backward, which propagate
      values from terminal states in few sweeps (3 for a deterministic grid of 10⁶ states). The
      bounds are computed after every eighth sweep, and when the changes are small.
    - Without terminal states: synchronous backups, after each of which MacQueen's lower bound is
      added to all values, so that a change common to all states needs no further sweeps. Every
      fourth sweep takes half the step of a backup, because values of periodic policies would
      otherwise oscillate about V* (Schweitzer's transformation, Puterman, section 8.5.4).

    With discount 1 these bounds do not exist: `bound` is infinite, and the tolerance applies to the
    residual. The initial values are those of a policy that terminates from every state, and values
    converge if every policy that may not terminate has return -∞ (Bertsekas and Tsitsiklis 1991).

    Args:
        mdp: the MDP to solve.
        tolerance: the bound to reach. Because of rounding the bound cannot be less than about
            10⁻¹⁵ · |V| / (1 - γ).
        sweeps: the maximum number of sweeps, after which `bound` may exceed the tolerance. None is
            no limit for a discount below 1, and 100,000 sweeps for discount 1.

    Raises:
        ValueError: a tolerance that is not above 0, sweeps below one, an MDP whose arrays have
            shapes that do not fit together or hold numbers that are not finite.
    """
    return modified_policy_iteration(mdp, partial=0, tolerance=tolerance, sweeps=sweeps)


def modified_policy_iteration(
    mdp: FiniteMDP, *, partial: int = 5, tolerance: float = 1e-6, sweeps: int | None = None
) -> Solution:
    """Modified policy iteration (Puterman, section 6.5): improve the policy, evaluate it partially.

    Like `value_iteration`, but each sweep is followed by `partial` sweeps of policy evaluation for
    the greedy policy it found. They are cheaper, because they back up one action per state.

    Args and raises: as for `value_iteration`, and ValueError for `partial` below 0.
    """
    _check_limits(tolerance, 1 if sweeps is None else sweeps, "sweeps")
    if partial < 0:
        raise ValueError(f"partial must be at least 0, got {partial!r}")
    table = _table(mdp)
    limit = sweeps or (100_000 if table.discount == 1 else math.inf)
    solve = _synchronous if table.live.all() else _gauss_seidel
    return solve(table, partial, tolerance, limit)


def _gauss_seidel(table: _Table, partial: int, tolerance: float, limit: float) -> Solution:
    """Gauss-Seidel sweeps in place; a synchronous backup gives the bounds from time to time."""
    reduced = (
        *table.csr[:2],
        *_without_self_transitions(*table.csr, table.rewards, table.discount),
    )
    values, policy = _lower_values(table), np.zeros(len(table.live), dtype=np.int64)
    done = improved = 0
    while True:
        change = _sweep(*reduced, values, policy, improved % 2 == 1)
        done, improved = done + 1, improved + 1
        # a backup changes no value by more than γ times the largest change of the last sweep
        promising = table.discount * change <= tolerance * (1 - table.discount or 1)
        if promising or improved % 8 == 0 or done >= limit:
            solution, values = _solution(table, values, done)
            if _converged(table, solution, tolerance) or done >= limit:
                return solution
        for _ in range(partial):
            _evaluation_sweep(*reduced, values, policy, done % 2 == 1)
            done += 1


def _synchronous(table: _Table, partial: int, tolerance: float, limit: float) -> Solution:
    """Synchronous backups, each followed by adding MacQueen's lower bound to all values.

    A constant added to all values changes all values of the next synchronous backup by the same
    amount. That is not so for a Gauss-Seidel sweep, which would undo the addition.
    """
    model = (*table.csr, table.rewards, table.discount)
    values, done, improved = _lower_values(table), 0, 0
    while True:
        done, improved = done + 1, improved + 1
        solution, backed = _solution(table, values, done)
        if _converged(table, solution, tolerance) or done >= limit:
            return solution
        share = 0.5 if improved % 4 == 0 else 1.0
        change = backed - values
        lower = max(float(change.min()), 0.0) * (1 / (1 - table.discount) - share)
        values = values + share * change + lower
        for _ in range(partial):
            values = values + share * (_policy_backup(*model, values, solution.policy) - values)
            done += 1


def policy_iteration(
    mdp: FiniteMDP, *, policy: np.ndarray | None = None, iterations: int = 1_000
) -> Solution:
    """Policy iteration (Howard 1960; Puterman, section 6.4), with exact policy evaluation.

    An action is replaced only if another is better by more than rounding error, so that the
    iteration ends despite ties. The bound is that of `value_iteration` for a backup of the last
    policy's values.

    Args:
        mdp: the MDP to solve.
        policy: the policy to start from, (S,) actions. With discount 1 it must terminate
            from every state; the default then takes a shortest path to a terminal state.
        iterations: maximum number of policies to evaluate.

    Raises:
        ValueError: iterations below one, a policy that is not (S,) actions, an MDP as in
            `value_iteration`; with discount 1, a policy that never terminates from some state.
    """
    _check_limits(1.0, iterations, "iterations")
    table = _table(mdp)
    states, actions = table.rewards.shape
    if policy is None:
        policy = (
            _terminating_policy(table) if table.discount == 1 else np.zeros(states, dtype=np.int64)
        )
    unit = min(1.0, np.abs(table.rewards).max())  # of rounding error, where rewards are small
    chosen = np.array(policy)
    if chosen.shape != (states,) or not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError(f"a policy is (S,) = ({states},) integers, got {chosen.shape}")
    if chosen.min() < 0 or chosen.max() >= actions:
        raise ValueError(f"a policy's actions must lie in 0..{actions - 1}")
    for done in range(1, iterations + 1):
        values = _evaluate(table, chosen)
        solution, _ = _solution(table, values, done)
        own = np.take_along_axis(solution.action_values, chosen[:, None], 1)[:, 0]
        gain = solution.action_values.max(1) - own
        better = gain > 1e-12 * (unit + np.abs(values).max())
        if not better.any():
            break
        chosen = np.where(better, solution.policy, chosen)
    # also a bound for the returned policy, which need not be greedy
    bound = solution.bound
    if table.discount < 1:
        bound = max(bound, solution.residual / (1 - table.discount))
    return solution._replace(policy=chosen, bound=bound)


class _Table(NamedTuple):
    csr: tuple[np.ndarray, np.ndarray, np.ndarray]  # indptr, indices, data
    rows: sparse.csr_array  # the same as a sparse array
    rewards: np.ndarray  # (S, A)
    discount: float
    live: np.ndarray  # (S,) bool
    longest: int  # largest number of next states of a state and action


def _table(mdp: FiniteMDP) -> _Table:
    live = ~np.asarray(mdp.terminal, dtype=bool)
    rewards = np.ascontiguousarray(mdp.rewards, dtype=float)
    rows: Any = sparse.csr_array(mdp.transitions)
    if rewards.ndim != 2 or rows.shape != (rewards.size, len(live)) or len(rewards) != len(live):
        raise ValueError(
            f"transitions must be (S · A, S), rewards (S, A) and terminal (S,), "
            f"got {rows.shape}, {rewards.shape} and {live.shape}"
        )
    if not (np.isfinite(rewards).all() and np.isfinite(rows.data).all()):
        raise ValueError("transitions or rewards hold a number that is not finite")
    if not 0 <= mdp.discount <= 1:
        raise ValueError(f"discount must lie in [0, 1], got {mdp.discount!r}")
    # int32, because memory bandwidth limits sweeps; more states than that would not fit in memory
    indices = (np.asarray(rows.indptr, dtype=np.int64), np.asarray(rows.indices, dtype=np.int32))
    csr = (*indices, np.asarray(rows.data, dtype=float))
    longest = int(np.diff(rows.indptr).max(initial=0))
    return _Table(csr, rows, rewards, float(mdp.discount), live, longest)


def _lower_values(table: _Table) -> np.ndarray:
    """Values V (S,) with V <= T V, from which backups increase monotonically to V*."""
    if table.discount == 1:
        return _evaluate(table, _terminating_policy(table))
    least = table.rewards[table.live].min(initial=math.inf if table.live.all() else 0.0)
    return np.where(table.live, least / (1 - table.discount), 0.0)


def _solution(table: _Table, values: np.ndarray, done: int) -> tuple[Solution, np.ndarray]:
    """The solution from one synchronous backup T V of the values, and T V."""
    action_values, policy = np.empty_like(table.rewards), np.empty(len(values), dtype=np.int64)
    backed = np.empty_like(values)
    _backup(*table.csr, table.rewards, table.discount, values, action_values, backed, policy)
    change = backed - values  # 0 at terminal states
    residual = float(np.abs(change).max())
    if table.discount == 1:
        return Solution(backed, action_values, policy, done, residual, math.inf), backed
    ratio = table.discount / (1 - table.discount)
    middle = ratio * (change.max() + change.min()) / 2
    bound = ratio * (change.max() - change.min()) / 2 + _rounding(table, values)
    best = np.where(table.live, backed + middle, backed)
    np.add(action_values, middle, out=action_values, where=table.live[:, None])
    return Solution(best, action_values, policy, done, residual, float(bound)), backed


def _rounding(table: _Table, values: np.ndarray) -> float:
    """The most by which rounding in one backup changes the bounds (Higham 2002, section 3.1)."""
    size = np.abs(table.rewards).max(initial=0) + np.abs(values).max(initial=0)
    unit = (table.longest + 4) * np.finfo(float).eps * size
    return float(unit if table.discount == 1 else unit / (1 - table.discount))


def _converged(table: _Table, solution: Solution, tolerance: float) -> bool:
    reached = solution.residual if table.discount == 1 else solution.bound
    return reached <= max(tolerance, 2 * _rounding(table, solution.values))


def _evaluate(table: _Table, policy: np.ndarray) -> np.ndarray:
    """V (S,) of a policy (S,) of actions, by a sparse LU factorisation.

    Raises ValueError if the discount is 1 and the policy never terminates from some state.
    """
    states, actions = table.rewards.shape
    chain = table.rows[np.arange(states) * actions + policy]
    if table.discount == 1:
        stuck = np.isinf(_steps_to_end(chain, table.live, 1))
        if stuck.any():
            raise ValueError(
                f"with discount 1 a policy must end from every state; this one never ends from "
                f"state {int(stuck.argmax())}"
            )
    matrix = sparse.csc_array(sparse.eye_array(states) - table.discount * chain)
    return splu(matrix).solve(table.rewards[np.arange(states), policy])


def _terminating_policy(table: _Table) -> np.ndarray:
    """A policy (S,) that terminates from every state.

    Each action leads, with positive probability, to a state that is fewer transitions away from a
    terminal state.
    """
    states, actions = table.rewards.shape
    steps = _steps_to_end(table.rows, table.live, actions)
    edges = table.rows.tocoo()
    nearest = np.full(states * actions, np.inf)
    np.minimum.at(nearest, edges.row, steps[edges.col])
    return nearest.reshape(states, actions).argmin(1)


def _steps_to_end(rows: Any, live: np.ndarray, actions: int) -> np.ndarray:
    """Transitions (S,) on the shortest path to a terminal state; infinite if there is none."""
    edges = rows.tocoo()
    before = sparse.csr_array(
        (np.ones(len(edges.row), dtype=np.int8), (edges.col, edges.row // actions)),
        shape=(len(live), len(live)),
    )  # row: a state, columns: the states from which it can be reached
    steps = np.where(live, np.inf, 0.0)
    front, far = np.flatnonzero(~live), 0
    while len(front):
        far += 1
        found = np.unique(before[front].indices)
        front = found[np.isinf(steps[found])]
        steps[front] = far
    return steps


def _check_limits(tolerance: float, count: int, name: str) -> None:
    if not tolerance > 0:
        raise ValueError(f"tolerance must be above 0, got {tolerance!r}")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count!r}")


@compiled
def _backup(starts, after, weights, rewards, discount, values, action_values, backed, policy):
    """One synchronous backup of every state."""
    for s in range(len(rewards)):
        backed[s] = -np.inf
        for a in range(rewards.shape[1]):
            row = s * rewards.shape[1] + a
            value = 0.0
            for k in range(starts[row], starts[row + 1]):
                value += weights[k] * values[after[k]]
            action_values[s, a] = rewards[s, a] + discount * value
            if action_values[s, a] > backed[s]:
                backed[s], policy[s] = action_values[s, a], a


@compiled
def _without_self_transitions(starts, after, weights, rewards, discount):
    """Discounted probabilities (K,) and rewards (S, A) of actions repeated until the state changes.

    This removes self-transitions exactly (Puterman, section 6.3.3), and discounts once instead of
    in every sweep. With discount 1, an action that never leaves its state gets the reward -inf.
    """
    actions = rewards.shape[1]
    weights, rewards = discount * weights, rewards.copy()
    for row in range(len(starts) - 1):
        s, a = row // actions, row % actions
        stays = 0.0
        for k in range(starts[row], starts[row + 1]):
            if after[k] == s:
                stays += weights[k]
                weights[k] = 0.0
        away = 1 - stays
        rewards[s, a] = rewards[s, a] / away if away > 0 else -np.inf
        for k in range(starts[row], starts[row + 1]):
            weights[k] = weights[k] / away if away > 0 else 0.0
    return weights, rewards


@compiled
def _sweep(starts, after, weights, rewards, values, policy, backward):
    """One Gauss-Seidel sweep of value iteration; writes its policy, returns the largest change."""
    states, actions = rewards.shape
    change = 0.0
    for i in range(states):
        s = states - 1 - i if backward else i
        best = -np.inf
        for a in range(actions):
            row = s * actions + a
            value = rewards[s, a]
            for k in range(starts[row], starts[row + 1]):
                value += weights[k] * values[after[k]]
            if value > best:
                best, policy[s] = value, a
        change = max(change, abs(best - values[s]))
        values[s] = best
    return change


@compiled
def _evaluation_sweep(starts, after, weights, rewards, values, policy, backward):
    """One Gauss-Seidel sweep of policy evaluation."""
    states, actions = rewards.shape
    for i in range(states):
        s = states - 1 - i if backward else i
        row = s * actions + policy[s]
        value = rewards[s, policy[s]]
        for k in range(starts[row], starts[row + 1]):
            value += weights[k] * values[after[k]]
        if value > -np.inf:
            values[s] = value


@compiled
def _policy_backup(starts, after, weights, rewards, discount, values, policy):
    """One synchronous backup of every state under a policy."""
    backed = np.empty_like(values)
    for s in range(len(values)):
        row = s * rewards.shape[1] + policy[s]
        value = 0.0
        for k in range(starts[row], starts[row + 1]):
            value += weights[k] * values[after[k]]
        backed[s] = rewards[s, policy[s]] + discount * value
    return backed
