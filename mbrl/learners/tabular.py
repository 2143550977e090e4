"""Action values of finite environments, learned from the steps taken in them.

Sutton and Barto 2018, "Reinforcement learning", chapters 5, 6, 7 and 12. All arrays are numpy
float64; states and actions are integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numba import njit
from torch import Generator

Target = Literal["sarsa", "expected", "tree", "q", "double"]
"""What a step's value is moved towards, with π the ε-greedy policy of `act`.

sarsa: the next action taken, on-policy; its expectation where an episode is truncated.
expected: the expectation over π of the action after the last (van Seijen et al. 2009; with
    traces S&B's section 12.9, where each step is moved by how far it was from expected).
tree: likewise, and of every action on the way that π would not have taken for sure: tree backup,
    which with one step is `expected`.
q: the best next action (Watkins 1989); what lies behind an action that is not greedy is cut off.
double: the best of one table by the other, a coin says which (van Hasselt 2010); one step alone.
"""

Traces = Literal["accumulating", "replacing", "dutch"]
"""How a pair met again adds to its trace; dutch is true online Sarsa(λ), van Seijen et al. 2016."""

_TARGETS = {name: code for code, name in enumerate(get_args(Target))}
_SARSA, _, _TREE, _Q, _DOUBLE = range(5)
_TRACES = {name: code for code, name in enumerate(get_args(Traces))}
_ACCUMULATING, _REPLACING, _DUTCH = range(3)


@dataclass(frozen=True, kw_only=True)
class TabularConfig:
    """One-step, n-step, Monte Carlo or λ; on-policy or off; S&B's chapters 5 to 7 and 12."""

    target: Target = "q"
    """What values are moved towards; see `Target`."""
    steps: int | None = 1
    """n, the rewards that are seen before bootstrapping; None for all to the episode's end, which
    is Monte Carlo (tables then change at the ends of episodes only)."""
    first_visit: bool = False
    """With Monte Carlo, whether a pair learns from its first visit in an episode alone."""
    trace_decay: float = 0.0
    """λ in [0, 1]; above 0 traces take the place of n steps."""
    traces: Traces = "accumulating"
    """What a visit does to a trace; see `Traces`."""
    discount: float = 0.99
    """γ, in [0, 1]."""
    step_size: float = 0.1
    """α of a pair's first update, in (0, 1]."""
    step_decay: float = 0.0
    """p of α / visitsᵖ, visits those of the pair. 1 with step_size 1 averages; in (½, 1] one-step
    values converge (Robbins and Monro)."""
    epsilon: float = 0.1
    """ε of a state's first visit, the chance of a random action, in [0, 1]."""
    epsilon_decay: float = 0.0
    """q of ε / visitsᵠ, visits those of the state. In (0, 1] it is greedy in the limit with
    infinite exploration (Singh et al. 2000)."""
    initial: float = 0.0
    """All values at first; a high one explores."""

    def __post_init__(self) -> None:
        _require(self.target in _TARGETS, "target", f"one of {[*_TARGETS]}", self.target)
        _require(self.traces in _TRACES, "traces", f"one of {[*_TRACES]}", self.traces)
        whole = isinstance(self.steps, int) and self.steps >= 1
        _require(self.steps is None or whole, "steps", "None or an integer >= 1", self.steps)
        for name in ("trace_decay", "discount", "epsilon", "step_decay", "epsilon_decay"):
            value = getattr(self, name)
            _require(0 <= value <= 1, name, "in [0, 1]", value)
        _require(0 < self.step_size <= 1, "step_size", "in (0, 1]", self.step_size)
        _require(math.isfinite(self.initial), "initial", "finite", self.initial)
        one_step = self.steps == 1
        _require(
            not self.trace_decay or one_step, "steps", "1 with trace_decay above 0", self.steps
        )
        _require(
            not self.first_visit or self.steps is None, "steps", "None with first_visit", self.steps
        )
        if self.target == "double":
            _require(one_step and not self.trace_decay, "target",
                     "other than double with several steps or traces", self.target)  # fmt: skip
        if self.trace_decay and self.traces == "dutch":
            _require(self.target == "sarsa", "target", "sarsa with dutch traces", self.target)


class TabularLearner:
    """Action values of a finite environment, from the steps taken in it.

    With one action it predicts: `values` are then those of the states under whatever chose the
    actions, TD(0), n-step TD, Monte Carlo or TD(λ) after the config.

    Steps must follow one another, up to one that terminates or is truncated, as sarsa, n steps
    and traces look back (or wait for the next action). Only one-step targets other than sarsa take
    steps in any order, as from a memory or a model. Termination is worth 0, a truncation what
    the table says of the state it left.

    Args:
        states: S, numbered from 0.
        actions: A, likewise.
        config: of the algorithm.

    Raises:
        ValueError: no states or no actions.
    """

    def __init__(self, states: int, actions: int, config: TabularConfig | None = None) -> None:
        for name, value in (("states", states), ("actions", actions)):
            _require(isinstance(value, int) and value >= 1, name, "an integer >= 1", value)
        self.states, self.actions = states, actions
        self.config = config = TabularConfig() if config is None else config
        count = 2 if config.target == "double" else 1
        self._tables = np.full((count, states, actions), float(config.initial))
        self._visits = np.zeros((count, states, actions), dtype=np.int64)
        self._kind = _TARGETS[config.target]
        # as the kernels take them
        self._exploring = (float(config.epsilon), float(config.epsilon_decay))
        self._rates = (float(config.step_size), float(config.step_decay), *self._exploring)
        # the steps of the episode that still wait to be learned from are first..last-1
        self._path = _path(64)
        self._first = self._last = 0
        self._next = 0  # the state after the last step
        self._waiting = False  # for the next action
        self._episode = 1
        self._seen = np.zeros((states, actions) if config.first_visit else (0, 0), dtype=np.int64)
        traced = states * actions if config.trace_decay else 0
        self._trace = np.zeros(traced)
        self._traced = np.zeros(traced, dtype=np.int64)  # which pairs have a trace
        self._count = 0
        self._before = 0.0  # what the table said of the present pair a step ago

    @property
    def action_values(self) -> np.ndarray:
        """Q (S, A), a copy; of two tables the mean."""
        return self._tables.mean(0)

    @property
    def values(self) -> np.ndarray:
        """max_a Q (S,); with one action, V."""
        return self.action_values.max(1)

    @property
    def policy(self) -> np.ndarray:
        """The greedy policy (S,), the first of equals."""
        return self._tables.sum(0).argmax(1)

    @property
    def probabilities(self) -> np.ndarray:
        """The ε-greedy policy (S, A) that explores now, equals alike."""
        values = self._tables.sum(0)
        best = values == values.max(1, keepdims=True)
        visits = np.maximum(self._visits.sum((0, 2)), 1)
        epsilon = (self.config.epsilon / visits**self.config.epsilon_decay)[:, None]
        return epsilon / self.actions + (1 - epsilon) * best / best.sum(1, keepdims=True)

    def act(self, state: int, *, explore: bool, generator: Generator) -> int:
        """An action: of the ε-greedy policy, or the first of the best."""
        state = self._index(state, self.states, "state")
        uniform = -1.0
        if explore:
            uniform = float(torch.rand((), generator=generator, device=generator.device))
        return _choose(self._tables, self._visits, *self._exploring, state, uniform)

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
        """Learn from a step.

        Args:
            state: where it began.
            action: what was done; with one action of no account.
            reward: what it earned.
            next_state: where it led.
            terminated: whether nothing comes after it.
            truncated: whether something would, unseen.
            generator: flips the coin of target double.

        Raises:
            ValueError: what is no state or action, a reward that is not finite, a state that is
                not the one before it led to, target double without a generator.
        """
        state = self._index(state, self.states, "state")
        action = 0 if self.actions == 1 else self._index(action, self.actions, "action")
        reward = float(reward)
        if not math.isfinite(reward):
            raise ValueError(f"the reward of state {state}, action {action} is not finite")
        following = self._index(next_state, self.states, "next_state")
        pending = self._waiting or self._last > self._first or self._count > 0
        if pending and state != self._next:
            raise ValueError(
                f"the step from state {state} does not follow the one to state {self._next}, "
                "which neither terminated nor was truncated"
            )
        if self._waiting:
            self._learn(action, False, False, 0)
        self._append(state, action, reward)
        self._next = following
        over = bool(terminated or truncated)
        self._waiting = self._kind == _SARSA and self.actions > 1 and not over
        if self._waiting:
            return
        which = 0
        if self._kind == _DOUBLE:
            if generator is None:
                raise ValueError("target double needs a generator to flip its coin")
            coin = torch.randint(2, (), generator=generator, device=generator.device)
            which = int(coin)
        self._learn(0 if self.actions == 1 else -1, bool(terminated), over, which)

    def _learn(self, next_action: int, terminated: bool, over: bool, which: int) -> None:
        """Update what the last step completes, and all that is left if the episode is over."""
        config, tables, visits = self.config, self._tables, self._visits
        rule = (self._kind, float(config.discount))
        worth = 0.0
        if not terminated:
            worth = _worth(
                tables, visits, *self._exploring, self._kind, which, self._next, next_action
            )
        if config.trace_decay:
            self._first = self._last
            state, action, reward = (part[self._last - 1] for part in self._path)
            now = (state, action, reward, worth, self._before)
            held = (self._trace, self._traced, self._count)
            style = _TRACES[config.traces]
            self._count, self._before = _backward(
                tables, visits, *self._rates, *rule, config.trace_decay, style, *held, *now
            )
            if over:
                self._trace[self._traced[: self._count]] = 0
                self._count = 0
        else:
            known = config.steps is not None and self._last - self._first >= config.steps
            until = self._last if over else self._first + known
            if until > self._first:
                span = (self._first, self._last, until)
                met = (self._seen, self._episode)
                _forward(
                    tables, visits, *self._rates, *rule, which, *self._path, *span, worth, *met
                )
                self._first = until
        self._episode += over

    def _append(self, state: int, action: int, reward: float) -> None:
        if self._first == self._last:
            self._first = self._last = 0
        if self._last == len(self._path[0]):
            kept = self._last - self._first
            moved = _path(2 * max(kept, 32))
            for new, old in zip(moved, self._path, strict=True):
                new[:kept] = old[self._first : self._last]
            self._path, self._first, self._last = moved, 0, kept
        for part, value in zip(self._path, (state, action, reward), strict=True):
            part[self._last] = value
        self._last += 1

    @staticmethod
    def _index(value: int, count: int, name: str) -> int:
        if not 0 <= value < count or int(value) != value:
            raise ValueError(f"{name} must be an integer in 0..{count - 1}, got {value!r}")
        return int(value)


def _path(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Room for states, actions and rewards."""
    return np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size)


class Environment(Protocol):
    """What `run` needs of a gymnasium.Env with discrete observations and actions."""

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """First state and info."""
        ...

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Next state, reward, terminated, truncated, info."""
        ...


def run(
    env: Environment,
    learner: TabularLearner,
    *,
    episodes: int,
    limit: int | None = None,
    policy: Callable[[int], int] | None = None,
    generator: Generator,
) -> list[float]:
    """Learn from whole episodes; their returns, undiscounted.

    Args:
        env: seeded once, from the generator, at the first reset.
        learner: acts and observes.
        episodes: how many.
        limit: the steps after which an episode is truncated, besides what `env` does.
        policy: acts in the learner's place, for prediction or off-policy.
        generator: of the seed, the exploration and the coins.
    """
    returns = []
    seed: int | None = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    for _ in range(episodes):
        state, _ = env.reset(seed=seed)
        seed, steps, total, over = None, 0, 0.0, False
        while not over:
            if policy is None:
                action = learner.act(state, explore=True, generator=generator)
            else:
                action = policy(state)
            following, reward, terminated, truncated, _ = env.step(action)
            steps += 1
            truncated = truncated or steps == limit
            learner.observe(
                state, action, reward, following, terminated, truncated, generator=generator
            )
            state, over, total = following, terminated or truncated, total + float(reward)
        returns.append(total)
    return returns


def _require(holds: bool, name: str, accepted: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")


@njit(cache=True, nogil=True)
def _explores(visits, epsilon, epsilon_decay, state):
    """ε of a state."""
    return epsilon / max(visits[:, state].sum(), 1) ** epsilon_decay


@njit(cache=True, nogil=True)
def _choose(tables, visits, epsilon, epsilon_decay, state, uniform):
    """An ε-greedy action, equals alike, from one uniform; below 0, the first of the best."""
    values = tables[:, state].sum(0)
    if uniform < 0:
        return values.argmax()
    chance = _explores(visits, epsilon, epsilon_decay, state)
    if uniform < chance:
        return min(int(uniform / chance * len(values)), len(values) - 1)
    best = np.flatnonzero(values == values.max())
    return best[min(int((uniform - chance) / (1 - chance) * len(best)), len(best) - 1)]


@njit(cache=True, nogil=True)
def _worth(tables, visits, epsilon, epsilon_decay, kind, which, state, action):
    """What a target says of the state it bootstraps from; action -1 where it is not known."""
    values = tables[which, state]
    if kind == _DOUBLE:
        return tables[1 - which, state, values.argmax()]
    if kind == _Q:
        return values.max()
    if kind == _SARSA and action >= 0:
        return values[action]
    chance = _explores(visits, epsilon, epsilon_decay, state)
    return chance * values.mean() + (1 - chance) * values.max()


@njit(cache=True, nogil=True)
def _keeps(tables, visits, epsilon, epsilon_decay, kind, state, action):
    """How much of what comes after an action counts for what came before it."""
    values = tables[0, state]
    greedy = values[action] == values.max()
    if kind == _Q:
        return 1.0 if greedy else 0.0
    if kind == _TREE:
        chance = _explores(visits, epsilon, epsilon_decay, state)
        share = greedy / (values == values.max()).sum()
        return chance / len(values) + (1 - chance) * share
    return 1.0


@njit(cache=True, nogil=True)
def _forward(
    tables, visits, step_size, step_decay, epsilon, epsilon_decay, kind, discount, which,
    states, actions, rewards, first, last, until, worth, seen, episode,
):  # fmt: skip
    """n steps: targets of steps first..last-1, back from what follows; the first are updated."""
    targets = np.empty(last - first)
    for t in range(last - 1, first - 1, -1):
        if t < last - 1 and kind in (_TREE, _Q):
            state, action = states[t + 1], actions[t + 1]
            kept = _keeps(tables, visits, epsilon, epsilon_decay, kind, state, action)
            there = _worth(tables, visits, epsilon, epsilon_decay, kind, which, state, -1)
            worth = there + kept * (worth - tables[which, state, action])
        worth = rewards[t] + discount * worth
        targets[t - first] = worth
    for t in range(first, until):
        state, action = states[t], actions[t]
        if seen.size:
            if seen[state, action] == episode:
                continue
            seen[state, action] = episode
        visits[which, state, action] += 1
        rate = step_size / visits[which, state, action] ** step_decay
        tables[which, state, action] += rate * (targets[t - first] - tables[which, state, action])


@njit(cache=True, nogil=True)
def _backward(
    tables, visits, step_size, step_decay, epsilon, epsilon_decay, kind, discount,
    trace_decay, style, traces, traced, count, state, action, reward, worth, before,
):  # fmt: skip
    """Traces, each with its step size in it; how many there are, and what Q said of what follows.

    Sutton and Barto, sections 12.5, 12.7 and 12.10.
    """
    values = tables[0].ravel()
    kept = discount * trace_decay
    kept *= _keeps(tables, visits, epsilon, epsilon_decay, kind, state, action)
    remain = 0
    for i in range(count):
        pair = traced[i]
        traces[pair] *= kept
        if traces[pair] > 1e-20:  # below, no double would feel it
            traced[remain] = pair
            remain += 1
        else:
            traces[pair] = 0.0
    pair = state * tables.shape[2] + action
    if traces[pair] == 0:
        traced[remain] = pair
        remain += 1
    visits[0, state, action] += 1
    rate = step_size / visits[0, state, action] ** step_decay
    now = values[pair]
    error = reward + discount * worth - now
    if style == _ACCUMULATING:
        traces[pair] += rate
    elif style == _REPLACING:
        traces[pair] = rate
    else:  # the true online update, whose last term takes back what the trace has moved already
        traces[pair] += rate * (1 - traces[pair])
        error += now - before
    for i in range(remain):
        values[traced[i]] += error * traces[traced[i]]
    if style == _DUTCH:
        values[pair] -= rate * (now - before)
    return remain, worth
