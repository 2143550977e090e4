"""The offline loop: train a learner from stored data."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator

from mbrl.data import Replay
from mbrl.types import Learner, Metrics


def fit_offline(
    learner: Learner,
    data: Replay,
    *,
    updates: int,
    batch: int = 256,
    generator: Generator,
    callback: Callable[[int, Metrics], None] = lambda update, metrics: None,
) -> dict[str, float]:
    """Update a learner `updates` times, each time from `batch` transitions drawn uniformly.

    `callback` is called with the number of each update, from 1, and its metrics. Returns the means
    of the metrics over all updates.

    Raises:
        ValueError: no transitions; `updates` or `batch` below one.
    """
    if min(updates, batch) < 1:
        raise ValueError(f"updates and batch must be >= 1, got {updates} and {batch}")
    totals: dict[str, float] = {}
    for update in range(1, updates + 1):
        metrics = learner.update(data.sample(batch, generator=generator), generator=generator)
        for name, value in metrics.items():
            totals[name] = totals.get(name, 0.0) + float(value)
        callback(update, metrics)
    return {name: total / updates for name, total in totals.items()}
