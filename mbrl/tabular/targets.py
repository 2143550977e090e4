"""The ε-greedy policy, and the targets of one-step methods.

Sutton and Barto 2018, chapter 6. `settings` is a `Settings`, `memory` a `Memory`, and `table` the
index of the table to update: 0, or for double Q-learning 0 or 1.
"""

from __future__ import annotations

from mbrl.tabular.config import DOUBLE, SARSA, TREE, Q
from planners.compile import compiled

# The policy.


@compiled
def epsilon_greedy(values, epsilon, uniform):
    """An ε-greedy action for the action values (A,) of a state; ties are broken at random.

    `uniform` is a random number in [0, 1). A negative one gives the greedy action, of ties the
    lowest.
    """
    if 0 <= uniform < epsilon:
        return min(int(uniform / epsilon * len(values)), len(values) - 1)
    best, equals, first = values[0], 1, 0
    for action in range(1, len(values)):
        if values[action] > best:
            best, equals, first = values[action], 1, action
        elif values[action] == best:
            equals += 1
    if uniform < 0 or equals == 1:
        return first
    left = min(int((uniform - epsilon) / (1 - epsilon) * equals), equals - 1)
    for action in range(first, len(values)):
        if values[action] == best:
            if left == 0:
                return action
            left -= 1
    return first


@compiled(inline="always")
def exploration(settings, memory, state):
    """ε of the policy in a state, after its decay with the number of visits."""
    if settings.epsilon_decay == 0:
        return settings.epsilon
    return settings.epsilon / max(memory.visits[:, state].sum(), 1) ** settings.epsilon_decay


@compiled(inline="always")
def choose(settings, memory, state, uniform):
    """An action of the ε-greedy policy; for double Q-learning that of the sum of both tables."""
    epsilon = exploration(settings, memory, state)
    if settings.target == DOUBLE:
        return epsilon_greedy(memory.tables[:, state].sum(0), epsilon, uniform)
    return epsilon_greedy(memory.tables[0, state], epsilon, uniform)


# Targets.


@compiled
def bootstrap(settings, memory, table, state, action):
    """The value of a state, as the target of the step that led to it uses it.

    `action` is the action taken in the state, or -1 if it is not known.
    """
    values = memory.tables[table, state]
    if settings.target == DOUBLE:
        return memory.tables[1 - table, state, values.argmax()]
    if settings.target == Q:
        return values.max()
    if settings.target == SARSA and action >= 0:
        return values[action]
    epsilon = exploration(settings, memory, state)
    return epsilon * values.mean() + (1 - epsilon) * values.max()


@compiled
def trace_coefficient(settings, memory, state, action):
    """The weight, in [0, 1], of the return after an action in the targets of earlier steps.

    For Sarsa and expected Sarsa it is 1; for Q-learning 1 if the action is greedy, else 0; for
    tree backup the probability of the action under the policy (S&B, section 12.10).
    """
    if settings.target != Q and settings.target != TREE:
        return 1.0
    values = memory.tables[0, state]
    greedy = values[action] == values.max()
    if settings.target == Q:
        return 1.0 if greedy else 0.0
    epsilon = exploration(settings, memory, state)
    share = greedy / (values == values.max()).sum()
    return epsilon / len(values) + (1 - epsilon) * share


# Updates.


@compiled(inline="always")
def count_visit(settings, memory, table, state, action):
    """Count a visit of a pair; returns the step size of its update."""
    memory.visits[table, state, action] += 1
    if settings.step_decay == 0:
        return settings.step_size
    return settings.step_size / memory.visits[table, state, action] ** settings.step_decay


@compiled(inline="always")
def average(settings, memory, table, state, action):
    """With averaging, add the pair's current value to its mean, with weight n at visit n."""
    if settings.averaging:
        share = 2 / (memory.visits[table, state, action] + 1)
        change = memory.tables[table, state, action] - memory.means[table, state, action]
        memory.means[table, state, action] += share * change


@compiled(inline="always")
def move_towards(settings, memory, table, state, action, target):
    """Q(s, a) ← Q(s, a) + α (target - Q(s, a))."""
    step_size = count_visit(settings, memory, table, state, action)
    error = target - memory.tables[table, state, action]
    memory.tables[table, state, action] += step_size * error
    average(settings, memory, table, state, action)
