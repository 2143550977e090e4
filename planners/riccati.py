"""Exact solutions of linear-quadratic control problems with finite and infinite horizon."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

UNSTABLE = "the Riccati equation has no solution that stabilises the system"


class Feedback(NamedTuple):
    """u_t = gain_t x + offset_t, and the cost-to-go ½ xᵀ P_t x + p_tᵀ x + constant."""

    gain: np.ndarray  # (H, A, S)
    offset: np.ndarray  # (H, A)
    value_xx: np.ndarray  # P (H + 1, S, S)
    value_x: np.ndarray  # p (H + 1, S)


def lqr(
    fx: np.ndarray,
    fu: np.ndarray,
    lxx: np.ndarray,
    luu: np.ndarray,
    *,
    lux: np.ndarray | float = 0.0,
    lx: np.ndarray | float = 0.0,
    lu: np.ndarray | float = 0.0,
    constant: np.ndarray | float = 0.0,
    horizon: int | None = None,
) -> Feedback:
    """The optimal feedback of the finite-horizon problem, by the Riccati recursion, in float64.

    Minimises Σ_t ½ xᵀ lxx x + uᵀ lux x + ½ uᵀ luu u + lxᵀ x + luᵀ u over t < H, plus
    ½ xᵀ lxx_H x + lx_Hᵀ x, for x' = fx x + fu u + constant (Bertsekas, "Dynamic Programming
    and Optimal Control", vol. I, ch. 3).

    Args:
        fx, fu: dynamics (H, S, S), (H, S, A).
        lxx, luu: cost (H + 1, S, S), the last being the terminal cost, and (H, A, A).
        lux, lx, lu, constant: cross terms (H, A, S), linear ones (H + 1, S), (H, A), drift (H, S).
        horizon: H of a time-invariant problem, whose arguments have no leading dimension of
            time; lxx is then also the terminal cost.

    Raises:
        ValueError: the cost is not strictly convex in u at some step.
    """
    steps = len(fx) if horizon is None else horizon
    size, count = fu.shape[-2:]
    fx, fu, luu, lux, lu, constant = (
        np.broadcast_to(np.asarray(part, dtype=np.float64), (steps, *shape))
        for part, shape in (
            (fx, (size, size)),
            (fu, (size, count)),
            (luu, (count, count)),
            (lux, (count, size)),
            (lu, (count,)),
            (constant, (size,)),
        )
    )
    lxx = np.broadcast_to(np.asarray(lxx, dtype=np.float64), (steps + 1, size, size))
    lx = np.broadcast_to(np.asarray(lx, dtype=np.float64), (steps + 1, size))
    value_xx, value_x = lxx.copy(), lx.copy()
    gain, offset = np.empty((steps, count, size)), np.empty((steps, count))
    for t in reversed(range(steps)):
        ahead, slope = value_xx[t + 1], value_x[t + 1] + value_xx[t + 1] @ constant[t]
        q_uu = luu[t] + fu[t].T @ ahead @ fu[t]
        q_ux = lux[t] + fu[t].T @ ahead @ fx[t]
        q_u = lu[t] + fu[t].T @ slope
        try:
            np.linalg.cholesky(q_uu)
        except np.linalg.LinAlgError as error:
            raise ValueError(f"the cost is not convex in u at step {t}") from error
        gain[t] = -np.linalg.solve(q_uu, q_ux)
        offset[t] = -np.linalg.solve(q_uu, q_u)
        whole = lxx[t] + fx[t].T @ ahead @ fx[t] + q_ux.T @ gain[t]
        value_xx[t] = (whole + whole.T) / 2
        value_x[t] = lx[t] + fx[t].T @ slope + q_ux.T @ offset[t]
    return Feedback(gain, offset, value_xx, value_x)


def stationary_lqr(
    fx: np.ndarray,
    fu: np.ndarray,
    lxx: np.ndarray,
    luu: np.ndarray,
    *,
    lux: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Gain (A, S) and P (S, S) of the infinite horizon: u = gain x, cost-to-go ½ xᵀ P x.

    The stabilising solution of the discrete algebraic Riccati equation, in float64: the least cost
    among the gains that bring every state to rest. Policy iteration from a stabilising gain (Hewer
    1971, "An iterative technique for the computation of the steady state gains for the discrete
    optimal regulator"). Arguments as in `lqr`, without time.

    Raises ValueError if no gain stabilises the system, or if the spectral radius of the optimal
    closed loop is above 1 - 1e-7, too close to 1 to be computed reliably, as with an undamped mode
    that does not affect the cost.
    """
    fx, fu, lxx, luu = (np.asarray(part, dtype=np.float64) for part in (fx, fu, lxx, luu))
    lux = np.zeros((fu.shape[1], fu.shape[0])) if lux is None else np.asarray(lux, dtype=float)

    def greedy(value: np.ndarray) -> np.ndarray:
        return -np.linalg.solve(luu + fu.T @ value @ fu, fu.T @ value @ fx + lux)

    # With a cost on every mode the optimal gain stabilises the system if any gain does.
    size = np.abs(lxx).max() + np.abs(lux.T @ np.linalg.solve(luu, lux)).max()
    every = (2 * len(fx) * size or 1.0) * np.eye(len(fx))
    value = _riccati_by_doubling(fx, fu, lxx + every, luu, lux)
    gain = greedy(value)
    for _ in range(60):
        closed = fx + fu @ gain
        if not np.abs(np.linalg.eigvals(closed)).max() <= 1 - 1e-7:
            break
        cross = gain.T @ lux
        value = _sum_by_doubling(closed, lxx + cross + cross.T + gain.T @ luu @ gain)
        last, gain = gain, greedy(value)
        if np.allclose(gain, last, rtol=1e-12, atol=1e-300):
            break
    if not np.abs(np.linalg.eigvals(fx + fu @ gain)).max() <= 1 - 1e-7:
        raise ValueError(UNSTABLE)
    return gain, value


def _riccati_by_doubling(
    fx: np.ndarray, fu: np.ndarray, lxx: np.ndarray, luu: np.ndarray, lux: np.ndarray
) -> np.ndarray:
    """P (S, S) for a cost on every mode; ValueError if no gain stabilises the system.

    Each iteration doubles the horizon (Chu, Fan, Lin and Wang 2004, "Structure-preserving
    algorithms for periodic discrete-time algebraic Riccati equations").
    """
    move = fx - fu @ np.linalg.solve(luu, lux)
    push = fu @ np.linalg.solve(luu, fu.T)
    value = lxx - lux.T @ np.linalg.solve(luu, lux)
    eye = np.eye(len(fx))
    for _ in range(64):
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                inverse = np.linalg.inv(eye + push @ value)
            except np.linalg.LinAlgError:
                break
            more = move.T @ value @ inverse @ move
            push = push + move @ inverse @ push @ move.T
            move = move @ inverse @ move
            value = value + (more + more.T) / 2
        if not np.isfinite(value).all():
            break
        if np.abs(more).max() <= 1e-15 * np.abs(value).max():
            return value
    raise ValueError(UNSTABLE)


def _sum_by_doubling(closed: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Σ_t (closedᵀ)^t cost closed^t (S, S) for a stable matrix (Smith 1968)."""
    value = (cost + cost.T) / 2
    for _ in range(64):
        with np.errstate(over="ignore", invalid="ignore"):
            more = closed.T @ value @ closed
            value, closed = value + (more + more.T) / 2, closed @ closed
        if not np.isfinite(value).all():
            break
        if np.abs(more).max() <= 1e-17 * np.abs(value).max():
            return value
    raise ValueError(UNSTABLE)
