"""Ratios of speed or memory to a reference that is measured in the same run.

Machines differ in speed, and one machine changes from minute to minute, so absolute numbers say
little: every repeat times the references and ours in turn, and the ratio is the median over repeats
of ours / reference.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from experiments.peers import MbrlLib

Sample = Callable[[], float]
"""Does some work once and returns its amount per second."""

Ask = Callable[..., dict[str, Any]]
"""Asks a peer for work; see `experiments.peers.Peer.ask`."""


def rate(count: float, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Sample:
    """A sample that times `work(*args, **kwargs)`, which does `count` units of work."""

    def sample() -> float:
        start = time.perf_counter()
        work(*args, **kwargs)
        return count / (time.perf_counter() - start)

    return sample


def median_rate(work: Callable[[], Any], calls: int = 20) -> Sample:
    """A sample that times each of `calls` calls; the rate is one over the median time."""

    def sample() -> float:
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return 1 / statistics.median(seconds)

    return sample


def cores(work: Callable[[], Any]) -> Sample:
    """A sample of the number of cores in use: processor seconds per second of the work."""

    def sample() -> float:
        wall, processor = time.perf_counter(), time.process_time()
        work()
        return (time.process_time() - processor) / (time.perf_counter() - wall)

    return sample


@dataclass(frozen=True)
class Result:
    """A work measured against a reference in the same unit, with a pair of numbers per repeat."""

    work: str
    unit: str
    ours: Sequence[float]
    against: str
    reference: Sequence[float]
    wanted: str = ""
    """The ratio to reach, such as "≥ 0.5"."""
    lower: bool = False
    """Whether less is better."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values: medians, best values, the median of the ratios, the ratio of the best."""
        best, middle = min if self.lower else max, statistics.median
        ours, reference = self.ours, self.reference
        named = {"work": self.work, "unit": self.unit, "against": self.against}
        return named | {
            "ours": middle(ours),
            "ours_best": best(ours),
            "reference": middle(reference),
            "reference_best": best(reference),
            "ratio": middle(a / b for a, b in zip(ours, reference, strict=True)),
            "ratio_best": best(ours) / best(reference),
            "wanted": self.wanted,
            "repeats": len(ours),
        }


@dataclass(frozen=True)
class Bench:
    """Settings of a measurement, and its ways to measure."""

    repeats: int
    threads: int
    peer: MbrlLib | None = None
    matrix: int = 2048
    """Side of the reference matrix product."""

    def compare(
        self, work: str, unit: str, ours: Sample, others: Mapping[str, Sample | None], **wanted: str
    ) -> list[Result]:
        """Measure ours and each of the others in turns, after an untimed turn.

        Others that are None are left out. `wanted` has the ratio to reach by the other's name, with
        _ for each character that is not a letter or digit.
        """
        samples = {name: sample for name, sample in others.items() if sample} | {"ours": ours}
        for sample in samples.values():
            sample()
        turns = [[sample() for sample in samples.values()] for _ in range(self.repeats)]
        found = dict(zip(samples, zip(*turns, strict=True), strict=True))
        mine = found.pop("ours")
        return [
            Result(work, unit, mine, name, figures, wanted.get(re.sub(r"\W", "_", name), ""))
            for name, figures in found.items()
        ]

    def matmul(self, flops: float) -> Sample:
        """The rate at which float32 matrix products do a work of `flops` operations."""
        a, b = torch.randn(2, self.matrix, self.matrix, generator=seeded())
        return rate(3 * 2 * self.matrix**3 / flops, lambda: [a @ b for _ in range(3)])

    def ask(self, unit: str | None = None, **request: Any) -> Sample | None:
        """mbrl-lib's rate at a request, in the reply's `unit` per second, or requests per second.

        None if it is not installed.
        """
        peer = self.peer
        if peer is None:
            return None

        def sample() -> float:
            reply = peer.ask(**request, threads=self.threads)
            return (reply[unit] if unit else 1) / reply["seconds"][0]

        return sample


def answer(ask: Ask | None, key: str, count: float = 1, **request: Any) -> Sample | None:
    """A sample of a peer's answer: its `cores`, or `count` per second; None without a peer."""
    if ask is None:
        return None

    def sample() -> float:
        reply = ask(**request)
        return reply["cores"] if key == "cores" else count / reply["seconds"][0]

    return sample


def seeded() -> torch.Generator:
    """A generator with the same seed for every benchmark."""
    return torch.Generator().manual_seed(0)
