"""Action values of finite environments, learned from the steps taken in them.

Sutton and Barto 2018, "Reinforcement learning", chapters 5, 6, 7 and 12. All arrays are numpy
float64; states and actions are integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch
from numba import njit
from torch import Generator, Tensor

from mbrl.types import FiniteMDP

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
    averaging: bool = False
    """Whether a pair's value is told as the mean of what it was after each visit, visit n weighing
    n (Polyak and Juditsky 1992; Shamir and Zhang 2013): as near as any method of the kind comes,
    whatever the step size. Learning and acting go by the last values as ever."""
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
        self._rule = _Rule(
            _TARGETS[config.target], config.steps or 0, float(config.discount),
            float(config.step_size), float(config.step_decay), float(config.epsilon),
            float(config.epsilon_decay), float(config.trace_decay), _TRACES[config.traces],
            bool(config.averaging),
        )  # fmt: skip
        self._memory = _memory(states, actions, config)

    @property
    def tables(self) -> np.ndarray:
        """What it learns (1, S, A), or (2, S, A) for target double: the array itself, no copy."""
        return self._memory.tables

    @property
    def action_values(self) -> np.ndarray:
        """Q (S, A), a copy; of two tables the mean, and over time with averaging."""
        return (self._memory.means if self.config.averaging else self.tables).mean(0)

    @property
    def values(self) -> np.ndarray:
        """max_a Q (S,); with one action, V."""
        return self.action_values.max(1)

    @property
    def policy(self) -> np.ndarray:
        """The greedy policy (S,), the first of equals."""
        return (self._memory.means if self.config.averaging else self.tables).sum(0).argmax(1)

    @property
    def probabilities(self) -> np.ndarray:
        """The ε-greedy policy (S, A) that explores now, equals alike."""
        values = self.tables.sum(0)
        best = values == values.max(1, keepdims=True)
        visits = np.maximum(self._memory.visits.sum((0, 2)), 1)
        epsilon = (self.config.epsilon / visits**self.config.epsilon_decay)[:, None]
        return epsilon / self.actions + (1 - epsilon) * best / best.sum(1, keepdims=True)

    def act(self, state: int, *, explore: bool, generator: Generator) -> int:
        """An action: of the ε-greedy policy, or the first of the best."""
        state = _index(state, self.states, "state")
        uniform = -1.0
        if explore:
            device = generator.device
            uniform = torch.rand((), generator=generator, device=device, dtype=torch.float64).item()
        return _chosen(state, uniform, *self._rule, *self._memory)

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
        state, action, reward, following = checked(
            self.states, self.actions, state, action, reward, next_state
        )
        marks = self._memory.marks
        if _pending(marks) and state != marks[_NEXT]:
            raise ValueError(
                f"the step from state {state} does not follow the one to state {marks[_NEXT]}, "
                "which neither terminated nor was truncated"
            )
        which = 0
        if self._rule.target == _DOUBLE:
            if generator is None:
                raise ValueError("target double needs a generator to flip its coin")
            coin = torch.randint(2, (), generator=generator, device=generator.device)
            which = int(coin)
        if marks[_LAST] == len(self._memory.states) and not _room(self._memory):
            self._grow()
        over = bool(terminated or truncated)
        step = (state, action, reward, following, bool(terminated), over, which)
        _observed(*step, *self._rule, *self._memory)

    def state_dict(self) -> dict[str, Tensor]:
        """All it holds, the episode it is in with it; the config is the caller's."""
        return {
            name: torch.from_numpy(array.copy()) for name, array in self._memory._asdict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: an array is missing, of another shape, or marks no place in the others.
        """
        held = self._memory._asdict()
        if state.keys() != held.keys():
            raise ValueError(f"a learner's state holds {[*held]}, got {[*state]}")
        taken = {
            name: state[name].cpu().numpy().astype(array.dtype, order="C", copy=True)
            for name, array in held.items()
        }
        size = taken["states"].shape if taken["states"].ndim == 1 else (0,)
        for name, array in held.items():
            shape = size if name in ("states", "actions", "rewards") else array.shape
            if taken[name].shape != shape:
                raise ValueError(
                    f"{name} of shape {taken[name].shape} does not fit a learner of "
                    f"{self.states} states and {self.actions} actions, which takes {shape}"
                )
        first, last, following, count = (
            int(taken["marks"][i]) for i in (_FIRST, _LAST, _NEXT, _COUNT)
        )
        inside = 0 <= first <= last <= size[0] and 0 <= following < self.states
        if not inside or not 0 <= count <= len(taken["traced"]):
            raise ValueError(f"marks {taken['marks'].tolist()} lie outside of what was saved")
        self._memory = _Memory(**taken)

    def _grow(self) -> None:
        """Twice the room for the episode."""
        path = {
            name: np.resize(getattr(self._memory, name), 2 * len(self._memory.states))
            for name in ("states", "actions", "rewards")
        }
        self._memory = self._memory._replace(**path)


def checked(
    states: int, actions: int, state: int, action: int, reward: float, next_state: int
) -> tuple[int, int, float, int]:
    """A step's state, action, reward and next state as plain numbers, once seen to be some.

    With one action it is of no account. Raises ValueError for what is no state or action, and for
    a reward that is not finite.
    """
    state = _index(state, states, "state")
    action = 0 if actions == 1 else _index(action, actions, "action")
    following = _index(next_state, states, "next_state")
    if not math.isfinite(reward):
        raise ValueError(f"the reward of state {state}, action {action} is not finite")
    return state, action, float(reward), following


def _index(value: int, count: int, name: str) -> int:
    if not 0 <= value < count or int(value) != value:
        raise ValueError(f"{name} must be an integer in 0..{count - 1}, got {value!r}")
    return int(value)


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


def run_known(
    mdp: FiniteMDP,
    learner: TabularLearner,
    *,
    steps: int,
    limit: int | None = None,
    policy: np.ndarray | None = None,
    start: np.ndarray | None = None,
    generator: Generator,
) -> int:
    """`run` in an MDP whose table is known, compiled: a million steps a second.

    Rewards are the expected ones. The last step is truncated if it does not terminate.

    Args:
        mdp: draws next states and says what they earn; S is the learner's.
        learner: acts, by its ε-greedy policy, and observes.
        steps: how many in all.
        limit: the steps after which an episode is truncated; with 1 and a policy, pairs are
            drawn as from a generative model.
        policy: (S, A), acts in the learner's place, for prediction, where the learner has but
            one action, or off-policy.
        start: (S,), where episodes begin; all states alike that are not terminal, if not given.
        generator: seeds all that is drawn.

    Returns:
        How many episodes there were.

    Raises:
        ValueError: a learner of other states or actions, or in the middle of an episode; a
            policy, a start or transitions that are no distributions; steps or limit below one.
    """
    world = _world(mdp, learner, policy, start)
    _require(steps >= 1, "steps", "at least 1", steps)
    _require(limit is None or limit >= 1, "limit", "None or at least 1", limit)
    if _pending(learner._memory.marks):
        raise ValueError("the learner is in the middle of an episode of its own")
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    rng, at = np.random.default_rng(seed), np.zeros(3, dtype=np.int64)
    while True:
        steps -= _live(learner._rule, learner._memory, world, steps, limit or 0, at, rng)
        if steps == 0:
            return int(at[_EPISODES])
        learner._grow()


def _world(
    mdp: FiniteMDP, learner: TabularLearner, policy: np.ndarray | None, start: np.ndarray | None
) -> _World:
    """What `_live` draws from, once it is seen to fit."""
    rewards = np.ascontiguousarray(mdp.rewards, dtype=float)
    (states, actions), terminal = rewards.shape, np.asarray(mdp.terminal, dtype=bool)
    acts = (actions,) if policy is None else (1, actions)
    _require(learner.states == states, "the learner's states", str(states), learner.states)
    _require(learner.actions in acts, "the learner's actions", f"in {acts}", learner.actions)
    if start is None:
        start = ~terminal / max(1, (~terminal).sum())
    first = _reached(start, (states,), "start")
    _require(not np.any(np.asarray(start)[terminal]), "start", "0 where terminal", start)
    acting = np.zeros((0, 0))
    if policy is not None:
        acting = _reached(policy, (states, actions), "policy")
    rows: Any = mdp.transitions
    sums = np.asarray(rows.sum(1)).ravel()
    _require(
        bool((abs(sums - 1) < 1e-9)[np.repeat(~terminal, actions)].all()) and rows.data.min() >= 0,
        "transitions", "distributions where not terminal", mdp,
    )  # fmt: skip
    starts = np.asarray(rows.indptr, dtype=np.int64)
    reached = np.concatenate([[0.0], np.cumsum(rows.data)])
    return _World(
        starts,
        np.asarray(rows.indices, dtype=np.int64),
        reached[1:] - np.repeat(reached[starts[:-1]], np.diff(starts)),
        rewards,
        terminal,
        first,
        acting,
    )


def _reached(chances: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Cumulative chances, 1 at the end, once they are seen to be distributions."""
    chances = np.asarray(chances, dtype=float)
    _require(chances.shape == shape, name, f"of shape {shape}", chances.shape)
    fair = (chances >= 0).all() and (abs(chances.sum(-1) - 1) < 1e-9).all()
    _require(bool(fair), name, "a distribution, not negative and of sum 1", chances)
    sums = chances.cumsum(-1)
    return sums / sums[..., -1:]


def _require(holds: bool, name: str, accepted: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")


class _Rule(NamedTuple):
    """A config, as the kernels take it."""

    target: int
    steps: int  # 0 for all
    discount: float
    step_size: float
    step_decay: float
    epsilon: float
    epsilon_decay: float
    trace_decay: float
    traces: int
    averaging: bool


class _Memory(NamedTuple):
    """All that a learner holds."""

    tables: np.ndarray  # (1 or 2, S, A)
    visits: np.ndarray  # likewise
    means: np.ndarray  # likewise with averaging, else (0, S, A)
    states: np.ndarray  # (room,) with the next two: steps, of which first..last-1 wait
    actions: np.ndarray
    rewards: np.ndarray
    seen: np.ndarray  # (S, A), the last episode with a pair in it, for first visits; else (0, 0)
    trace: np.ndarray  # (S · A,), or (0,) without traces
    traced: np.ndarray  # likewise, the pairs that have one first
    marks: np.ndarray  # (6,), see below
    before: np.ndarray  # (1,), what the table said of the present pair a step ago


_FIRST, _LAST, _NEXT, _WAITING, _EPISODE, _COUNT = range(6)
"""Places in marks: first and last as above, the state after the last step, whether that step waits
for the next action, the episode's number, how many pairs have a trace."""


class _World(NamedTuple):
    """What steps are drawn from; chances are cumulative."""

    starts: np.ndarray  # (S · A + 1,), of a row in the next two
    after: np.ndarray
    reached: np.ndarray
    rewards: np.ndarray  # (S, A)
    terminal: np.ndarray  # (S,)
    start: np.ndarray  # (S,)
    policy: np.ndarray  # (S, A), or (0, 0) where the learner acts


_STATE, _AGE, _EPISODES = range(3)


def _memory(states: int, actions: int, config: TabularConfig) -> _Memory:
    shape = (2 if config.target == "double" else 1, states, actions)
    tables = np.full(shape, float(config.initial))
    room = max(64, 2 * (config.steps or 0))
    traced = states * actions if config.trace_decay else 0
    return _Memory(
        tables,
        np.zeros(shape, dtype=np.int64),
        tables.copy() if config.averaging else np.zeros((0, states, actions)),
        np.zeros(room, dtype=np.int64),
        np.zeros(room, dtype=np.int64),
        np.zeros(room),
        np.zeros((states, actions) if config.first_visit else (0, 0), dtype=np.int64),
        np.zeros(traced),
        np.zeros(traced, dtype=np.int64),
        np.array([0, 0, 0, 0, 1, 0]),
        np.zeros(1),
    )


def _pending(marks: np.ndarray) -> bool:
    """Whether the next step must follow the last."""
    return bool(marks[_WAITING] or marks[_LAST] > marks[_FIRST] or marks[_COUNT])


@njit(cache=True, nogil=True)
def epsilon_greedy(values, epsilon, uniform):
    """An ε-greedy action, equals alike, from one uniform; below 0, the first of the best."""
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


@njit(cache=True, nogil=True)
def _explores(rule, memory, state):
    """ε of a state."""
    if rule.epsilon_decay == 0:
        return rule.epsilon
    return rule.epsilon / max(memory.visits[:, state].sum(), 1) ** rule.epsilon_decay


@njit(cache=True, nogil=True)
def _choose(rule, memory, state, uniform):
    """An action of the ε-greedy policy."""
    chance = _explores(rule, memory, state)
    if rule.target == _DOUBLE:
        return epsilon_greedy(memory.tables[:, state].sum(0), chance, uniform)
    return epsilon_greedy(memory.tables[0, state], chance, uniform)


@njit(cache=True, nogil=True)
def _chosen(state, uniform, *parts):
    """`_choose` for Python, from which a tuple costs more to hand over than its parts."""
    return _choose(_Rule(*parts[:10]), _Memory(*parts[10:]), state, uniform)


@njit(cache=True, nogil=True)
def _observed(state, action, reward, following, terminated, over, which, *parts):
    """`_observe` likewise."""
    step = (state, action, reward, following, terminated, over, which)
    _observe(_Rule(*parts[:10]), _Memory(*parts[10:]), *step)


@njit(cache=True, nogil=True)
def _room(memory):
    """Whether there is room for another step, once the path has moved to the front."""
    marks = memory.marks
    first, kept = marks[_FIRST], marks[_LAST] - marks[_FIRST]
    if kept == 0 or (marks[_LAST] == len(memory.states) and first > 0):
        for t in range(kept):
            memory.states[t] = memory.states[first + t]
            memory.actions[t] = memory.actions[first + t]
            memory.rewards[t] = memory.rewards[first + t]
        marks[_FIRST], marks[_LAST] = 0, kept
    return marks[_LAST] < len(memory.states)


@njit(cache=True, nogil=True)
def _observe(rule, memory, state, action, reward, following, terminated, over, which):
    """Learn from a step, for which there is room."""
    marks = memory.marks
    if marks[_WAITING]:
        _learn(rule, memory, action, False, False, 0)
    if marks[_FIRST] == marks[_LAST]:
        marks[_FIRST] = marks[_LAST] = 0
    last = marks[_LAST]
    memory.states[last], memory.actions[last], memory.rewards[last] = state, action, reward
    marks[_LAST], marks[_NEXT] = last + 1, following
    several = memory.tables.shape[2] > 1
    marks[_WAITING] = rule.target == _SARSA and several and not over
    if not marks[_WAITING]:
        _learn(rule, memory, -1 if several else 0, terminated, over, which)


@njit(cache=True, nogil=True)
def _learn(rule, memory, next_action, terminated, over, which):
    """Update what the last step completes, and all that is left if the episode is over."""
    marks = memory.marks
    worth = 0.0
    if not terminated:
        worth = _worth(rule, memory, which, marks[_NEXT], next_action)
    if rule.trace_decay > 0:
        marks[_FIRST] = marks[_LAST]
        _backward(rule, memory, worth)
        if over:
            for i in range(marks[_COUNT]):
                memory.trace[memory.traced[i]] = 0
            marks[_COUNT] = 0
    else:
        known = rule.steps > 0 and marks[_LAST] - marks[_FIRST] >= rule.steps
        until = marks[_LAST] if over else marks[_FIRST] + known
        if until > marks[_FIRST]:
            _forward(rule, memory, which, until, worth)
            marks[_FIRST] = until
    marks[_EPISODE] += over


@njit(cache=True, nogil=True)
def _worth(rule, memory, which, state, action):
    """What a target says of the state it bootstraps from; action -1 where it is not known."""
    values = memory.tables[which, state]
    if rule.target == _DOUBLE:
        return memory.tables[1 - which, state, values.argmax()]
    if rule.target == _Q:
        return values.max()
    if rule.target == _SARSA and action >= 0:
        return values[action]
    chance = _explores(rule, memory, state)
    return chance * values.mean() + (1 - chance) * values.max()


@njit(cache=True, nogil=True)
def _keeps(rule, memory, state, action):
    """How much of what comes after an action counts for what came before it."""
    if rule.target != _Q and rule.target != _TREE:
        return 1.0
    values = memory.tables[0, state]
    greedy = values[action] == values.max()
    if rule.target == _Q:
        return 1.0 if greedy else 0.0
    chance = _explores(rule, memory, state)
    share = greedy / (values == values.max()).sum()
    return chance / len(values) + (1 - chance) * share


@njit(cache=True, nogil=True)
def _visit(rule, memory, which, state, action):
    """Count a visit; the step size of its update."""
    memory.visits[which, state, action] += 1
    if rule.step_decay == 0:
        return rule.step_size
    return rule.step_size / memory.visits[which, state, action] ** rule.step_decay


@njit(cache=True, nogil=True)
def _average(rule, memory, which, state, action):
    """Take a pair's value after a visit into its mean."""
    if rule.averaging:
        share = 2 / (memory.visits[which, state, action] + 1)
        change = memory.tables[which, state, action] - memory.means[which, state, action]
        memory.means[which, state, action] += share * change


@njit(cache=True, nogil=True)
def _forward(rule, memory, which, until, worth):
    """n steps: targets of those that wait, back from what follows; those before until learn."""
    states, actions = memory.states, memory.actions
    first, last = memory.marks[_FIRST], memory.marks[_LAST]
    targets = np.empty(until - first)
    for t in range(last - 1, first - 1, -1):
        if t < last - 1 and (rule.target == _TREE or rule.target == _Q):
            state, action = states[t + 1], actions[t + 1]
            kept = _keeps(rule, memory, state, action)
            there = _worth(rule, memory, which, state, -1)
            worth = there + kept * (worth - memory.tables[which, state, action])
        worth = memory.rewards[t] + rule.discount * worth
        if t < until:
            targets[t - first] = worth
    for t in range(first, until):
        state, action = states[t], actions[t]
        if memory.seen.size:
            if memory.seen[state, action] == memory.marks[_EPISODE]:
                continue
            memory.seen[state, action] = memory.marks[_EPISODE]
        rate = _visit(rule, memory, which, state, action)
        error = targets[t - first] - memory.tables[which, state, action]
        memory.tables[which, state, action] += rate * error
        _average(rule, memory, which, state, action)


@njit(cache=True, nogil=True)
def _backward(rule, memory, worth):
    """Traces, each with its step size in it, after the last step.

    Sutton and Barto, sections 12.5, 12.7 and 12.10.
    """
    last = memory.marks[_LAST] - 1
    state, action, reward = memory.states[last], memory.actions[last], memory.rewards[last]
    traces, traced = memory.trace, memory.traced
    actions = memory.tables.shape[2]
    kept = rule.discount * rule.trace_decay * _keeps(rule, memory, state, action)
    remain = 0
    for i in range(memory.marks[_COUNT]):
        pair = traced[i]
        traces[pair] *= kept
        if traces[pair] > 1e-20:  # below, no double would feel it
            traced[remain] = pair
            remain += 1
        else:
            traces[pair] = 0.0
    pair = state * actions + action
    if traces[pair] == 0:
        traced[remain] = pair
        remain += 1
    rate = _visit(rule, memory, 0, state, action)
    now = memory.tables[0, state, action]
    error = reward + rule.discount * worth - now
    if rule.traces == _ACCUMULATING:
        traces[pair] += rate
    elif rule.traces == _REPLACING:
        traces[pair] = rate
    else:  # the true online update, whose last term takes back what the trace has moved already
        traces[pair] += rate * (1 - traces[pair])
        error += now - memory.before[0]
    for i in range(remain):
        memory.tables[0, traced[i] // actions, traced[i] % actions] += error * traces[traced[i]]
    if rule.traces == _DUTCH:
        memory.tables[0, state, action] -= rate * (now - memory.before[0])
    _average(rule, memory, 0, state, action)
    memory.marks[_COUNT], memory.before[0] = remain, worth


@njit(cache=True, nogil=True)
def _drawn(reached, first, last, uniform):
    """The entry of first..last-1 at which the cumulative chance passes a uniform."""
    while first < last - 1:
        middle = (first + last - 1) // 2
        if reached[middle] > uniform:
            last = middle + 1
        else:
            first = middle + 1
    return first


@njit(cache=True, nogil=True)
def _live(rule, memory, world, steps, limit, at, rng):
    """As many of the steps that are left as there is room for; how many."""
    actions = world.rewards.shape[1]
    several = memory.tables.shape[2] > 1
    for done in range(steps):
        if not _room(memory):
            return done
        if at[_AGE] == 0:
            at[_STATE] = _drawn(world.start, 0, len(world.start), rng.random())
            at[_EPISODES] += 1
        state = at[_STATE]
        if world.policy.size:
            action = _drawn(world.policy[state], 0, actions, rng.random())
        else:
            action = _choose(rule, memory, state, rng.random())
        row = state * actions + action
        entry = _drawn(world.reached, world.starts[row], world.starts[row + 1], rng.random())
        following = world.after[entry]
        terminated = world.terminal[following]
        at[_AGE] += 1
        over = terminated or at[_AGE] == limit or done == steps - 1
        which = int(rng.random() < 0.5) if rule.target == _DOUBLE else 0
        step = (state, action if several else 0, world.rewards[state, action], following)
        _observe(rule, memory, *step, terminated, over, which)
        at[_STATE] = following
        if over:
            at[_AGE] = 0
    return steps
