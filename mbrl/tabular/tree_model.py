"""Finite MDPs as a model for tree search, with all outcomes of an action and compiled rollouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numba import njit
from torch import Generator, Tensor

from mbrl.types import ArrivalRewards, FiniteMDP
from planners.mcts import Evaluation, Rule, Tree, search


class FiniteTreeModel:
    """W finite MDPs of equal size, searched in one batch by `planners.mcts.search`.

    State s of MDP w has the number w · S + s; states are tensors of shape (B, 1). The value of a
    leaf is given by `value`, or is the return of one rollout of uniformly random actions.

    Args:
        mdps: W MDPs with the same S, A and discount. If their rewards depend on the next state, an
            attribute `arrival` holds the reward of each of the nonzero `transitions`.
        units: (W,) numbers by which the rewards of each MDP are divided.
        value: function that returns the values of states (B,), in these units; None for rollouts.
        depth: maximum number of steps of a rollout.
        rng: random stream of the rollouts.

    Attributes:
        discount: γ.
        actions: A.
        terminal: (W · S,) bool.
        outcomes: largest number of outcomes of an action, or None if each has one; for `search`.
    """

    def __init__(
        self,
        mdps: Sequence[FiniteMDP],
        units: Sequence[float],
        *,
        value: Callable[[np.ndarray], np.ndarray] | None = None,
        depth: int = 200,
        rng: np.random.Generator,
    ) -> None:
        states, self.actions = mdps[0].rewards.shape
        self.discount = mdps[0].discount
        self.terminal = np.concatenate([mdp.terminal for mdp in mdps])
        most = max(int(np.diff(mdp.transitions.indptr).max()) for mdp in mdps)
        tables = [
            _table(mdp, unit, w * states, most)
            for w, (mdp, unit) in enumerate(zip(mdps, units, strict=True))
        ]
        self._table = tuple(map(np.concatenate, zip(*tables, strict=True)))
        self.outcomes = most if most > 1 else None
        self._value, self._depth, self._rng = value, depth, rng

    def root(self, start: np.ndarray) -> Evaluation:
        """Root nodes for states (B,), with uniform priors."""
        level = torch.zeros(len(start), self.actions)
        return Evaluation(_column(start), level[:, 0], self.value(start), level)

    def step(self, state: Tensor, action: Tensor) -> Evaluation:
        """All outcomes and their probabilities; in deterministic MDPs the single outcome.

        States (B, 1), actions (B,). Where an action has fewer outcomes than `outcomes`, the others
        have probability 0.
        """
        targets, cumulative, rewards = self._table
        row = state[:, 0].long().numpy() * self.actions + action.numpy()
        if self.outcomes is None:
            after, pay, chance = targets[row, 0], rewards[row, 0], None
        else:
            after, pay = targets[row], rewards[row]
            chance = torch.from_numpy(np.diff(cumulative[row].clip(max=1), axis=1, prepend=0))
        return Evaluation(
            _column(after),
            torch.from_numpy(pay),
            self.value(after.ravel()).reshape(pay.shape),
            terminated=torch.from_numpy(self.terminal[after]),
            chance=chance,
        )

    def value(self, state: np.ndarray) -> Tensor:
        """Values (B,) of states (B,)."""
        if self._value is not None:
            return torch.from_numpy(self._value(state))
        draws = self._rng.random((len(state), self._depth, 2))
        arguments = (state, draws, self.actions, self.discount, self.terminal, *self._table)
        return torch.from_numpy(rollout_returns(*arguments))

    def search(
        self,
        start: np.ndarray,
        rule: Rule,
        *,
        simulations: int,
        least: float = 1e-4,
        generator: Generator,
        **options: Any,
    ) -> Tree:
        """Trees from states (B,), at most as deep as the smallest d with γᵈ <= `least`.

        `options` are passed to `planners.mcts.search`. Raises ValueError for a discount of 0 or 1,
        for which there is no such d.
        """
        if not 0 < self.discount < 1:
            raise ValueError(f"the discount must lie between 0 and 1, got {self.discount!r}")
        return search(
            self.root(start),
            self.step,
            simulations=simulations,
            generator=generator,
            rule=rule,
            discount=self.discount,
            max_depth=math.ceil(math.log(least) / math.log(self.discount)),
            outcomes=self.outcomes,
            **options,
        )


class Optimum(Protocol):
    """Optimal values; `envs.tabular.Optimum` is one."""

    @property
    def values(self) -> np.ndarray:
        """V* (S,)."""
        ...

    @property
    def action_values(self) -> np.ndarray:
        """Q* (S, A)."""
        ...


class SolvedMDP(FiniteMDP, Protocol):
    """A known MDP that can compute exact values; `envs.FiniteMDP` is one."""

    def optimum(self) -> Optimum:
        """V* and Q*."""
        ...

    def evaluate(self, policy: np.ndarray) -> np.ndarray:
        """V_π (S,) of a policy (S, A)."""
        ...


class Stakes(NamedTuple):
    """How much depends on the choice of action in each of B states."""

    optimal: np.ndarray  # (B,), share of the actions that are optimal
    gap: np.ndarray  # (B,), loss of the best action that is not optimal; infinite if all are


class SearchErrors(NamedTuple):
    """Errors of trees from B roots, compared with exact values."""

    chosen: np.ndarray  # (B,), |V - V*| of the chosen action's value
    mean: np.ndarray  # (B,), |V - V*| of the mean over simulations at the root
    optimal: np.ndarray  # (B,) bool, whether the chosen action is one of the best


class ScaledTreeModel(FiniteTreeModel):
    """Finite MDPs scaled so that UCT's usual constant C = 1/√2 fits, with their exact values.

    That constant assumes returns in a range of 1. The rewards of each MDP are divided by the range
    from the least value of the uniformly random policy to the largest V*.

    Args:
        mdps: as for `FiniteTreeModel`.
        rollouts: whether the values of leaves are those of random rollouts; else they are `guess`.
        noise: std of the errors in `guess`.
        depth: maximum number of steps of a rollout.
        rng: random stream of the errors and the rollouts.

    Attributes:
        mdps: as given.
        values: V* (W · S,), scaled.
        action_values: Q* (W · S, A), scaled.
        guess: V* plus a fixed random error for each state, (W · S,), scaled.
    """

    def __init__(
        self,
        mdps: Sequence[SolvedMDP],
        *,
        rollouts: bool = True,
        noise: float = 0.1,
        depth: int = 200,
        rng: np.random.Generator,
    ) -> None:
        self.mdps = mdps
        optima = [mdp.optimum() for mdp in mdps]
        shape = mdps[0].rewards.shape
        random = [mdp.evaluate(np.full(shape, 1 / shape[1])) for mdp in mdps]
        units = [best.values.max() - low.min() for best, low in zip(optima, random, strict=True)]
        pairs = list(zip(optima, units, strict=True))
        self.values = np.concatenate([best.values / unit for best, unit in pairs])
        self.action_values = np.concatenate([best.action_values / unit for best, unit in pairs])
        self.guess = self.values + noise * rng.standard_normal(len(self.values))
        value = None if rollouts else self.guess.__getitem__
        super().__init__(mdps, units, value=value, depth=depth, rng=rng)

    def errors(self, tree: Tree, start: np.ndarray) -> SearchErrors:
        """Errors of trees that `search` built from states (B,), compared with V* and Q*."""
        action, truth = tree.action.long(), self.values[start]
        chosen = tree.children_values().gather(1, action[:, None])[:, 0].numpy()
        optimal = self.action_values[start, action.numpy()] >= truth - _TOLERANCE
        return SearchErrors(
            np.abs(chosen - truth), np.abs(tree.value.numpy() - truth), np.asarray(optimal)
        )

    def stakes(self, start: np.ndarray) -> Stakes:
        """How much depends on the choice of action in states (B,)."""
        loss = self.values[start, None] - self.action_values[start]
        best = loss <= _TOLERANCE
        return Stakes(best.mean(1), np.where(best, np.inf, loss).min(1))


_TOLERANCE = 1e-9
"""Action values that differ by no more than this count as equal, because of rounding errors."""


@njit(cache=True, nogil=True)
def rollout_returns(start, draws, actions, discount, terminal, targets, cumulative, rewards):
    """The returns (B,) of random rollouts from states (B,), given uniform draws (B, T, 2)."""
    gains = np.zeros(len(start))
    for b in range(len(start)):
        state, weight = start[b], 1.0
        for t in range(draws.shape[1]):
            if terminal[state]:
                break
            row, k = state * actions + int(draws[b, t, 0] * actions), 0
            while draws[b, t, 1] >= cumulative[row, k]:
                k += 1
            gains[b] += weight * rewards[row, k]
            weight *= discount
            state = targets[row, k]
    return gains


def _table(mdp: FiniteMDP, unit: float, first: int, most: int) -> tuple[np.ndarray, ...]:
    """Next states numbered from `first`, cumulative probabilities and rewards, each (S · A, K).

    The cumulative probability is infinite from a pair's last outcome on, so that a draw always
    finds an outcome.
    """
    rows, arrival = mdp.transitions, mdp.arrival if isinstance(mdp, ArrivalRewards) else None
    counts = np.diff(rows.indptr)
    row = np.repeat(np.arange(len(counts)), counts)
    at = row, np.arange(rows.nnz) - rows.indptr[row]
    targets = np.full((len(counts), most), first)
    chances, rewards = np.zeros(targets.shape), np.zeros(targets.shape)
    targets[at], chances[at] = first + rows.indices, rows.data
    rewards[at] = mdp.rewards.ravel()[row] if arrival is None else arrival.data
    cumulative = chances.cumsum(1)
    cumulative[np.arange(most) >= counts[:, None] - 1] = np.inf
    return targets, cumulative, rewards / unit


def _column(state: np.ndarray) -> Tensor:
    return torch.from_numpy(state[..., None].astype(np.float32))
