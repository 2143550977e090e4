"""Many runs in parallel worker processes, each continued from its last checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mbrl.training import executor as jobs
from mbrl.training.checkpoint import Run, RunError
from mbrl.training.executor import Executor, Processes, Work, stop_if_asked
from mbrl.training.online import Progress, returns_of
from mbrl.training.run_config import MakeEnv, RunConfig
from mbrl.training.runs import train_run
from mbrl.types import Player

LINES = 200
"""Most lines of progress of a run."""


def train_all(
    runs: Mapping[Path, tuple[str, RunConfig]],
    *,
    make_env: MakeEnv,
    workers: int | None = None,
    say: Callable[[str], None],
    executor: Executor | None = None,
) -> None:
    """Train each config in its folder; a finished run is not changed.

    Args:
        runs: folder -> name of the run in messages, and its config.
        make_env: makes the environments; importable by name, such as `envs.make`.
        workers: number of workers; as many as the executor has if None.
        say: called with each line of progress.
        executor: runs the training; `Processes()`, on this machine, if None.

    Raises:
        RunError: a folder with a run of another config.
        ExecutorError: see `Executor.compute`.
        KeyboardInterrupt: after the current runs have been saved.
    """
    work = {
        path: Work(train_to_end, (config, path, name, make_env), name, path)
        for path, (name, config) in runs.items()
        if not _finished(config, path)
    }
    (executor or Processes()).compute(work, workers=workers, say=say)


def train_to_end(config: RunConfig, path: Path, name: str, make_env: MakeEnv) -> None:
    """Train a run in a worker, from its last checkpoint if it has one.

    A line of progress is sent after an episode, but at most `LINES` in all.

    Raises:
        Stopped: the worker was asked to stop; the run is saved.
    """
    seen = sent = told = 0

    def callback(progress: Progress) -> None:
        nonlocal seen, sent, told
        if progress.saved > sent:
            sent = progress.saved
            jobs.saved()
        if len(progress.returns) > seen and progress.env_steps >= told + config.steps / LINES:
            seen, told = len(progress.returns), progress.env_steps
            at = f"{progress.env_steps} of {config.steps}"
            jobs.tell(f"{name}: step {at}, return {progress.returns[-1]:.1f}")

    train_run(
        config,
        path,
        make_env=make_env,
        resume=path.exists(),
        stop=jobs.stopping,
        callback=callback,
    )
    stop_if_asked()


def _finished(config: RunConfig, path: Path) -> bool:
    """Whether the run in a folder is at its end, by its newest checkpoint."""
    if not path.exists():
        return False
    run = Run.open(path)
    if RunConfig.of(run) != config:
        raise RunError(f"{path} was begun with another config; remove it or name another --root")
    latest = run.latest()
    if latest is None:
        return False
    target = config.target
    reached = target is not None and target.reached(returns_of(path, until=latest))
    return reached or latest >= config.steps


class Interruptible:
    """A player whose `act` raises `Stopped` when this worker is asked to stop."""

    def __init__(self, player: Player) -> None:
        self.player = player

    @property
    def each(self) -> Any:
        """The controllers of a player that plans; [] for other players."""
        return getattr(self.player, "each", [])

    def reset(self, begins: np.ndarray) -> None:
        """Called when episodes begin; see `Player`."""
        self.player.reset(begins)

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """The player's actions (N, *A)."""
        stop_if_asked()
        return self.player.act(obs, explore=explore)
