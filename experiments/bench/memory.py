"""Resident memory of a replay buffer and of a plan."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from experiments.bench.measure import Bench, Result, seeded
from experiments.bench.parts import Planning, fallen, make_search, scorer, stay_upright
from mbrl.data import Replay
from mbrl.types import Transition


def memory(bench: Bench, *, rows: int = 1_000_000, iterations: int = 5) -> list[Result]:
    """Growth of resident memory to its peak in MB, each measured in a new process.

    A replay buffer against the bytes of its floats; a plan against one with a tenth of the
    iterations. Raises ValueError without /proc, which only Linux has.
    """
    floats = 4e-6 * rows * (17 + 6 + 1 + 17)
    grown = in_fresh_process(_replay_growth, bench.threads, rows)
    many = 10 * iterations
    turns = [
        [in_fresh_process(_plan_growth, bench.threads, n) for n in (iterations, many)]
        for _ in range(bench.repeats)
    ]
    short, long = zip(*turns, strict=True)
    return [
        Result(f"replay of {rows:,}", "MB", [grown], "its floats", [floats], "≤ 1.2", True),
        Result(f"plan, {many} iterations", "MB", long, f"{iterations}", short, "≈ 1", True),
    ]


def _replay_growth(rows: int) -> float:
    def fill() -> None:
        replay, draw = Replay(rows, 17, 6), seeded()
        for start in range(0, rows, 1000):
            block = torch.rand(min(1000, rows - start), 24, generator=draw)
            obs, action, reward = block[:, :17], block[:, 17:23], block[:, 23]
            replay.append(Transition(obs, action, reward, obs, reward > 1, reward > 1))

    return growth(fill)


def _plan_growth(iterations: int) -> float:
    score = scorer(4, 1, 15, stay_upright, fallen)
    return growth(Planning(make_search("cem", 1, 15, 100, iterations), score))


def growth(work: Callable[[], Any]) -> float:
    """Growth of this process's resident memory to its peak while it does the work, in MB."""

    # Not getrusage, because a process inherits its peak from the process that started it.
    def resident(line: str) -> float:
        return int(Path("/proc/self/status").read_text().split(f"{line}:")[1].split()[0])

    before = resident("VmRSS")
    work()
    return (resident("VmHWM") - before) * 1024 / 1e6


def in_fresh_process(work: Callable[[int], float], threads: int, size: int) -> float:
    """`work(size)` in a new process; ValueError without /proc, which only Linux has."""
    if not Path("/proc/self/status").exists():
        raise ValueError("the memory benchmark reads /proc, which only Linux has")
    with ProcessPoolExecutor(
        1, get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        return pool.submit(work, size).result()
