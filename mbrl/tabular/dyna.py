"""Dyna: learn a model from real steps, and action values from real steps and steps of the model.

Sutton 1991, "Dyna, an integrated architecture for learning, planning, and reacting"; Sutton and
Barto 2018, chapter 8; Moore and Atkeson 1993, "Prioritized sweeping". Steps of the model are called
imagined. The algorithms differ in where imagined steps start and how they go on:

| algorithm | states | actions | other settings |
|---|---|---|---|
| Dyna-Q | visited | taken | |
| Dyna-Q+ | visited | any | bonus above 0 |
| prioritised sweeping | priority | | |
| on-policy imagination | visited, start | policy | further above 0 |

States and actions are integers, arrays are numpy float64. The model is a dense table (S, A, S) of
counts, which limits it to a few thousand states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import torch
from torch import Generator

from mbrl.tabular.config import Actions, DynaConfig, States, TabularConfig
from mbrl.tabular.targets import epsilon_greedy
from mbrl.tabular.td import TabularLearner, check_step
from planners.compile import compiled

_STATES = {name: i for i, name in enumerate(get_args(States))}
_ACTIONS = {name: i for i, name in enumerate(get_args(Actions))}
_VISITED, _START, _PRIORITY = _STATES.values()
_TAKEN, _ANY, _POLICY = _ACTIONS.values()


class Dyna:
    """Learns action values in a finite environment from real steps and steps of a learned model.

    With states priority, imagined updates use the expectation over the model's next states, largest
    change first, and a real step only sets the priority of its state and action (Sutton and Barto,
    section 8.4). Otherwise a real step is a Q-learning update, and imagined next states are drawn
    from the model.

    Args:
        states: how many there are; they are numbered from 0.
        actions: how many; numbered from 0.
        config: settings of the algorithm.

    Raises:
        ValueError: `states` or `actions` below one.
    """

    def __init__(self, states: int, actions: int, config: DynaConfig | None = None) -> None:
        self.config = config = DynaConfig() if config is None else config
        rates = {
            name: getattr(config, name) for name in ("discount", "step_size", "epsilon", "initial")
        }
        self._learner = TabularLearner(states, actions, TabularConfig(target="q", **rates))
        self.states, self.actions = states, actions
        self._values = self._learner.tables[0]  # real and imagined steps update one table
        pairs = (states, actions)
        self._counts = np.zeros((*pairs, states))
        self._rewards = np.zeros(pairs)  # sums of the rewards of the steps in the model
        self._tried = np.zeros(pairs, dtype=np.int64)  # number of steps in the model
        self._terminal = np.zeros(states, dtype=bool)
        self._last_tried = np.zeros(pairs, dtype=np.int64)  # number of the last real step
        self._priority = np.zeros(pairs)
        self._visited = np.zeros(states, dtype=np.int64)  # begins with the states acted in
        self._visited_count = 0
        self._starts = np.zeros(states, dtype=np.int64)  # number of episodes begun in each state
        self._steps = 0
        self._episode_begins = True

    @property
    def any_order(self) -> bool:
        """Whether steps may be given in any order: where no start of an episode is counted."""
        return self.config.states != "start"

    @property
    def action_values(self) -> np.ndarray:
        """Q (S, A), a copy."""
        return self._learner.action_values

    @property
    def policy(self) -> np.ndarray:
        """The greedy policy (S,); of ties the lowest action."""
        return self._learner.policy

    @property
    def model(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next-state probabilities (S, A, S), mean rewards (S, A) and terminal states (S,) bool.

        Probabilities and rewards of pairs never tried are 0.
        """
        tried = np.maximum(self._tried, 1)
        return self._counts / tried[..., None], self._rewards / tried, self._terminal.copy()

    def act(self, state: int, *, explore: bool, generator: Generator) -> int:
        """An action of the ε-greedy policy if `explore`, else the greedy action.

        Raises ValueError for a state out of range.
        """
        return self._learner.act(state, explore=explore, generator=generator)

    def observe(
        self,
        state: int,
        action: int,
        reward: float,
        next_state: int,
        terminated: bool,
        truncated: bool = False,
        *,
        generator: Generator,
    ) -> None:
        """Learn from a real step, then from imagined ones.

        Args:
            state: the state before the step.
            action: the action taken.
            reward: the reward of the step.
            next_state: the state after the step.
            terminated: whether `next_state` is terminal.
            truncated: whether the episode was cut off after the step.
            generator: random stream of the imagined steps.

        Raises:
            ValueError: a state or action out of range, a reward that is not finite.
        """
        config = self.config
        state, action, reward, after = check_step(
            self.states, self.actions, state, action, reward, next_state
        )
        if not self._tried[state].any():
            self._visited[self._visited_count] = state
            self._visited_count += 1
        self._starts[state] += self._episode_begins
        self._episode_begins = bool(terminated or truncated)
        self._steps += 1
        self._last_tried[state, action] = self._steps
        if config.memory == "last":
            self._counts[state, action] = 0
            self._rewards[state, action] = self._tried[state, action] = 0
        self._counts[state, action, after] += 1
        self._rewards[state, action] += reward
        self._tried[state, action] += 1
        self._terminal[after] = terminated
        model = (self._counts, self._rewards, self._tried, self._terminal)
        learning = (self._values, *model, config.discount, config.step_size)
        if config.states == "priority":
            value = _expected(self._values, *model, config.discount, state, action)
            self._priority[state, action] = abs(value - self._values[state, action])
            _sweep(*learning, self._priority, config.threshold, config.planning)
            return
        self._learner.observe(state, action, reward, after, terminated, truncated)
        if config.planning:
            shape = (config.planning, 2 + 2 * (1 + config.further))
            uniforms = torch.rand(shape, generator=generator, dtype=torch.float64).numpy()
            choosing = (_STATES[config.states], _ACTIONS[config.actions], config.epsilon)
            visits = (
                self._visited[: self._visited_count], self._starts, self._last_tried, self._steps
            )  # fmt: skip
            _imagine(*learning, *choosing, *visits, float(config.bonus), uniforms)

    def give_up(self) -> None:
        """The current episode does not go on: the next real step begins another."""
        self._episode_begins = True

    def state_dict(self) -> dict[str, Any]:
        """The values, the model and all counters."""
        arrays = {name: torch.from_numpy(array.copy()) for name, array in self._arrays().items()}
        counts = {name: getattr(self, f"_{name}") for name in _COUNTERS}
        return {"values": self._learner.state_dict(), "arrays": arrays} | counts

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: an array is missing or of another shape.
        """
        held, found = self._arrays(), state["arrays"]
        if found.keys() != held.keys():
            raise ValueError(f"Dyna's arrays are {[*held]}, got {[*found]}")
        for name, array in held.items():
            if found[name].shape != array.shape:
                raise ValueError(
                    f"{name} of shape {tuple(found[name].shape)} does not fit {self.states} states "
                    f"and {self.actions} actions, which take {array.shape}"
                )
        self._learner.load_state_dict(state["values"])
        self._values = self._learner.tables[0]
        for name, array in held.items():
            array[...] = found[name].cpu().numpy()
        for name in _COUNTERS:
            setattr(self, f"_{name}", state[name])

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, f"_{name}") for name in _ARRAYS}


_ARRAYS = ("counts", "rewards", "tried", "terminal", "last_tried", "priority", "visited", "starts")
_COUNTERS = ("visited_count", "steps", "episode_begins")
"""What a `Dyna` holds beside its values."""


@compiled
def _draw(weights, total, uniform):
    """An index drawn with probability weight / total, for a uniform number in [0, 1)."""
    left, last = uniform * total, 0
    for i in range(len(weights)):
        if weights[i] > 0:
            last = i
            left -= weights[i]
            if left < 0:
                break
    return last


@compiled
def _expected(values, counts, rewards, tried, terminal, discount, state, action):
    """The expected target, under the model, of a state and action that were tried."""
    total = rewards[state, action]
    for after in range(len(values)):
        count = counts[state, action, after]
        if count > 0 and not terminal[after]:
            total += discount * count * values[after].max()
    return total / tried[state, action]


@compiled
def _imagine(
    values, counts, rewards, tried, terminal, discount, step_size, first_state, first_action,
    epsilon, visited, starts, last_tried, now, bonus, uniforms,
):  # fmt: skip
    """Updates from steps of the model; one row of `uniforms` for each start.

    `first_state` is a code of `_STATES`, `first_action` one of `_ACTIONS`.
    """
    actions = values.shape[1]
    for i in range(len(uniforms)):
        uniform = uniforms[i]
        if first_state == _START:
            state = _draw(starts, starts.sum(), uniform[0])
        else:
            state = visited[min(int(uniform[0] * len(visited)), len(visited) - 1)]
        if first_action == _TAKEN:
            action = _draw(tried[state] > 0, (tried[state] > 0).sum(), uniform[1])
        elif first_action == _ANY:
            action = min(int(uniform[1] * actions), actions - 1)
        else:
            action = epsilon_greedy(values[state], epsilon, uniform[1])
        for step in range(2, len(uniform), 2):
            known = tried[state, action] > 0
            if not known and bonus == 0:
                break
            after, reward = state, 0.0
            if known:
                after = _draw(counts[state, action], tried[state, action], uniform[step])
                reward = rewards[state, action] / tried[state, action]
            reward += bonus * math.sqrt(now - last_tried[state, action])
            best = 0.0 if terminal[after] else values[after].max()
            error = reward + discount * best - values[state, action]
            values[state, action] += step_size * error
            if terminal[after]:
                break
            state = after
            action = epsilon_greedy(values[state], epsilon, uniform[step + 1])


@compiled
def _sweep(
    values, counts, rewards, tried, terminal, discount, step_size, priority, threshold, planning
):  # fmt: skip
    """`planning` times: update the pair of highest priority, and its predecessors' priorities."""
    states, actions = values.shape
    for _ in range(planning):
        pair = priority.argmax()
        state, action = pair // actions, pair % actions
        if priority[state, action] <= threshold:
            break
        priority[state, action] = 0.0
        target = _expected(values, counts, rewards, tried, terminal, discount, state, action)
        values[state, action] += step_size * (target - values[state, action])
        for s in range(states):
            for a in range(actions):
                if counts[s, a, state] > 0 and not terminal[state]:
                    target = _expected(values, counts, rewards, tried, terminal, discount, s, a)
                    priority[s, a] = abs(target - values[s, a])
