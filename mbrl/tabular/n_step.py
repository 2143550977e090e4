"""n-step methods and Monte Carlo (Sutton and Barto 2018, chapters 5 and 7)."""

from __future__ import annotations

import numpy as np

from mbrl.tabular.config import TREE, Q
from mbrl.tabular.memory import EPISODE, FIRST, LAST
from mbrl.tabular.targets import bootstrap, move_towards, trace_coefficient
from planners.compile import compiled


@compiled(inline="always")
def end_of_complete(counters, steps, episode_over):
    """The index after the last stored step that can be learned from.

    Such a step has its n rewards; at the end of an episode all stored steps can be learned from.
    """
    if episode_over:
        return counters[LAST]
    complete = steps > 0 and counters[LAST] - counters[FIRST] >= steps
    return counters[FIRST] + complete


@compiled
def learn_n_step(settings, memory, table, until, value):
    """Learn from the stored steps before index `until`, of which there is at least one.

    `value` is the value of the state after the last step. Targets are computed backward from it, as
    in S&B, equation 7.12 for Sarsa and 7.16 for tree backup. A Q-learning target stops at the first
    action that is not greedy, as tree backup for a greedy policy does.
    """
    counters = memory.counters
    first, last = counters[FIRST], counters[LAST]
    states, actions = memory.states, memory.actions
    off_policy = settings.target == TREE or settings.target == Q
    targets = np.empty(until - first)
    for t in range(last - 1, first - 1, -1):
        if t < last - 1 and off_policy:
            state, action = states[t + 1], actions[t + 1]
            coefficient = trace_coefficient(settings, memory, state, action)
            expected = bootstrap(settings, memory, table, state, -1)
            value = expected + coefficient * (value - memory.tables[table, state, action])
        value = memory.rewards[t] + settings.discount * value
        if t < until:
            targets[t - first] = value
    for t in range(first, until):
        state, action = states[t], actions[t]
        if memory.last_episode.size:  # with `first_visit`
            if memory.last_episode[state, action] == counters[EPISODE]:
                continue
            memory.last_episode[state, action] = counters[EPISODE]
        move_towards(settings, memory, table, state, action, targets[t - first])
    counters[FIRST] = until
