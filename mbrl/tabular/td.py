"""Learning of action values from steps in a finite environment.

Sutton and Barto 2018, "Reinforcement learning" (S&B), chapters 5, 6, 7 and 12. All arrays are numpy
float64; states and actions are integers. The updates are in `targets`, `n_step` and `traces`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor

from mbrl.tabular.config import DOUBLE, SARSA, Settings, TabularConfig, require
from mbrl.tabular.memory import (
    EPISODE,
    FIRST,
    LAST,
    NEXT_STATE,
    TRACED,
    WAITING,
    Memory,
    double_capacity,
    empty_memory,
    make_room,
    mid_episode,
)
from mbrl.tabular.n_step import end_of_complete, learn_n_step
from mbrl.tabular.targets import bootstrap, choose, move_towards
from mbrl.tabular.traces import learn_with_traces
from planners.compile import compiled


class TabularLearner:
    """Learns action values, or with one action state values, from steps in a finite environment.

    With one action it predicts: `values` are the state values of the policy that chose the actions,
    learned by TD(0), n-step TD, Monte Carlo or TD(λ), depending on the config.

    Steps must be given in the order of the episode, up to one that terminates or is truncated,
    because Sarsa, n-step methods and traces use earlier steps or the next action. Only one-step
    targets other than Sarsa's accept steps in any order, as from a replay memory or a model. The
    value of the state after a terminal step is 0; that of the state at which an episode is
    truncated is taken from the table.

    Args:
        states: S, numbered from 0.
        actions: A, numbered from 0.
        config: settings of the algorithm.

    Raises:
        ValueError: `states` or `actions` below one.
    """

    def __init__(self, states: int, actions: int, config: TabularConfig | None = None) -> None:
        for name, value in (("states", states), ("actions", actions)):
            require(isinstance(value, int) and value >= 1, name, "an integer >= 1", value)
        self.states, self.actions = states, actions
        self.config = config = TabularConfig() if config is None else config
        self._settings = Settings.of(config)
        self._memory = empty_memory(states, actions, config)

    @property
    def any_order(self) -> bool:
        """Whether steps may be given in any order, as from several environments or a model."""
        config = self.config
        return config.n_step == 1 and not config.trace_decay and config.target != "sarsa"

    @property
    def tables(self) -> np.ndarray:
        """The learned action values (not a copy): (1, S, A), or (2, S, A) for target double."""
        return self._memory.tables

    @property
    def action_values(self) -> np.ndarray:
        """Q (S, A), a copy: a mean of both tables for target double, over time for averaging."""
        return (self._memory.means if self.config.averaging else self.tables).mean(0)

    @property
    def values(self) -> np.ndarray:
        """max_a Q (S,), which is V with one action."""
        return self.action_values.max(1)

    @property
    def policy(self) -> np.ndarray:
        """The greedy policy (S,); of ties the lowest action."""
        return (self._memory.means if self.config.averaging else self.tables).sum(0).argmax(1)

    @property
    def probabilities(self) -> np.ndarray:
        """The current ε-greedy policy (S, A) of `act`; ties are equally probable."""
        values = self.tables.sum(0)
        best = values == values.max(1, keepdims=True)
        visits = np.maximum(self._memory.visits.sum((0, 2)), 1)
        epsilon = (self.config.epsilon / visits**self.config.epsilon_decay)[:, None]
        return epsilon / self.actions + (1 - epsilon) * best / best.sum(1, keepdims=True)

    def act(self, state: int, *, explore: bool, generator: Generator) -> int:
        """An action of the ε-greedy policy if `explore`, else the greedy action.

        Raises ValueError for a state out of range.
        """
        state = _index(state, self.states, "state")
        uniform = -1.0
        if explore:
            device = generator.device
            uniform = torch.rand((), generator=generator, device=device, dtype=torch.float64).item()
        return _act(state, uniform, *self._settings, *self._memory)

    def observe(
        self,
        state: int,
        action: int,
        reward: float,
        next_state: int,
        terminated: bool,
        truncated: bool = False,
        *,
        generator: Generator | None = None,
    ) -> None:
        """Learn from one step.

        Args:
            state: the state before the step.
            action: the action taken; ignored if the learner has only one action.
            reward: the reward of the step.
            next_state: the state after the step.
            terminated: whether `next_state` is terminal.
            truncated: whether the episode was cut off after the step.
            generator: random stream that picks the table to update, for target double.

        Raises:
            ValueError: a state or action out of range, a reward that is not finite, a state that
                is not the next state of the last step, target double without a generator.
        """
        state, action, reward, next_state = check_step(
            self.states, self.actions, state, action, reward, next_state
        )
        counters = self._memory.counters
        if mid_episode(self._memory) and state != counters[NEXT_STATE]:
            raise ValueError(
                f"the step from state {state} does not follow the one to state "
                f"{counters[NEXT_STATE]}, which neither terminated nor was truncated"
            )
        table = 0
        if self._settings.target == DOUBLE:
            if generator is None:
                raise ValueError("target double needs a generator to pick a table")
            table = int(torch.randint(2, (), generator=generator, device=generator.device))
        if counters[LAST] == len(self._memory.states) and not make_room(self._memory):
            self._memory = double_capacity(self._memory)
        episode_over = bool(terminated or truncated)
        step = (state, action, reward, next_state, bool(terminated), episode_over, table)
        _observe(*step, *self._settings, *self._memory)

    def give_up(self) -> None:
        """The current episode does not go on: its steps not yet learned from are dropped."""
        counters = self._memory.counters
        counters[[FIRST, LAST, WAITING, TRACED]] = 0
        counters[EPISODE] += 1
        self._memory.traces[:] = 0

    def state_dict(self) -> dict[str, Tensor]:
        """All arrays of the learner, but not its config. An episode may be in progress."""
        return {
            name: torch.from_numpy(array.copy()) for name, array in self._memory._asdict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: an array is missing or of another shape, or counters are out of range.
        """
        held = self._memory._asdict()
        if state.keys() != held.keys():
            raise ValueError(f"a learner's state holds {[*held]}, got {[*state]}")
        taken = {
            name: state[name].cpu().numpy().astype(array.dtype, order="C", copy=True)
            for name, array in held.items()
        }
        capacity = taken["states"].shape if taken["states"].ndim == 1 else (0,)
        for name, array in held.items():
            shape = capacity if name in ("states", "actions", "rewards") else array.shape
            if taken[name].shape != shape:
                raise ValueError(
                    f"{name} of shape {taken[name].shape} does not fit a learner of "
                    f"{self.states} states and {self.actions} actions, which takes {shape}"
                )
        first, last, next_state, traced = (
            int(taken["counters"][i]) for i in (FIRST, LAST, NEXT_STATE, TRACED)
        )
        inside = 0 <= first <= last <= capacity[0] and 0 <= next_state < self.states
        if not inside or not 0 <= traced <= len(taken["traced"]):
            raise ValueError(f"counters {taken['counters'].tolist()} are out of range")
        self._memory = Memory(**taken)


