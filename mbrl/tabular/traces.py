"""Eligibility traces: TD(λ), Sarsa(λ), Q(λ), tree backup(λ) and true online Sarsa(λ).

Sutton and Barto 2018, sections 12.2, 12.5, 12.7 and 12.10.
"""

from __future__ import annotations

from mbrl.tabular.config import ACCUMULATING, DUTCH, REPLACING
from mbrl.tabular.memory import FIRST, LAST, TRACED
from mbrl.tabular.targets import average, count_visit, trace_coefficient
from planners.compile import compiled

SMALLEST = 1e-20
"""Smaller traces are set to 0: the update through such a trace is below the rounding error of the
value, unless the TD error is 10⁴ times the value."""


@compiled
def learn_with_traces(settings, memory, value, episode_over):
    """Update every pair that has a trace by the TD error of the last step.

    `value` is the value of the state after the step. A trace includes the step size of its visit,
    because step sizes may differ between pairs.
    """
    counters = memory.counters
    last = counters[LAST] - 1
    state, action, reward = memory.states[last], memory.actions[last], memory.rewards[last]
    traces, traced = memory.traces, memory.traced
    actions = memory.tables.shape[2]
    coefficient = trace_coefficient(settings, memory, state, action)
    decay = settings.discount * settings.trace_decay * coefficient
    remain = 0
    for i in range(counters[TRACED]):
        pair = traced[i]
        traces[pair] *= decay
        if traces[pair] > SMALLEST:
            traced[remain] = pair
            remain += 1
        else:
            traces[pair] = 0.0
    pair = state * actions + action
    if traces[pair] == 0:
        traced[remain] = pair
        remain += 1
    step_size = count_visit(settings, memory, 0, state, action)
    now = memory.tables[0, state, action]
    error = reward + settings.discount * value - now
    if settings.traces == ACCUMULATING:
        traces[pair] += step_size
    elif settings.traces == REPLACING:
        traces[pair] = step_size
    else:  # dutch: S&B, section 12.7, Q_old there is the old value here
        traces[pair] += step_size * (1 - traces[pair])
        error += now - memory.old_value[0]
    for i in range(remain):
        memory.tables[0, traced[i] // actions, traced[i] % actions] += error * traces[traced[i]]
    if settings.traces == DUTCH:
        memory.tables[0, state, action] -= step_size * (now - memory.old_value[0])
    average(settings, memory, 0, state, action)
    memory.old_value[0] = value
    counters[FIRST], counters[TRACED] = counters[LAST], remain
    if episode_over:
        for i in range(remain):
            traces[traced[i]] = 0.0
        counters[TRACED] = 0
