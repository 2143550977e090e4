"""Maximum-likelihood models from samples of a known MDP, and the errors of their optimal values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from scipy import sparse

from mbrl.dynamics.finite import Counts, FiniteModel
from mbrl.tabular.dynamic_programming import policy_iteration
from mbrl.types import FiniteMDP


def counted_models(
    mdp: FiniteMDP, counts: Sequence[int], *, rng: np.random.Generator
) -> Iterator[FiniteModel]:
    """One maximum-likelihood model for each total number of samples in `counts`.

    The samples of a model include those of the models before it. Each sample is the next state of
    a pair of state and action drawn uniformly from those of non-terminal states, as from a
    generative model. The expected reward of a pair is known once the pair was sampled; see
    `FiniteModel.likeliest` for the other pairs.

    Raises ValueError, when iterated, for counts that are not positive and rising.
    """
    if any(before >= after for before, after in pairwise([0, *counts])):
        raise ValueError(f"counts must be positive and rising, got {list(counts)}")
    rows, actions = mdp.transitions, mdp.rewards.shape[1]
    live = np.flatnonzero(np.repeat(~mdp.terminal, actions))
    visits, seen = np.zeros(mdp.rewards.size, dtype=np.int64), np.zeros(rows.nnz)
    for before, after in pairwise([0, *counts]):
        fresh = rng.multinomial(after - before, np.full(len(live), 1 / len(live)))
        visits[live] += fresh
        for row, n in zip(live, fresh, strict=True):
            own = slice(rows.indptr[row], rows.indptr[row + 1])
            seen[own] += rng.multinomial(n, rows.data[own] / rows.data[own].sum())
        next_states = sparse.csr_array((seen, rows.indices, rows.indptr), shape=rows.shape)
        rewards = mdp.rewards * visits.reshape(mdp.rewards.shape)
        yield FiniteModel.likeliest(Counts(next_states, rewards, mdp.terminal))


def counted_errors(
    mdp: FiniteMDP, values: np.ndarray, counts: Sequence[int], *, rng: np.random.Generator
) -> list[float]:
    """max |V - V*| for the optimal values V of each of `counted_models`; `values` (S,) is V*."""
    solved = (
        policy_iteration(model.mdp(mdp.discount)) for model in counted_models(mdp, counts, rng=rng)
    )
    return [float(np.abs(solution.values - values).max()) for solution in solved]
