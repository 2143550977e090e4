"""The arrays of a `TabularLearner`: values, visits, and steps not yet learned from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mbrl.tabular.config import TabularConfig
from planners.compile import compiled

FIRST, LAST, NEXT_STATE, WAITING, EPISODE, TRACED = range(6)
"""Indices in `Memory.counters`: the first stored step not yet learned from, the index after the
last one, the next state of the last step, whether the last step needs the next action before it can
be learned from (0 or 1), the number of the episode, and the number of pairs with a trace."""


class Memory(NamedTuple):
    """Everything that a learner stores, as arrays that compiled code changes in place.

    Compiled functions that take it at every step are inlined: a call updates the reference counts
    of all its arrays, which takes longer than most of these functions.
    """

    tables: np.ndarray  # (1, S, A) action values, or (2, S, A) for double Q-learning
    visits: np.ndarray  # int, shape of `tables`: number of updates of each pair
    means: np.ndarray  # with averaging, shape of `tables`: means over time; else (0, S, A)
    states: np.ndarray  # (capacity,) int; with the next two, steps of the current episode
    actions: np.ndarray  # (capacity,) int
    rewards: np.ndarray  # (capacity,)
    last_episode: np.ndarray  # with first_visit, (S, A) int: each pair's last episode; else (0, 0)
    traces: np.ndarray  # (S · A,); (0,) without traces
    traced: np.ndarray  # int, like `traces`; begins with the pairs whose trace is not 0
    counters: np.ndarray  # (6,) int
    old_value: np.ndarray  # (1,) Q_old of the current pair, for dutch traces (S&B, section 12.7)


def empty_memory(states: int, actions: int, config: TabularConfig) -> Memory:
    """The memory of a new learner."""
    shape = (2 if config.target == "double" else 1, states, actions)
    tables = np.full(shape, float(config.initial))
    capacity = max(64, 2 * (config.n_step or 0))
    pairs = states * actions if config.trace_decay else 0
    return Memory(
        tables=tables,
        visits=np.zeros(shape, dtype=np.int64),
        means=tables.copy() if config.averaging else np.zeros((0, states, actions)),
        states=np.zeros(capacity, dtype=np.int64),
        actions=np.zeros(capacity, dtype=np.int64),
        rewards=np.zeros(capacity),
        last_episode=np.zeros((states, actions) if config.first_visit else (0, 0), dtype=np.int64),
        traces=np.zeros(pairs),
        traced=np.zeros(pairs, dtype=np.int64),
        counters=np.array([0, 0, 0, 0, 1, 0]),
        old_value=np.zeros(1),
    )


def double_capacity(memory: Memory) -> Memory:
    """A memory with the same content and room for twice as many steps."""
    steps = {
        name: np.resize(getattr(memory, name), 2 * len(memory.states))
        for name in ("states", "actions", "rewards")
    }
    return memory._replace(**steps)


def mid_episode(memory: Memory) -> bool:
    """Whether the learner is in the middle of an episode, so that the next step must follow."""
    counters = memory.counters
    return bool(counters[WAITING] or counters[LAST] > counters[FIRST] or counters[TRACED])


@compiled(inline="always")
def make_room(memory):
    """Move the stored steps to the front if needed; returns whether one more step fits."""
    counters = memory.counters
    first, kept = counters[FIRST], counters[LAST] - counters[FIRST]
    if kept == 0 or (counters[LAST] == len(memory.states) and first > 0):
        for t in range(kept):
            memory.states[t] = memory.states[first + t]
            memory.actions[t] = memory.actions[first + t]
            memory.rewards[t] = memory.rewards[first + t]
        counters[FIRST], counters[LAST] = 0, kept
    return counters[LAST] < len(memory.states)
