"""The online loop and evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from mbrl.checkpoint import Run, RunError
from mbrl.metrics import MetricsLog
from mbrl.types import Metrics, Transition


class EnvironmentError(Exception):
    """The environment returned something that no agent can use; one line says what and when."""


class Environment(Protocol):
    """What the loop needs of a gymnasium.Env."""

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """First observation (O,) and info."""
        ...

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Next observation (O,), reward, terminated, truncated, info."""
        ...


class Resumable(Protocol):
    """An agent whose whole state goes into a checkpoint."""

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """One action (A,) for one observation (O,)."""
        ...

    def observe(self, step: Transition) -> None:
        """One real transition, without leading dimensions."""
        ...

    def update(self) -> Metrics:
        """Learn if something is due; {} when nothing is."""
        ...

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights, and all the rest as tensors and plain values."""
        ...

    def load_state_dict(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        ...


class Player(Protocol):
    """What plays evaluation episodes."""

    def reset(self) -> None:
        """An episode begins."""
        ...

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """The action (A,) for an observation (O,)."""
        ...


@dataclass(frozen=True)
class Snapshots:
    """How to freeze an environment within an episode; snapshots are plain values."""

    take: Callable[[Any], Any]
    restore: Callable[[Any, Any], None]


@dataclass
class Progress:
    """Where a run stands; `returns` holds the episodes that this process has seen end."""

    env_steps: int = 0
    episode: int = 0
    episode_return: float = 0.0
    episode_length: int = 0
    returns: list[float] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


PHASES = ("act", "step", "update", "save")


def episode_seed(seed: int, episode: int) -> int:
    """The seed that the environment is reset with, from the run's seed and the episode's number.

    Every episode then starts from a stream of its own, whatever happened before it.
    """
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0])


def train(
    agent: Resumable,
    env: Environment,
    run: Run | None = None,
    *,
    seed: int,
    steps: int,
    log: MetricsLog | None = None,
    snapshots: Snapshots | None = None,
    checkpoint_every: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Run an agent for `steps` environment steps in all, going on from the newest checkpoint.

    A checkpoint is saved at the end of each episode, and where `snapshots` can freeze the
    environment also every `checkpoint_every` steps and when asked to stop. Whatever the moment
    a process dies at, the next one goes on from the last checkpoint and logs the same numbers.

    Args:
        agent: fresh; its state is loaded if there is a checkpoint.
        env: reset with `episode_seed` before every episode.
        run: held for writing, with its `log`; without them nothing is saved or logged.
        seed: the run's.
        steps: environment steps, those before a resume included.
        log: lines "episode" (return, length, terminated, what the agent says) at episode ends.
        snapshots: freezes and restores `env`; None where it cannot be done.
        checkpoint_every: environment steps between checkpoints within episodes.
        stop: asked after each step; True saves and returns early.
        watch: called after each step.

    Raises:
        EnvironmentError: an observation or a reward that is not finite, with its step. The run
            stays resumable from its last checkpoint.
        RunError: a checkpoint that does not fit this agent, or cannot be saved.
        ValueError: a run without a log, or a log without a run; checkpoints every 0 steps.
    """
    if checkpoint_every is not None and checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be >= 1, got {checkpoint_every}")
    if (run is None) != (log is None):
        raise ValueError("run and log go together: give both or neither")
    progress, obs = Progress(), None
    if run is not None and log is not None:
        if run.latest() is not None:
            obs = _resume(agent, env, run, log, snapshots, progress)
        else:
            log.rewind(0)

    def write(kind: str, values: Metrics) -> None:
        if log is not None:
            log.write(kind, progress.env_steps, values)

    def save() -> None:
        if run is None or log is None:
            return
        weights, state = agent.state_dict()
        frozen = None if obs is None or snapshots is None else snapshots.take(env)
        place = {name: getattr(progress, name) for name in _PLACE}
        with _timed(progress, "save"):
            state = {"agent": state, "loop": place, "log_bytes": log.sync()}
            state["env"] = None if obs is None else _frozen(frozen, obs)
            run.save(progress.env_steps, weights, state)

    while progress.env_steps < steps:
        if obs is None:
            obs, _ = env.reset(seed=episode_seed(seed, progress.episode))
            _check(obs, 0.0, progress)
        with _timed(progress, "act"):
            action = agent.act(obs, explore=True)
        with _timed(progress, "step"):
            next_obs, reward, terminated, truncated, _ = env.step(action)
        _check(next_obs, reward, progress)
        progress.env_steps += 1
        progress.episode_length += 1
        progress.episode_return += float(reward)
        with _timed(progress, "update"):
            agent.observe(_transition(obs, action, reward, next_obs, terminated, truncated))
            metrics = agent.update()
        obs = next_obs
        ended = terminated or truncated
        if ended:
            line = {
                "episode": progress.episode,
                "return": progress.episode_return,
                "length": progress.episode_length,
                "terminated": bool(terminated),
            } | dict(metrics)
            write("episode", line)
            progress.returns.append(progress.episode_return)
            progress.last = line
            progress.episode += 1
            progress.episode_return, progress.episode_length, obs = 0.0, 0, None
        elif metrics:
            write("update", metrics)
        watch(progress)
        stopping = stop()
        regular = checkpoint_every is not None and progress.env_steps % checkpoint_every == 0
        if ended or (snapshots is not None and (stopping or regular)):
            save()
        if stopping:
            return progress
    if obs is not None and snapshots is not None:
        save()
    return progress


