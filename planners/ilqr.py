"""Iterative LQR with bounds on the actions, through a model that gives derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from planners.base import Plan
from planners.checks import NonNegativeFloat, PositiveInt, Rounds, check_fields, require
from planners.search import Clock, Search

STEP_LENGTHS = tuple(10 ** (-3 * i / 10) for i in range(11))
"""Step lengths tried in one batch (Tassa et al. 2012)."""


class Expansion(NamedTuple):
    """Dynamics to first order and cost to second, in the tangent space, around a trajectory.

    With dx = difference(x, x̄) and du = u - ū: dx' = fx dx + fu du, and the cost is
    lxᵀ dx + luᵀ du + ½ dxᵀ lxx dx + duᵀ lux dx + ½ duᵀ luu du; the last entries of lx and lxx are
    the terminal cost.
    """

    fx: Tensor  # (H, S, S)
    fu: Tensor  # (H, S, A)
    lx: Tensor  # (H + 1, S)
    lu: Tensor  # (H, A)
    lxx: Tensor  # (H + 1, S, S)
    luu: Tensor  # (H, A, A)
    lux: Tensor  # (H, A, S)


class Smooth(Protocol):
    """A model, its cost and its initial state.

    States have X numbers. Their differences have S: on a manifold, such as with
    quaternions, S < X.
    """

    def rollout(
        self, policy: Callable[[int, Tensor], Tensor], count: int, horizon: int
    ) -> tuple[Tensor, Tensor]:
        """States (N, H + 1, X) and costs (N,) of N = `count` trajectories side by side.

        `policy(t, states (N, X)) -> (N, A)` is called for t = 0, 1, ..., H - 1 in turn.
        """
        ...

    def difference(self, states: Tensor, origin: Tensor) -> Tensor:
        """`states` minus `origin`, each (..., X), in the tangent space at `origin`, (..., S)."""
        ...

    def expand(self, states: Tensor, actions: Tensor) -> Expansion:
        """Derivatives along states (H + 1, X) and actions (H, A)."""
        ...


@dataclass(frozen=True, eq=False)
class ILQR:
    """Control-limited differential dynamic programming (Tassa, Mansard and Todorov 2014),
    with first derivatives of the dynamics only: iterative LQR (Li and Todorov 2004).

    A round expands the model along the plan, solves the linear-quadratic problem backwards
    with the bounds as constraints, and tries the result at eleven step lengths in one batch of
    closed-loop rollouts. A step is taken only if it lowers the cost; otherwise the
    regularisation of the states is raised. `plan` takes a `Smooth` model instead of a score, so
    iLQR is not in `PLANNERS`. With `MPC`, `make_score` returns the model, which must repeat
    actions itself. No random numbers are drawn. The linear algebra runs on the CPU in float64.
    Raises ValueError, on building, for bounds that are not finite with low < high, and for sizes
    out of range.
    """

    low: Tensor
    """Lower bounds (A,), finite."""
    high: Tensor
    """Upper bounds (A,), finite, above `low`."""
    horizon: PositiveInt
    """H, the number of actions in a plan."""
    _: KW_ONLY
    iterations: Rounds = 50
    """Maximum number of rounds; fewer if the plan no longer improves."""
    tolerance: NonNegativeFloat = 1e-9
    """The search stops after a round that lowers the cost by less than this fraction."""
    maximises = "smooth"

    def __post_init__(self) -> None:
        _ = self._box
        check_fields(self)

    @cached_property
    def _box(self) -> Search:
        return Search(self.low, self.high, self.horizon)

    def shift(self, plan: Plan, steps: int) -> Plan:
        """`plan` without its first `steps` actions, its last action repeated at the end."""
        return self._box.shift(plan, steps)

    @torch.no_grad()
    def plan(
        self,
        model: Smooth,
        start: Plan | None,
        *,
        generator: Generator,
        deadline: float | None = None,
    ) -> Plan:
        """Improve `start`, or the middle of the box if it is None or its cost is not finite.

        The plan's score is minus its cost, its mean the actions and its std zero; `evaluated`
        counts rollouts and `rounds` backward passes. If no cost is finite the answer is the
        middle of the box with score -inf. A `deadline` is met as in `Search.plan`. Raises
        ValueError for a start of other shapes, and where the model's derivatives are not finite.
        """
        clock = None if deadline is None else Clock(deadline)
        actions, _, _ = self._box.begin(start)
        states, _, cost, _ = self._roll(model, actions, None)
        evaluated, rejected, rounds = 1, int(not math.isfinite(cost)), 0
        if rejected and start is not None:
            actions, _, _ = self._box.begin(None)
            states, _, cost, bad = self._roll(model, actions, None)
            evaluated, rejected = 2, 1 + bad
        expansion, regularisation = None, 0.0
        while rounds < self.iterations and math.isfinite(cost):
            if expansion is None:
                with torch.enable_grad():  # the model may use autograd
                    derivatives = model.expand(states, actions)
                expansion = [part.detach().double().cpu().numpy() for part in derivatives]
                require(
                    all(np.isfinite(part).all() for part in expansion),
                    "the model's derivatives are not finite",
                )
            law, regularisation = self._backward(expansion, actions, regularisation)
            new_states, new_actions, new_cost, bad = self._roll(model, actions, (states, *law))
            evaluated, rejected, rounds = evaluated + len(STEP_LENGTHS), rejected + bad, rounds + 1
            gained = cost - new_cost
            if gained > 0:
                states, actions, cost, expansion = new_states, new_actions, new_cost, None
                regularisation = regularisation / 10 if regularisation > 1e-6 else 0.0
            else:
                regularisation = max(10 * regularisation, 1e-6)
            settled = 0 <= gained <= self.tolerance * abs(float(cost)) or not law[0].any()
            out_of_time = clock is not None and not clock.tick(1)
            if out_of_time or settled or regularisation > 1e10:
                break
        return Plan(
            actions=actions.clone(),
            score=-cost if math.isfinite(cost) else torch.full_like(cost, -math.inf),
            mean=actions.clone(),
            std=torch.zeros_like(actions),
            elites=actions[None].clone() if math.isfinite(cost) else actions[None][:0],
            evaluated=evaluated,
            rejected=rejected,
            rounds=rounds,
        )

    def _roll(
        self, model: Smooth, actions: Tensor, law: tuple[Tensor, np.ndarray, np.ndarray] | None
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """The best of the rollouts: states, actions, cost, and how many were rejected.

        `law` is the reference states, the offsets (H, A) and the gains (H, A, S); without it the
        actions are executed open loop.
        """
        count = 1 if law is None else len(STEP_LENGTHS)
        taken = actions.repeat(count, 1, 1)
        if law is not None:
            origin, offset, gain = law[0], *(torch.as_tensor(x).to(actions) for x in law[1:])
            lengths = actions.new_tensor(STEP_LENGTHS)[:, None]

        def policy(t: int, states: Tensor) -> Tensor:
            if law is not None:
                away = model.difference(states, origin[t].expand_as(states)).to(gain)
                change = lengths * offset[t] + away @ gain[t].T
                taken[:, t] = (actions[t] + change).clamp(self.low, self.high)
            return taken[:, t].clone()

        states, costs = model.rollout(policy, count, self.horizon)
        finite = costs.isfinite() & states.flatten(1).isfinite().all(1)
        costs = torch.where(finite, costs, math.inf)
        best = int(costs.argmin())
        return states[best], taken[best], costs[best], int((~finite).sum())

    def _backward(
        self, expansion: list[np.ndarray], actions: Tensor, regularisation: float
    ) -> tuple[tuple[np.ndarray, np.ndarray], float]:
        """Offsets (H, A), gains (H, A, S) and the regularisation that made the problem convex."""
        low, high = ((bound - actions).double().cpu().numpy() for bound in (self.low, self.high))
        while True:
            try:
                return _solve(expansion, low, high, regularisation), regularisation
            except np.linalg.LinAlgError:
                regularisation = max(10 * regularisation, 1e-6)
                require(regularisation < 1e20, "the cost has no curvature to be regularised")


def _solve(
    expansion: list[np.ndarray], low: np.ndarray, high: np.ndarray, regularisation: float
) -> tuple[np.ndarray, np.ndarray]:
    """The backward pass; `low` and `high` (H, A) bound the change. LinAlgError if not convex."""
    fx, fu, lx, lu, lxx, luu, lux = expansion
    steps, size, count = fu.shape
    offset, gain = np.zeros((steps, count)), np.zeros((steps, count, size))
    slope, value = lx[-1], lxx[-1]
    guess = np.zeros(count)
    for t in reversed(range(steps)):
        x, u = fx[t], fu[t]
        ahead = u.T @ value
        q_x, q_u = lx[t] + x.T @ slope, lu[t] + u.T @ slope
        q_xx, q_uu, q_ux = lxx[t] + x.T @ value @ x, luu[t] + ahead @ u, lux[t] + ahead @ x
        # Regularising the states keeps the new trajectory near the old one, where the expansion
        # holds.
        stiff = q_uu + regularisation * (u.T @ u)
        guess, free = box_qp((stiff + stiff.T) / 2, q_u, low[t], high[t], guess)
        k, K = guess, gain[t]
        if free.any():
            cross = q_ux[free] + regularisation * (u.T @ x)[free]
            K[free] = -np.linalg.solve(stiff[np.ix_(free, free)], cross)
        offset[t] = k
        slope = q_x + K.T @ (q_uu @ k + q_u) + q_ux.T @ k
        mixed = K.T @ q_ux
        value = q_xx + K.T @ q_uu @ K + mixed + mixed.T
        value = (value + value.T) / 2
    return offset, gain


def box_qp(
    hessian: np.ndarray, slope: np.ndarray, low: np.ndarray, high: np.ndarray, guess: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The minimum (A,) of ½ xᵀ H x + gᵀ x in a box, and a mask (A,) of entries not at a bound.

    Projected Newton steps (Bertsekas 1982; Tassa et al. 2014, algorithm 1). Entries closer to a
    bound than 1e-10 of the box's width are set to it. Otherwise an entry that differs from
    its bound only by rounding would count as free, and the projected step would not lower the cost.
    Raises LinAlgError where H (A, A) is not positive definite.
    """
    np.linalg.cholesky(hessian)
    near = 1e-10 * (high - low)

    def projected(x: np.ndarray) -> np.ndarray:
        return np.where(x < low + near, low, np.where(x > high - near, high, x))

    x = projected(guess)
    scale = 1e-12 * (np.abs(slope).max() + np.abs(hessian).max() * np.abs(x).max() + 1e-300)
    cost = x @ (hessian @ x / 2 + slope)
    free = np.ones(len(x), dtype=bool)
    for _ in range(100):
        gradient = slope + hessian @ x
        free = ~((x <= low) & (gradient > 0) | (x >= high) & (gradient < 0))
        if not free.any() or np.abs(gradient[free]).max() <= scale:
            break
        step = np.zeros_like(x)
        step[free] = -np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        length = 1.0
        while True:
            trial = projected(x + length * step)
            new = trial @ (hessian @ trial / 2 + slope)
            if cost - new > 0.1 * max(gradient @ (x - trial), 0.0) or (trial == x).all():
                break
            length *= 0.6
        if not new < cost:
            break
        x, cost = trial, new
    return x, free
