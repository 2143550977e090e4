"""Jobs for workers, and a small run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

import envs
from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.agents.pets import Config
from mbrl.dynamics import EnsembleConfig
from mbrl.training import executor
from mbrl.training.checkpoint import Run
from mbrl.training.run_config import RunConfig
from mbrl.training.seeds import train_to_end

AGENT = Config(
    mpc=MPCConfig(PlannerConfig(horizon=3, population=8, iterations=1, elites=3), particles=2),
    model=EnsembleConfig(members=2, hidden=(16,), epochs=3, batch=64),
    random_steps=140,
    fit_every=50,
)
TINY = RunConfig("pets", "cartpole-swingup", 0, 330, "cpu", AGENT)


def who() -> tuple[int, int]:
    executor.tell("hello")
    return os.getpid(), torch.get_num_threads()


def double(number: int) -> int:
    return 2 * number


def wait_for_stop() -> None:
    executor.tell("waiting")
    while not executor.stopping():
        time.sleep(0.01)


class Odd(Exception):
    """An exception that cannot be unpickled, because its constructor takes more than a message."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def fail(kind: str, path: Path | None = None) -> None:
    if kind == "odd":
        raise Odd("cannot", "unpickle")
    if kind == "exit":
        raise SystemExit("enough")
    raise OSError(f"no such thing: {path}")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_until(path: Path, times: int) -> int:
    """Kill this process the first so many times, counted in a file."""
    count = len(path.read_text()) if path.exists() else 0
    if count < times:
        path.write_text("x" * (count + 1))
        die()
    return count


def train_and_tell(config: RunConfig, path: Path) -> None:
    """Train a run until it is asked to stop, and report where it was saved."""
    try:
        train_to_end(config, path, path.name, envs.make)
    except executor.Stopped:
        executor.tell(f"{path.name} stopped at {Run.open(path).latest()}")
        raise


def train_and_die(config: RunConfig, path: Path, name: str, marks: Path, at: int) -> None:
    """Train a run, the first attempt being killed some steps after a checkpoint.

    Writes into `marks` where each attempt began.
    """
    began = (Run.open(path).latest() or 0) if path.exists() else 0
    first = not marks.exists()
    with marks.open("a") as file:
        file.write(f"{began}\n")
    if first:
        tell = executor.tell

        def die_soon(line: str) -> None:
            tell(line)
            if f"step {at} " in line:
                time.sleep(1)  # so that the reported lines have arrived
                die()

        executor.tell = die_soon
    train_to_end(config, path, name, envs.make)
