"""Learning from samples of a known MDP, in one compiled loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator

from mbrl.tabular.config import DOUBLE, require
from mbrl.tabular.memory import double_capacity, make_room, mid_episode
from mbrl.tabular.targets import choose
from mbrl.tabular.td import TabularLearner, observe_step
from mbrl.types import FiniteMDP
from planners.compile import compiled


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
    """Like `td.run`, but compiled and for a known MDP: about a million steps per second.

    Rewards are expected rewards. The last episode is truncated at the last step if it has not
    terminated.

    Args:
        mdp: the MDP to draw next states from, with as many states as the learner.
        learner: learns from every step; its ε-greedy policy acts if `policy` is not given.
        steps: total number of steps, over all episodes.
        limit: number of steps after which an episode is truncated. With a limit of 1 and a
            policy, states and actions are drawn independently, as from a generative model.
        policy: (S, A) probabilities of the actions, for prediction (the learner then has one
            action) or off-policy learning.
        start: (S,), the distribution of an episode's first state; by default uniform over the
            states that are not terminal.
        generator: random stream of all draws.

    Returns:
        The number of episodes.

    Raises:
        ValueError: a learner with other numbers of states or actions, or in the middle of an
            episode; a policy, a start or transitions that are not distributions; steps or limit
            below one.
    """
    world = _world(mdp, learner, policy, start)
    require(steps >= 1, "steps", "at least 1", steps)
    require(limit is None or limit >= 1, "limit", "None or at least 1", limit)
    if mid_episode(learner._memory):
        raise ValueError("the learner is in the middle of an episode; end it first")
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    rng, progress = np.random.default_rng(seed), np.zeros(3, dtype=np.int64)
    while True:
        steps -= _run(learner._settings, learner._memory, world, steps, limit or 0, progress, rng)
        if steps == 0:
            return int(progress[_EPISODES])
        learner._memory = double_capacity(learner._memory)


def errors_by_steps(
    mdp: FiniteMDP,
    learner: TabularLearner,
    values: np.ndarray,
    counts: Sequence[int],
    *,
    ways: Sequence[Mapping[str, Any]] = ({},),
    turns: int = 20,
    generator: Generator,
    callback: Callable[[], None] = lambda: None,
) -> list[float]:
    """max |V - V*| over non-terminal states, after each total number of steps in `counts`.

    Args:
        mdp: the MDP to learn in.
        learner: the learner, which is not reset.
        values: V* (S,).
        counts: rising numbers of steps.
        ways: keyword arguments of `run_known`, used in rotation, one per call. For exploring
            starts, for example, one of them has a limit of 1 and a random policy.
        turns: number of calls of `run_known` between two counts. The steps are divided evenly
            between them and rounded down.
        generator: random stream of all draws.
        callback: called before each call of `run_known`; it may raise an exception to stop.

    Returns:
        One error for each of `counts`.

    Raises:
        ValueError: no `ways`, fewer steps than `turns` between two counts; see `run_known`.
    """
    require(len(ways) > 0, "ways", "one or more", ways)
    errors = []
    for before, after in pairwise([0, *counts]):
        for turn in range(turns):
            callback()
            arguments = ways[turn % len(ways)]
            steps = (after - before) // turns
            run_known(mdp, learner, steps=steps, generator=generator, **arguments)
        errors.append(float(np.abs(learner.values - values)[~mdp.terminal].max()))
    return errors


class _World(NamedTuple):
    """An MDP, a start distribution and a policy, with cumulative probabilities to draw from."""

    starts: np.ndarray  # (S · A + 1,), first entry of each pair in the next two arrays
    next_states: np.ndarray  # (K,)
    cumulative: np.ndarray  # (K,), of the next states of each pair
    rewards: np.ndarray  # (S, A)
    terminal: np.ndarray  # (S,)
    start: np.ndarray  # (S,), cumulative probabilities
    policy: np.ndarray  # (S, A), cumulative probabilities; (0, 0) if the learner acts


_STATE, _STEPS, _EPISODES = range(3)
"""Indices in `progress`: current state, steps taken in the episode, episodes begun."""


def _world(
    mdp: FiniteMDP, learner: TabularLearner, policy: np.ndarray | None, start: np.ndarray | None
) -> _World:
    """The arrays to draw from, after checks of the arguments."""
    rewards = np.ascontiguousarray(mdp.rewards, dtype=float)
    (states, actions), terminal = rewards.shape, np.asarray(mdp.terminal, dtype=bool)
    acts = (actions,) if policy is None else (1, actions)
    require(learner.states == states, "the learner's states", str(states), learner.states)
    require(learner.actions in acts, "the learner's actions", f"in {acts}", learner.actions)
    if start is None:
        start = ~terminal / max(1, (~terminal).sum())
    first = _cumulative(start, (states,), "start")
    ended = float(np.asarray(start)[terminal].sum())
    require(ended == 0, "start", "0 where terminal", ended)
    acting = np.zeros((0, 0))
    if policy is not None:
        acting = _cumulative(policy, (states, actions), "policy")
    rows: Any = mdp.transitions
    sums = np.asarray(rows.sum(1)).ravel()[np.repeat(~terminal, actions)]
    _check_distributions("transitions", rows.data, sums)
    starts = np.asarray(rows.indptr, dtype=np.int64)
    summed = np.concatenate([[0.0], np.cumsum(rows.data)])
    return _World(
        starts,
        np.asarray(rows.indices, dtype=np.int64),
        summed[1:] - np.repeat(summed[starts[:-1]], np.diff(starts)),
        rewards,
        terminal,
        first,
        acting,
    )


def _cumulative(probabilities: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Cumulative probabilities, of which the last is exactly 1, after checks."""
    probabilities = np.asarray(probabilities, dtype=float)
    require(probabilities.shape == shape, name, f"of shape {shape}", probabilities.shape)
    _check_distributions(name, probabilities, probabilities.sum(-1))
    sums = probabilities.cumsum(-1)
    return sums / sums[..., -1:]


