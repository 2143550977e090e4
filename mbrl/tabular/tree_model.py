"""Finite MDPs as a model for tree search, with all outcomes of an action and compiled rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mbrl.types import FiniteMDP
from planners.mcts import Evaluation


class FiniteTreeModel:
    """W finite MDPs of equal size, searched together: `root` and `step` of `planners.mcts.search`.

    State s of MDP w has the number w · S + s; states are tensors of shape (B, 1). The value of a
    leaf is given by `value`, or is the return of one rollout of uniformly random actions.

    Args:
        mdps: W MDPs with the same S, A and discount. If their rewards depend on the next state, an
            attribute `arrival` holds the reward of each of the nonzero `transitions`.
        units: (W,), by which rewards are divided.
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
        """The roots for states (B,), with uniform priors."""
        level = torch.zeros(len(start), self.actions)
        return Evaluation(_column(start), level[:, 0], self.value(start), level)

    def step(self, state: Tensor, action: Tensor) -> Evaluation:
        """All outcomes and their probabilities; in deterministic MDPs the single outcome.

        If a pair has fewer outcomes than others, the rest have probability 0.
        """
        targets, upto, pays = self._table
        row = state[:, 0].long().numpy() * self.actions + action.numpy()
        if self.outcomes is None:
            after, pay, chance = targets[row, 0], pays[row, 0], None
        else:
            after, pay = targets[row], pays[row]
            chance = torch.from_numpy(np.diff(upto[row].clip(max=1), axis=1, prepend=0))
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
        return torch.from_numpy(walk(*arguments))


@njit(cache=True, nogil=True)
def walk(start, draws, actions, discount, terminal, targets, upto, pays):
    """Returns (B,) of random rollouts from states (B,), from uniform draws (B, T, 2)."""
    gains = np.zeros(len(start))
    for b in range(len(start)):
        state, weight = start[b], 1.0
        for t in range(draws.shape[1]):
            if terminal[state]:
                break
            row, k = state * actions + int(draws[b, t, 0] * actions), 0
            while draws[b, t, 1] >= upto[row, k]:
                k += 1
            gains[b] += weight * pays[row, k]
            weight *= discount
            state = targets[row, k]
    return gains


def _table(mdp: FiniteMDP, unit: float, first: int, most: int) -> tuple[np.ndarray, ...]:
    """Next states numbered from `first`, cumulative probabilities and rewards, each (S · A, K).

    The cumulative probability is infinite from a pair's last outcome on, so that a draw always
    finds an outcome.
    """
    rows, arrival = mdp.transitions, getattr(mdp, "arrival", None)
    counts = np.diff(rows.indptr)
    row = np.repeat(np.arange(len(counts)), counts)
    at = row, np.arange(rows.nnz) - rows.indptr[row]
    targets = np.full((len(counts), most), first)
    chances, pays = np.zeros(targets.shape), np.zeros(targets.shape)
    targets[at], chances[at] = first + rows.indices, rows.data
    pays[at] = mdp.rewards.ravel()[row] if arrival is None else arrival.data
    upto = chances.cumsum(1)
    upto[np.arange(most) >= counts[:, None] - 1] = np.inf
    return targets, upto, pays / unit


def _column(state: np.ndarray) -> Tensor:
    return torch.from_numpy(state[..., None].astype(np.float32))
