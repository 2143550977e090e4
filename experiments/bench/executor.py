"""How well two workers share jobs of the same size, in processes and on Ray."""

from __future__ import annotations

import importlib.util
import logging
import os
import time

import torch

from experiments.bench.measure import Bench, Result, seeded
from mbrl.training.cluster import Ray
from mbrl.training.executor import Executor, Processes, Work

WORKERS = 2


def executor(bench: Bench, *, jobs: int = 8, seconds: float = 10.0) -> list[Result]:
    """Summed seconds of the jobs, over the seconds of both workers: twice the wall time.

    The wall time includes the start of the workers. Ray runs on this machine alone, with two CPUs;
    without the extra `cluster` its row is left out. Each is measured once, which takes about
    jobs x seconds / 2.
    """
    count = _products_in(seconds)
    results = [_measured("processes", Processes(), jobs, count)]
    if importlib.util.find_spec("ray") is not None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        ray.init(
            "local",  # not a cluster that this machine may belong to
            num_cpus=WORKERS,
            logging_level=logging.ERROR,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100_000_000,
        )
        try:
            results.append(_measured("ray", Ray(), jobs, count))
        finally:
            ray.shutdown()
    return results


def _measured(name: str, executor: Executor, jobs: int, count: int) -> Result:
    work = {n: Work(_multiply, (count,), str(n)) for n in range(jobs)}
    start = time.perf_counter()
    own = executor.compute(work, workers=WORKERS, say=lambda _: None)
    wall = time.perf_counter() - start
    label = f"{jobs} jobs, {name}"
    return Result(label, "s", [sum(own.values())], "2 x wall", [WORKERS * wall], "≥ 0.9")


def _products_in(seconds: float) -> int:
    """About how many matrix products of `_multiply` one worker computes in `seconds`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return max(1, int(seconds * 100 / _multiply(100)))
    finally:
        torch.set_num_threads(threads)


def _multiply(count: int) -> float:
    """Seconds that `count` matrix products take."""
    a, b = torch.randn(2, 256, 256, generator=seeded())
    start = time.perf_counter()
    for _ in range(count):
        torch.mm(a, b)
    return time.perf_counter() - start