def _check_distributions(name: str, probabilities: np.ndarray, sums: np.ndarray) -> None:
    least, off = probabilities.min(), abs(sums - 1).max()
    if not (least >= 0 and off < 1e-9):
        raise ValueError(
            f"{name} must be a distribution, not negative and of sum 1, "
            f"got a least number of {least:g} and a sum that is off by {off:g}"
        )


@compiled(inline="always")
def _draw(cumulative, first, last, uniform):
    """The first entry of first..last-1 whose cumulative probability exceeds `uniform`."""
    while first < last - 1:
        middle = (first + last - 1) // 2
        if cumulative[middle] > uniform:
            last = middle + 1
        else:
            first = middle + 1
    return first


@compiled
def _run(settings, memory, world, steps, limit, progress, rng):
    """Take `steps` steps, or fewer if the memory becomes full; returns how many."""
    actions = world.rewards.shape[1]
    several = memory.tables.shape[2] > 1
    for done in range(steps):
        if not make_room(memory):
            return done
        if progress[_STEPS] == 0:
            progress[_STATE] = _draw(world.start, 0, len(world.start), rng.random())
            progress[_EPISODES] += 1
        state = progress[_STATE]
        if world.policy.size:
            action = _draw(world.policy[state], 0, actions, rng.random())
        else:
            action = choose(settings, memory, state, rng.random())
        pair = state * actions + action
        entry = _draw(world.cumulative, world.starts[pair], world.starts[pair + 1], rng.random())
        next_state = world.next_states[entry]
        terminated = world.terminal[next_state]
        progress[_STEPS] += 1
        episode_over = terminated or progress[_STEPS] == limit or done == steps - 1
        table = int(rng.random() < 0.5) if settings.target == DOUBLE else 0
        observe_step(
            settings, memory, state, action if several else 0, world.rewards[state, action],
            next_state, terminated, episode_over, table,
        )  # fmt: skip
        progress[_STATE] = next_state
        if episode_over:
            progress[_STEPS] = 0
    return steps
