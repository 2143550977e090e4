"""Steps of N parallel environments, in episodes that can be saved and continued."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor

from mbrl.checks import check_state
from mbrl.rng import episode_seed
from mbrl.spaces import flattened, spec_of
from mbrl.training.answers import (
    EnvironmentError,
    called,
    check_batch,
    check_reset,
    check_step,
    raised,
)
from mbrl.types import Player, Transition
from planners.checks import check_memory


class Actor(Protocol):
    """Chooses actions: an agent or a player."""

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A) for observations (N, *O)."""
        ...


def vector(
    env: gymnasium.Env | VectorEnv | Sequence[Callable[[], gymnasium.Env]],
) -> VectorEnv:
    """A vector of N environments, from a vector, one environment, or functions that make each.

    A vector is returned as it is. The others are stepped one after another in this process, and
    observations that are a dict or tuple become vectors; see `mbrl.spaces.flattened`.

    Raises:
        ValueError: more environments than fit into memory, estimated from the first of them.
    """
    if isinstance(env, VectorEnv):
        return env
    if isinstance(env, gymnasium.Env):
        makers = [lambda: flattened(env)]
    else:
        makers = _check_environments([lambda make=make: flattened(make()) for make in env])
    return _CheckedVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)


class _CheckedVectorEnv(SyncVectorEnv):
    """gymnasium's `SyncVectorEnv`; for spaces of arrays its step is faster and checks its values.

    Each step returns new arrays, so that nothing needs to be copied.
    """

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environments where `options["reset_mask"]` (N,) is True, by default all.

        Returns the observations of all environments, and infos.
        """
        if not self._of_arrays():
            return super().reset(seed=seed, options=options)  # pyright: ignore[reportArgumentType]
        count = self.num_envs
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + i for i in range(count)]
        seeds, own = seed, None if options is None else {**options}
        begins = np.ones(count, bool)
        if own is not None:
            begins = own.pop("reset_mask", begins)
        self._terminations[begins] = self._truncations[begins] = False
        self._autoreset_envs[begins] = False
        each: list[Any] = self._env_obs
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(begins).tolist():
            reset = partial(self.envs[i].reset, seed=seeds[i], options=own)
            each[i], info = check_reset(called(reset, "reset", i), self.single_observation_space, i)
            infos = self._add_info(infos, info, i)
        return np.stack(each, out=np.empty_like(self._observations)), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every environment; returns observations, rewards, terminated, truncated, infos."""
        if not self._of_arrays():
            return super().step(actions)
        columns, each = self._stepped(actions)
        infos: dict[str, Any] = {}
        for i, info in enumerate(each):
            if info:
                infos = self._add_info(infos, info, i)
        return columns[0], columns[1], columns[2], columns[3], infos

    def columns(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        """As `step`, without the infos: to merge them takes as long as a small environment."""
        if not self._of_arrays():
            return tuple(map(np.array, super().step(actions)[:4]))
        return self._stepped(actions)[0]

    def _stepped(self, actions: Any) -> tuple[tuple[np.ndarray, ...], list[dict[str, Any]]]:
        assert not np.count_nonzero(self._autoreset_envs), "an environment is over, and not reset"
        rewards = np.empty(self.num_envs)
        terminated, truncated = np.empty((2, self.num_envs), dtype=np.bool_)
        infos: list[dict[str, Any]] = []
        space = self.single_observation_space
        each: list[Any] = self._env_obs  # which a masked reset reads too
        obs = np.empty_like(self._observations)
        for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            try:
                answer = env.step(action)
            except MemoryError:
                raise
            except Exception as error:
                raise raised(error, "step", i) from error
            each[i], rewards[i], terminated[i], truncated[i], info = check_step(answer, space, i)
            obs[i] = each[i]
            infos.append(info)
        self._autoreset_envs = terminated | truncated
        return (obs, rewards, terminated, truncated), infos

    def close(self, **how: Any) -> None:
        """Close the environments; if one cannot be closed, a second call does not try again."""
        try:
            super().close(**how)
        finally:
            self.closed = True

    def _of_arrays(self) -> bool:
        return isinstance(self.observation_space, ARRAYS) and isinstance(self.action_space, ARRAYS)


LONGEST = 10_000
"""Most steps of an evaluation episode in an environment without a time limit, as it may not end."""

ARRAYS = (Box, MultiDiscrete)
"""Spaces of N environments whose values are one array."""


_MEASURED = 32
"""Number of environments that are made to estimate how much memory more of them need."""


def _check_environments(
    makers: Sequence[Callable[[], gymnasium.Env]],
) -> list[Callable[[], gymnasium.Env]]:
    """Check that the environments fit into memory; returns functions that make or have made them.

    Raises:
        ValueError: they do not.
    """
    if len(makers) <= _MEASURED:
        return list(makers)
    made = [makers[0]()]  # not measured, because it loads modules and files
    before = _resident()
    made += [make() for make in makers[1:_MEASURED]]
    each = (_resident() - before) / (_MEASURED - 1)
    try:
        check_memory(f"{len(makers)} environments", each * (len(makers) - _MEASURED))
    except ValueError:
        for env in made:
            env.close()
        raise
    return [*(lambda env=env: env for env in made), *makers[_MEASURED:]]


def _resident() -> int:
    """Bytes of memory that this process uses; 0 if the system does not report them."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Episodes:
    """The state of the current episodes of N environments.

    Episodes are numbered in the order in which they begin, and each is reset with
    `episode_seed(seed, number)`. The number and the actions of each current episode are stored. In
    an environment that seed and actions determine, these are enough to return to the same state.

    Args:
        seed: seed of all episodes.
        first: number of the first episode.

    Attributes:
        begun: number of the next episode.
        steps: number of environment steps so far, over all environments.
        obs: (N, *O), current observations; None before the first step.
        numbers, returns, lengths: (N,), number, return and length of each environment's episode.
        over: (N,) bool, whether the episode has ended; the next one begins with the next step.
        seconds: time spent in choosing actions ("act"), in steps ("step") and in resets ("reset").
    """

    def __init__(self, seed: int, *, first: int = 0) -> None:
        self.seed, self.begun, self.steps = seed, first, 0
        self.obs: np.ndarray | None = None
        self.numbers = np.zeros(0, dtype=np.int64)
        self.returns, self.lengths = np.zeros(0), np.zeros(0, dtype=np.int64)
        self.over = np.zeros(0, dtype=bool)
        self.actions: list[list[np.ndarray]] = []
        self.seconds = {"act": 0.0, "step": 0.0, "reset": 0.0}

    def begin(self, env: VectorEnv) -> np.ndarray:
        """Reset the environments whose episode is over; returns a mask (N,) bool of them."""
        if self.obs is None:
            count = env.num_envs
            self.numbers, self.lengths = np.zeros((2, count), dtype=np.int64)
            self.returns, self.over = np.zeros(count), np.ones(count, dtype=bool)
            self.actions = [[] for _ in range(count)]
        begins = self.over
        if not np.count_nonzero(begins):
            return begins
        for i in np.flatnonzero(begins):
            self.numbers[i] = self.begun
            self.returns[i], self.lengths[i], self.actions[i] = 0.0, 0, []
            self.begun += 1
        try:
            self.obs = _reset(env, begins, self._seeds(), self.obs)
        except EnvironmentError as error:
            place = int(np.flatnonzero(begins)[0]) if error.place is None else error.place
            raise EnvironmentError(
                f"{error} at the start of episode {self.numbers[place]} "
                f"(after environment step {self.steps})",
                place,
            ) from error.__cause__
        self._check(self.obs, None)
        self.over = np.zeros_like(begins)
        return begins

    def record(self, actions: np.ndarray, next_obs: Any, rewards: Any, ends: np.ndarray) -> None:
        """Record one step of every environment."""
        self._check(next_obs, rewards)
        for history, action in zip(self.actions, actions, strict=True):
            history.append(action)
        self.steps += len(ends)
        self.lengths += 1
        self.returns += rewards
        self.obs, self.over = next_obs, ends

    def _seeds(self) -> list[int]:
        return [episode_seed(self.seed, number) for number in self.numbers.tolist()]

    def _check(self, obs: np.ndarray, rewards: np.ndarray | None) -> None:
        for name, value in (("observation", obs), ("reward", rewards)):
            if value is None or value.dtype.kind != "f":
                continue
            good = np.isfinite(value)
            if np.count_nonzero(good) < good.size:  # twice as fast as `all`
                good = good.reshape(len(value), -1).all(1)
                bad = int(np.flatnonzero(~good)[0])
                raise EnvironmentError(
                    f"the environment returned {'a' if name == 'reward' else 'an'} {name} that is "
                    f"not finite {self._now(bad)}",
                    bad,
                )

    def _now(self, place: int) -> str:
        """The current step of one of the environments, for a message."""
        return (
            f"at step {self.lengths[place] + 1} of episode {self.numbers[place]} "
            f"(environment step {self.steps + place + 1})"
        )

    def step(self, env: VectorEnv, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        """Step the environments.

        Returns:
            Observations, the last ones of episodes that end, rewards, terminated and truncated.

        Raises:
            EnvironmentError: an environment raised an exception, or returned a value that no agent
                can use; the message has the step.
        """
        try:
            # copies, because an environment may write to the arrays later
            if isinstance(env, _CheckedVectorEnv):
                columns = called(partial(env.columns, actions.copy()), "step")
            else:
                columns = _columns(called(partial(env.step, actions.copy()), "step"))
            check_batch(columns, env.num_envs, env.observation_space, "step")
        except EnvironmentError as error:
            place = 0 if error.place is None else error.place
            raise EnvironmentError(f"{error} {self._now(place)}", place) from error.__cause__
        return columns

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        running = [[] if over else own for over, own in zip(self.over, self.actions, strict=True)]
        return {
            "begun": self.begun,
            "steps": self.steps,
            "obs": None if self.obs is None else torch.from_numpy(self.obs.copy()),
            "numbers": self.numbers.tolist(),
            "returns": self.returns.tolist(),
            "lengths": self.lengths.tolist(),
            "over": self.over.tolist(),
            "actions": [torch.from_numpy(np.stack(own)) if own else None for own in running],
        }

    def load_state_dict(self, state: Mapping[str, Any], env: VectorEnv) -> list[int]:
        """Restore what `state_dict` returned, and replay the current episodes in `env`.

        Returns the numbers of the episodes whose replay led to another observation, because seed
        and actions do not determine the environment. They are replaced by new episodes.

        Raises:
            ValueError: the state is of another number of environments, of other spaces, or of other
                types; nothing is changed then.
        """
        self._check_state(state, env)
        self.begun, self.steps = state["begun"], state["steps"]
        self.numbers = np.array(state["numbers"], dtype=np.int64)
        self.lengths = np.array(state["lengths"], dtype=np.int64)
        self.returns, self.over = np.array(state["returns"], dtype=float), np.array(state["over"])
        stored = [() if a is None else a.cpu().numpy() for a in state["actions"]]
        self.actions = [[*own] for own in stored]
        self.obs = None if state["obs"] is None else state["obs"].cpu().numpy()
        if self.obs is None or self.over.all():
            return []
        replayed = self._replay(env)
        same = (replayed == self.obs).reshape(len(self.over), -1).all(1)
        lost = np.flatnonzero(~same & ~self.over)
        self.over[lost] = True
        return self.numbers[lost].tolist()

    def _check_state(self, state: Mapping[str, Any], env: VectorEnv) -> None:
        fresh = {"begun": 0, "steps": 0, "obs": None}
        columns = {"numbers": 0, "returns": 0.0, "lengths": 0, "over": False, "actions": None}
        check_state(state, fresh | {name: [] for name in columns}, "episodes")
        count = 0 if state["obs"] is None else env.num_envs
        if state["obs"] is not None and len(state["over"]) != count:
            raise ValueError(
                f"it was saved with {len(state['over'])} environments, here are {count}"
            )
        for name, value in columns.items():
            check_state(state[name], [value] * count, f"episodes/{name}")
            if len(state[name]) != count:
                raise ValueError(f"episodes/{name} must have {count} values")
        most = state["begun"], state["steps"]
        for i in range(count):
            over, actions = state["over"][i], state["actions"][i]
            length = 0 if over else state["lengths"][i]
            _check_column(actions, length, env.single_action_space, f"episodes/actions/{i}")
            inside = 0 <= state["numbers"][i] < most[0] and 0 <= state["lengths"][i] <= most[1]
            if not inside or not math.isfinite(state["returns"][i]):
                raise ValueError(f"episodes: the counts of environment {i} are out of range")
        if min(most) < 0 or max(most) >= 2**62:
            raise ValueError("episodes: begun or steps are out of range")
        if state["obs"] is not None:
            _check_column(state["obs"], count, env.single_observation_space, "episodes/obs")

    def _replay(self, env: VectorEnv) -> np.ndarray:
        """Repeat the actions of all current episodes; returns the observations (N, *O) after them.

        Shorter episodes are reset later, so that all end at the same step; before that their
        environments take a random action.
        """
        longest = int(self.lengths[~self.over].max())
        starts = np.where(self.over, 0, longest - self.lengths)
        filler = env.action_space.sample()
        ended = np.ones(len(starts), dtype=bool)  # every environment needs a first reset
        obs = None
        for t in range(longest + 1):
            begins = ended | (~self.over & (starts == t))
            if begins.any():
                obs = _reset(env, begins, self._seeds(), obs)
            if t == longest:
                break
            moves = filler.copy()
            for i in np.flatnonzero(~self.over & (starts <= t)):
                moves[i] = self.actions[i][t - starts[i]]
            obs, _, terminated, truncated, _ = called(partial(env.step, moves), "step")
            ended = terminated | truncated
        assert obs is not None
        return obs


def _columns(answer: Any) -> tuple[np.ndarray, ...]:
    """Copies of what the step of any vector returned, with the last observations of episodes."""
    if not isinstance(answer, tuple) or len(answer) != 5:
        raise EnvironmentError(f"the environment's step returned a {type(answer).__name__}")
    obs, rewards, terminated, truncated, info = answer
    obs, rewards = np.array(obs), np.array(rewards)
    terminated, truncated = np.asarray(terminated), np.asarray(truncated)
    if "final_obs" in info:  # obs then has the first observations of the next episodes
        for i in np.flatnonzero(terminated | truncated):
            obs[i] = info["final_obs"][i]
    return obs, rewards, terminated, truncated


def _check_column(column: Any, count: int, space: gymnasium.Space, place: str) -> None:
    """Check that a column has `count` values of a space; None if `count` is 0."""
    if column is None and count == 0:
        return
    if not isinstance(column, Tensor) or len(column.shape) == 0 or len(column) != count:
        raise ValueError(f"{place} must be a tensor of {count} rows")
    if space.shape is not None and column.shape[1:] != space.shape:
        raise ValueError(
            f"{place} must be rows of shape {space.shape}, got {tuple(column.shape[1:])}"
        )
    if not bool(column.isfinite().all()):
        raise ValueError(f"{place} holds a number that is not finite")


def _reset(
    env: VectorEnv, begins: np.ndarray, seeds: list[int], obs: np.ndarray | None
) -> np.ndarray:
    """Reset some environments, in any autoreset mode; returns the observations (N, *O) of all.

    Raises:
        EnvironmentError: a vector that ignores `options["reset_mask"]`; a reset that raised an
            exception or did not return observations.
    """
    own: Any = [*seeds]  # the base class's annotation lacks a list of seeds
    options = {} if begins.all() else {"options": {"reset_mask": begins.copy()}}
    answer = called(partial(env.reset, seed=own, **options), "reset")
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise EnvironmentError(f"the environment's reset returned a {type(answer).__name__}")
    fresh = np.array(answer[0])
    check_batch([fresh], env.num_envs, env.observation_space, "reset")
    if options and obs is not None and not np.array_equal(fresh[~begins], obs[~begins]):
        raise EnvironmentError(
            "the vector environment resets all its environments at once; it must heed "
            "options['reset_mask'], as gymnasium's SyncVectorEnv and AsyncVectorEnv do"
        )
    return fresh


def collect(
    actor: Actor,
    env: VectorEnv,
    episodes: Episodes,
    *,
    steps: int | None = None,
    explore: bool = True,
    begin: Callable[[np.ndarray], None] = lambda begins: None,
) -> Iterator[Transition]:
    """Let an actor act in N environments; yields N transitions after each step.

    This is the only place where an environment is stepped. An episode that ends is reset here, with
    its own seed, in any autoreset mode of the vector. So steps are the same in every mode, and
    `next_obs` is the last observation of the episode. The reset happens at the beginning of the
    next step, so that before it `episodes` still describes the episode that ended.

    Args:
        actor: chooses the actions.
        env: N environments.
        episodes: the current episodes, which are updated.
        steps: stop when `episodes.steps` has reached this; None does not stop.
        explore: passed to the actor.
        begin: called with a mask (N,) bool of the environments in which episodes begin, before the
            actor acts in them.

    Raises:
        EnvironmentError: an environment raised an exception, or returned a value that no agent can
            use, such as a reward that is not finite; the message has the step. A vector environment
            that cannot reset only some of its environments.
        ValueError: the actor did not return an array.
    """
    while steps is None or episodes.steps < steps:
        start = time.perf_counter()
        begins = episodes.begin(env)
        if np.count_nonzero(begins):
            begin(begins)
        obs = episodes.obs
        assert obs is not None
        middle = time.perf_counter()
        actions = actor.act(obs, explore=explore)
        if not isinstance(actions, np.ndarray):
            raise ValueError(
                f"the agent's act must return an array of actions (N, *A), got "
                f"a {type(actions).__name__}"
            )
        decided = time.perf_counter()
        next_obs, rewards, terminated, truncated = episodes.step(env, actions)
        episodes.seconds["act"] += decided - middle
        episodes.seconds["step"] += time.perf_counter() - decided
        episodes.seconds["reset"] += middle - start
        episodes.record(actions, next_obs, rewards, terminated | truncated)
        columns = (obs, actions, rewards, next_obs, terminated, truncated)
        yield Transition._make(map(_tensor, columns))


def _tensor(column: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(column))


def play(
    player: Player, env: VectorEnv, episodes: Episodes, *, steps: int | None = None
) -> Iterator[Transition]:
    """Steps of evaluation episodes, without exploration; see `collect`.

    Episodes of `steps` steps are cut off, which `truncated` and `episodes.over` say.
    """
    for step in collect(player, env, episodes, explore=False, begin=player.reset):
        if steps is not None and np.count_nonzero(episodes.lengths >= steps):
            episodes.over = episodes.over | (episodes.lengths >= steps)
            cut = torch.from_numpy(episodes.over) & ~step.terminated
            step = step._replace(truncated=cut)
        yield step


def most_steps(env: VectorEnv) -> int | None:
    """At most how many steps an evaluation episode gets: `LONGEST` without a time limit."""
    return LONGEST if spec_of(env).episode_steps is None else None


def evaluate(
    player: Player,
    env: gymnasium.Env | VectorEnv,
    *,
    episodes: int,
    seed: int,
    steps: int | None = None,
) -> list[float]:
    """Returns of `episodes` episodes; episode i is reset with `episode_seed(seed, i)`.

    An episode has at most `steps` steps; if None, `LONGEST` where there is no time limit.
    """
    running, returns = Episodes(seed), {}
    environments = vector(env)
    most = most_steps(environments) if steps is None else steps
    for _ in play(player, environments, running, steps=most):
        for i in np.flatnonzero(running.over):
            returns[int(running.numbers[i])] = float(running.returns[i])
        if all(number in returns for number in range(episodes)):
            break
    return [returns[number] for number in range(episodes)]
