"""Dyna: learn a model from steps, and values from both.

Sutton 1991, "Dyna, an integrated architecture for learning, planning, and reacting"; Sutton and
Barto 2018, chapter 8; Moore and Atkeson 1993, "Prioritized sweeping". Between real steps, imagined
ones start at pairs that `states` and `actions` choose, and may go on by the policy: the members of
the family differ only in that.

| member | states | actions | and |
|---|---|---|---|
| Dyna-Q | visited | taken | |
| Dyna-Q+ | visited | any | bonus above 0 |
| prioritised sweeping | priority | | |
| on-policy imagination | visited, start | policy | further above 0 |

States and actions are integers, arrays are numpy float64. The model is a table (S, A, S) of counts:
it suits some thousands of states at most.
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
from mbrl.tabular.td import TabularLearner, checked
from planners.compile import compiled

_STATES = {name: i for i, name in enumerate(get_args(States))}
_ACTIONS = {name: i for i, name in enumerate(get_args(Actions))}
_VISITED, _START, _PRIORITY = _STATES.values()
_TAKEN, _ANY, _POLICY = _ACTIONS.values()


class Dyna:
    """Action values of a finite environment, from its steps and from those of a model of it.

    With priority the imagined updates are expectations over the model, the greatest change
    first, and a real step sets a priority in place of an update (Sutton and Barto, section 8.4).
    Otherwise a real step is one of Q-learning, and imagined next states are drawn.

    Args:
        states: S, numbered from 0.
        actions: A, likewise.
        config: of the recipe.

    Raises:
        ValueError: no states or no actions.
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
        self._gains = np.zeros(pairs)  # sum of the rewards that the counts came with
        self._tried = np.zeros(pairs, dtype=np.int64)  # how many steps the model holds of a pair
        self._ends = np.zeros(states, dtype=bool)
        self._when = np.zeros(pairs, dtype=np.int64)  # the real step that tried a pair last
        self._priority = np.zeros(pairs)
        self._visited = np.zeros(states, dtype=np.int64)  # the first `seen` are states acted in
        self._seen = 0
        self._starts = np.zeros(states, dtype=np.int64)  # episodes begun in a state
        self._steps = 0
        self._fresh = True  # the next step begins an episode

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
        """The greedy policy (S,), the first of equals."""
        return self._learner.policy

    @property
    def model(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next-state probabilities (S, A, S), mean rewards (S, A) and terminal states (S,) bool.

        Probabilities and rewards of pairs never tried are 0.
        """
        tried = np.maximum(self._tried, 1)
        return self._counts / tried[..., None], self._gains / tried, self._ends.copy()

    def act(self, state: int, *, explore: bool, generator: Generator) -> int:
        """An action of the ε-greedy policy, ties broken at random; else the first of the best."""
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
            state: where the step began.
            action: the action taken.
            reward: the reward of the step.
            next_state: where the step led.
            terminated: whether the MDP ended there.
            truncated: whether the episode was cut off there.
            generator: draws the imagined steps.

        Raises:
            ValueError: a state or action out of range, a reward that is not finite.
        """
        config = self.config
        state, action, reward, after = checked(
            self.states, self.actions, state, action, reward, next_state
        )
        if not self._tried[state].any():
            self._visited[self._seen] = state
            self._seen += 1
        self._starts[state] += self._fresh
        self._fresh = bool(terminated or truncated)
        self._steps += 1
        self._when[state, action] = self._steps
        if config.memory == "last":
            self._counts[state, action] = 0
            self._gains[state, action] = self._tried[state, action] = 0
        self._counts[state, action, after] += 1
        self._gains[state, action] += reward
        self._tried[state, action] += 1
        self._ends[after] = terminated
        model = (self._counts, self._gains, self._tried, self._ends)
        learning = (self._values, *model, config.discount, config.step_size)
        if config.states == "priority":
            error = _expected(self._values, *model, config.discount, state, action)
            self._priority[state, action] = abs(error - self._values[state, action])
            _sweep(*learning, self._priority, config.threshold, config.planning)
            return
        self._learner.observe(state, action, reward, after, terminated, truncated)
        if config.planning:
            shape = (config.planning, 2 + 2 * (1 + config.further))
            lots = torch.rand(shape, generator=generator, dtype=torch.float64).numpy()
            choosing = (_STATES[config.states], _ACTIONS[config.actions], config.epsilon)
            met = (self._visited[: self._seen], self._starts, self._when, self._steps)
            _imagine(*learning, *choosing, *met, float(config.bonus), lots)

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


_ARRAYS = ("counts", "gains", "tried", "ends", "when", "priority", "visited", "starts")
_COUNTERS = ("seen", "steps", "fresh")
"""What a `Dyna` holds beside its values."""


@compiled
def _drawn(weights, total, uniform):
    """An index, drawn in proportion to its weight."""
    left, last = uniform * total, 0
    for i in range(len(weights)):
        if weights[i] > 0:
            last = i
            left -= weights[i]
            if left < 0:
                break
    return last


@compiled
def _expected(values, counts, gains, tried, ends, discount, state, action):
    """The expected value, under the model, of a pair that was tried."""
    worth = gains[state, action]
    for after in range(len(values)):
        count = counts[state, action, after]
        if count > 0 and not ends[after]:
            worth += discount * count * values[after].max()
    return worth / tried[state, action]


@compiled
def _imagine(
    values, counts, gains, tried, ends, discount, step_size, from_, do, epsilon, visited, starts,
    when, now, bonus, lots,
):  # fmt: skip
    """Updates from steps of the model; a row of uniforms for each start."""
    actions = values.shape[1]
    for i in range(len(lots)):
        lot = lots[i]
        if from_ == _START:
            state = _drawn(starts, starts.sum(), lot[0])
        else:
            state = visited[min(int(lot[0] * len(visited)), len(visited) - 1)]
        if do == _TAKEN:
            action = _drawn(tried[state] > 0, (tried[state] > 0).sum(), lot[1])
        elif do == _ANY:
            action = min(int(lot[1] * actions), actions - 1)
        else:
            action = epsilon_greedy(values[state], epsilon, lot[1])
        for step in range(2, len(lot), 2):
            known = tried[state, action] > 0
            if not known and bonus == 0:
                break
            after, reward = state, 0.0
            if known:
                after = _drawn(counts[state, action], tried[state, action], lot[step])
                reward = gains[state, action] / tried[state, action]
            reward += bonus * math.sqrt(now - when[state, action])
            best = 0.0 if ends[after] else values[after].max()
            error = reward + discount * best - values[state, action]
            values[state, action] += step_size * error
            if ends[after]:
                break
            state = after
            action = epsilon_greedy(values[state], epsilon, lot[step + 1])


@compiled
def _sweep(
    values, counts, gains, tried, ends, discount, step_size, priority, threshold, planning
):  # fmt: skip
    """Update the pair of highest priority, then the priorities of its predecessors."""
    states, actions = values.shape
    for _ in range(planning):
        pair = priority.argmax()
        state, action = pair // actions, pair % actions
        if priority[state, action] <= threshold:
            break
        priority[state, action] = 0.0
        worth = _expected(values, counts, gains, tried, ends, discount, state, action)
        values[state, action] += step_size * (worth - values[state, action])
        for s in range(states):
            for a in range(actions):
                if counts[s, a, state] > 0 and not ends[state]:
                    worth = _expected(values, counts, gains, tried, ends, discount, s, a)
                    priority[s, a] = abs(worth - values[s, a])