def check_step(
    states: int, actions: int, state: int, action: int, reward: float, next_state: int
) -> tuple[int, int, float, int]:
    """Check a step; returns its state, action, reward and next state as Python numbers.

    If there is only one action, the action returned is 0. Raises ValueError for a state or action
    out of range and for a reward that is not finite.
    """
    state = _index(state, states, "state")
    action = 0 if actions == 1 else _index(action, actions, "action")
    next_state = _index(next_state, states, "next_state")
    if not math.isfinite(reward):
        raise ValueError(f"the reward of state {state}, action {action} is not finite")
    return state, action, float(reward), next_state


def _index(value: int, count: int, name: str) -> int:
    if not 0 <= value < count or int(value) != value:
        raise ValueError(f"{name} must be an integer in 0..{count - 1}, got {value!r}")
    return int(value)


@compiled(inline="always")
def observe_step(
    settings, memory, state, action, reward, next_state, terminated, episode_over, table
):
    """Store a step, for which there must be room, and learn from it or from earlier steps.

    `table` is the one that double Q-learning updates, else 0.
    """
    counters = memory.counters
    if counters[WAITING]:
        _learn(settings, memory, action, False, False, 0)
    if counters[FIRST] == counters[LAST]:
        counters[FIRST] = counters[LAST] = 0
    last = counters[LAST]
    memory.states[last], memory.actions[last], memory.rewards[last] = state, action, reward
    counters[LAST], counters[NEXT_STATE] = last + 1, next_state
    several = memory.tables.shape[2] > 1
    counters[WAITING] = settings.target == SARSA and several and not episode_over
    if not counters[WAITING]:
        _learn(settings, memory, -1 if several else 0, terminated, episode_over, table)


@compiled(inline="always")
def _learn(settings, memory, next_action, terminated, episode_over, table):
    """Update by traces, one-step or n-step targets from the stored steps that are complete."""
    counters = memory.counters
    until = end_of_complete(counters, settings.steps, episode_over)
    if until == counters[FIRST]:
        return  # no stored step has all its rewards yet
    value = 0.0
    if not terminated:
        value = bootstrap(settings, memory, table, counters[NEXT_STATE], next_action)
    if settings.trace_decay > 0:
        learn_with_traces(settings, memory, value, episode_over)
    elif settings.steps == 1:
        last = counters[LAST] - 1
        target = memory.rewards[last] + settings.discount * value
        move_towards(settings, memory, table, memory.states[last], memory.actions[last], target)
        counters[FIRST] = counters[LAST]
    else:
        learn_n_step(settings, memory, table, until, value)
    counters[EPISODE] += episode_over


# Calls of compiled code are faster with numbers and arrays than with named tuples of them.


@compiled
def _act(state, uniform, *parts):
    return choose(Settings(*parts[:10]), Memory(*parts[10:]), state, uniform)


@compiled
def _observe(state, action, reward, next_state, terminated, episode_over, table, *parts):
    settings, memory = Settings(*parts[:10]), Memory(*parts[10:])
    observe_step(
        settings, memory, state, action, reward, next_state, terminated, episode_over, table
    )