_PLACE = ("env_steps", "episode", "episode_return", "episode_length")


def _resume(
    agent: Resumable,
    env: Environment,
    run: Run,
    log: MetricsLog,
    snapshots: Snapshots | None,
    progress: Progress,
) -> np.ndarray | None:
    weights, state = run.load()
    try:
        agent.load_state_dict(weights, state["agent"])
        for name in _PLACE:
            setattr(progress, name, state["loop"][name])
        log.rewind(state["log_bytes"])
        if state["env"] is None:
            return None
        if snapshots is None:
            raise ValueError("it was saved within an episode, and this environment cannot resume")
        env.reset(seed=0)
        snapshots.restore(env, _arrays(state["env"]["snapshot"]))
        return state["env"]["obs"].cpu().numpy()
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RunError(f"the checkpoint of {run.path} does not fit this run: {reason}") from error


def _frozen(snapshot: Any, obs: np.ndarray) -> dict[str, Any]:
    return {"snapshot": _tensors(snapshot), "obs": torch.as_tensor(np.array(obs))}


def _tensors(value: Any) -> Any:
    """Arrays as tensors, which a checkpoint may hold."""
    if isinstance(value, dict):
        return {key: _tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tensors(item) for item in value]
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


def _arrays(value: Any) -> Any:
    """What `_tensors` was given."""
    if isinstance(value, dict):
        return {key: _arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_arrays(item) for item in value]
    return value.cpu().numpy() if isinstance(value, Tensor) else value


def _transition(
    obs: Any, action: Any, reward: Any, next_obs: Any, terminated: Any, truncated: Any
) -> Transition:
    columns = [torch.as_tensor(np.asarray(value)) for value in (obs, action, reward, next_obs)]
    ends = [torch.as_tensor(bool(value)) for value in (terminated, truncated)]
    return Transition(*columns, *ends)


def _check(obs: Any, reward: Any, progress: Progress) -> None:
    for name, value in (("observation", obs), ("reward", reward)):
        if not np.isfinite(value).all():
            raise EnvironmentError(
                f"the environment returned a {name} that is not finite at step "
                f"{progress.episode_length + 1} of episode {progress.episode} "
                f"(environment step {progress.env_steps + 1})"
            )


class _timed:
    """Adds the seconds spent inside to one phase of a Progress."""

    def __init__(self, progress: Progress, phase: str) -> None:
        self.seconds, self.phase = progress.seconds, phase

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.phase] += time.perf_counter() - self.began


class Played(NamedTuple):
    """One step of an evaluation episode."""

    obs: np.ndarray  # (O,)
    action: np.ndarray  # (A,)
    reward: float
    next_obs: np.ndarray  # (O,)
    terminated: bool
    truncated: bool


def play(player: Player, env: Environment, *, seed: int) -> Iterator[Played]:
    """One episode without exploration, a step at a time.

    Raises:
        EnvironmentError: an observation or a reward that is not finite, with its step.
    """
    progress = Progress()
    obs, _ = env.reset(seed=seed)
    player.reset()
    over = False
    while not over:
        action = player.act(obs, explore=False)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        _check(next_obs, reward, progress)
        progress.env_steps += 1
        progress.episode_length += 1
        yield Played(obs, action, float(reward), next_obs, bool(terminated), bool(truncated))
        obs, over = next_obs, terminated or truncated


def evaluate(player: Player, env: Environment, *, episodes: int, seed: int) -> list[float]:
    """Returns of `episodes` episodes, reset with `episode_seed(seed, 0..)`."""
    return [
        sum(step.reward for step in play(player, env, seed=episode_seed(seed, episode)))
        for episode in range(episodes)
    ]


def generator(seed: int, *names: int) -> Generator:
    """A CPU generator for a stream named by integers, a seed and what it is for."""
    # as a spawn key: plain seeds (1,) and (1, 0) would be the same
    sequence = np.random.SeedSequence(seed, spawn_key=names)
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
