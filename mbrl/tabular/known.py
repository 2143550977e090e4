"""Learning in a known MDP: drawing, acting and learning in one compiled loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator

from mbrl.tabular.config import DOUBLE, require
from mbrl.tabular.memory import grown, make_room, mid_episode
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
    """As `td.run`, in a known MDP and compiled: some million steps a second.

    Rewards are the expected ones. If the last step does not terminate, the episode is truncated
    there.

    Args:
        mdp: next states are drawn from it; it has as many states as the learner.
        learner: learns from every step, and acts by its ε-greedy policy if none is given.
        steps: how many, over all episodes.
        limit: the number of steps after which an episode is truncated. With a limit of 1 and a
            policy, pairs are drawn independently, as from a generative model.
        policy: (S, A) probabilities of the actions, for prediction (the learner then has one
            action) or off-policy learning.
        start: (S,), the distribution of an episode's first state; by default uniform over the
            states that are not terminal.
        generator: seeds all draws.

    Returns:
        The number of episodes.

    Raises:
        ValueError: a learner of other states or actions, or in the middle of an episode; a
            policy, a start or transitions that are not distributions; steps or limit below one.
    """
    world = _world(mdp, learner, policy, start)
    require(steps >= 1, "steps", "at least 1", steps)
    require(limit is None or limit >= 1, "limit", "None or at least 1", limit)
    if mid_episode(learner._memory):
        raise ValueError("the learner is in the middle of an episode of its own")
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    rng, progress = np.random.default_rng(seed), np.zeros(3, dtype=np.int64)
    while True:
        steps -= _run(learner._settings, learner._memory, world, steps, limit or 0, progress, rng)
        if steps == 0:
            return int(progress[_EPISODES])
        learner._memory = grown(learner._memory)


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
    """max |V - V*| of a learner after each of `counts` steps in all, over states not terminal.

    Args:
        mdp: the world.
        learner: learns on; it is not reset.
        values: V* (S,).
        counts: rising numbers of steps.
        ways: arguments of `run_known`, such as `limit` and `policy`, that take turns. Turns of
            single steps with a policy, for example, are exploring starts.
        turns: from one count to the next; the steps are divided evenly and rounded down.
        generator: of all draws.
        callback: called before each turn; it may raise to give up.

    Raises:
        ValueError: no way, fewer steps than turns from one count to the next; see `run_known`.
    """
    require(len(ways) > 0, "ways", "one or more", ways)
    found = []
    for before, after in pairwise([0, *counts]):
        for turn in range(turns):
            callback()
            how = ways[turn % len(ways)]
            steps = (after - before) // turns
            run_known(mdp, learner, steps=steps, generator=generator, **how)
        found.append(float(np.abs(learner.values - values)[~mdp.terminal].max()))
    return found


class _World(NamedTuple):
    """An MDP, a start and a policy, with cumulative probabilities to draw from."""

    starts: np.ndarray  # (S · A + 1,), where the entries of each pair begin in the next two
    next_states: np.ndarray  # (K,)
    cumulative: np.ndarray  # (K,), of the next states of each pair
    rewards: np.ndarray  # (S, A)
    terminal: np.ndarray  # (S,)
    start: np.ndarray  # (S,), cumulative
    policy: np.ndarray  # (S, A), cumulative; (0, 0) where the learner acts


_STATE, _STEPS, _EPISODES = range(3)
"""Places in `progress`: the present state, the steps taken in the episode, the episodes begun."""


def _world(
    mdp: FiniteMDP, learner: TabularLearner, policy: np.ndarray | None, start: np.ndarray | None
) -> _World:
    """The arrays to draw from, checked."""
    rewards = np.ascontiguousarray(mdp.rewards, dtype=float)
    (states, actions), terminal = rewards.shape, np.asarray(mdp.terminal, dtype=bool)
    acts = (actions,) if policy is None else (1, actions)
    require(learner.states == states, "the learner's states", str(states), learner.states)
    require(learner.actions in acts, "the learner's actions", f"in {acts}", learner.actions)
    if start is None:
        start = ~terminal / max(1, (~terminal).sum())
    first = _cumulative(start, (states,), "start")
    require(not np.any(np.asarray(start)[terminal]), "start", "0 where terminal", start)
    acting = np.zeros((0, 0))
    if policy is not None:
        acting = _cumulative(policy, (states, actions), "policy")
    rows: Any = mdp.transitions
    sums = np.asarray(rows.sum(1)).ravel()
    require(
        bool((abs(sums - 1) < 1e-9)[np.repeat(~terminal, actions)].all()) and rows.data.min() >= 0,
        "transitions", "distributions where not terminal", mdp,
    )  # fmt: skip
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


def _cumulative(chances: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Cumulative probabilities, 1 at the end, of distributions that are checked."""
    chances = np.asarray(chances, dtype=float)
    require(chances.shape == shape, name, f"of shape {shape}", chances.shape)
    fair = (chances >= 0).all() and (abs(chances.sum(-1) - 1) < 1e-9).all()
    require(bool(fair), name, "a distribution, not negative and of sum 1", chances)
    sums = chances.cumsum(-1)
    return sums / sums[..., -1:]


@compiled
def _draw(cumulative, first, last, uniform):
    """The first entry of first..last-1 whose cumulative probability exceeds a uniform number."""
    while first < last - 1:
        middle = (first + last - 1) // 2
        if cumulative[middle] > uniform:
            last = middle + 1
        else:
            first = middle + 1
    return first


@compiled
def _run(settings, memory, world, steps, limit, progress, rng):
    """Take up to `steps` steps, fewer if the memory has no room for more; how many."""
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
        step = (state, action if several else 0, world.rewards[state, action], next_state)
        observe_step(settings, memory, *step, terminated, episode_over, table)
        progress[_STATE] = next_state
        if episode_over:
            progress[_STEPS] = 0
    return steps
