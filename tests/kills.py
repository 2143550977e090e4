"""Kills a training run at random moments, resumes it, and compares its files.

    python -m tests.kills --kills 100

After each SIGKILL a new process continues the run. When the run is finished, its metrics and its
checkpoint are compared byte for byte with those of an undisturbed run. Then another run of the same
seed begins, until the requested number of kills is reached.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import gymnasium
import numpy as np
import torch

from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.agents.pets import Config
from mbrl.dynamics import EnsembleConfig
from mbrl.training import RunConfig
from mbrl.training.runs import train_run

TINY = Config(
    mpc=MPCConfig(PlannerConfig(horizon=3, population=6, iterations=1, elites=2), particles=2),
    model=EnsembleConfig(members=2, hidden=(4,), epochs=1, batch=16, learn_reward=True),
    random_steps=20,
    fit_every=30,
)
STEPS = 200


class Walk(gymnasium.Env):
    """A noisy walk in episodes of ten steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.standard_normal(2), 0
        return self.at.copy(), {}

    def step(self, action):
        self.at = self.at + action[0] + 0.1 * self.np_random.standard_normal(2)
        self.steps += 1
        return self.at.copy(), -float(np.square(self.at).sum()), False, self.steps >= 10, {}


def train(path: Path) -> None:
    """Train in a folder, from its newest checkpoint if there is one."""
    config = RunConfig("pets", "Walk", 0, STEPS, "cpu", TINY)
    train_run(
        config, path, make_env=lambda _: Walk(), resume=path.exists(), checkpoint_every=3
    )  # fmt: skip


def left(path: Path) -> dict[str, bytes]:
    """All files that must be the same: all but the durations and the lock."""
    files = [path / "config.json", path / "metrics.jsonl", *(path / "checkpoints").rglob("*")]
    return {str(f.relative_to(path)): f.read_bytes() for f in files if f.is_file()}


def killed(path: Path, after: float) -> bool:
    """Train in another process and kill it after so many seconds; False if it ended before.

    Raises:
        RuntimeError: it failed.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train(path)
            status = 0
        finally:
            os._exit(status)
    end = time.perf_counter() + after
    while time.perf_counter() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise RuntimeError(f"training in {path} failed with status {status}")
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def check(folder: Path, kills: int, seed: int = 0) -> list[int]:
    """Kill runs `kills` times in all; returns the number of kills of each finished run.

    Raises:
        AssertionError: the files of a run differ from those of an undisturbed one.
    """
    torch.set_num_threads(1)
    draw, path, finished, count = random.Random(seed), folder / "killed", [], 0
    train(folder / "warm")  # compiles, so that the next run's time has no compilation in it
    began = time.perf_counter()
    train(folder / "whole")
    whole, seconds = left(folder / "whole"), time.perf_counter() - began
    while sum(finished) + count < kills:
        # short enough for several kills of a run, long enough for progress in between
        if killed(path, draw.uniform(0, seconds / 4)):
            count += 1
            continue
        _compare(left(path), whole)
        finished.append(count)
        count = 0
        shutil.rmtree(path)
    train(path)
    _compare(left(path), whole)
    return [*finished, count]


def _compare(found: dict[str, bytes], whole: dict[str, bytes]) -> None:
    differing = [name for name in found.keys() | whole if found.get(name) != whole.get(name)]
    assert not differing, f"a killed run left other bytes in {', '.join(sorted(differing))}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill a training run at random and resume it.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = check(Path(place), given.kills, given.seed)
    print(f"{sum(found)} kills over {len(found)} runs ({found}): all bytes as undisturbed")
