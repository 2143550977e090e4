"""Speed and memory as ratios, each measured in one run against something that drifts alike.

Machines differ, and one machine differs from minute to minute, so no number here stands alone:
every repeat times the reference, ours and the peer in turn, and the ratio is the median over
repeats of ours / reference.
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
"""Does some work once and returns how much of it a second."""


def rate(count: float, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Sample:
    """Times `work(*args, **kwargs)`, which does `count` of something."""

    def sample() -> float:
        start = time.perf_counter()
        work(*args, **kwargs)
        return count / (time.perf_counter() - start)

    return sample


def median_rate(work: Callable[[], Any], calls: int = 20) -> Sample:
    """Times each of so many calls; the rate is one over the median."""

    def sample() -> float:
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return 1 / statistics.median(seconds)

    return sample


@dataclass(frozen=True)
class Result:
    """A work measured against a reference in the same unit, a pair of figures for each repeat."""

    work: str
    unit: str
    ours: Sequence[float]
    against: str
    reference: Sequence[float]
    wanted: str = ""
    """What the ratio ought to be."""
    lower: bool = False
    """Less is better."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values: medians, bests, the median of the paired ratios, the ratio of bests."""
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
    """How a benchmark measures."""

    repeats: int
    threads: int
    peer: MbrlLib | None = None
    matrix: int = 2048
    """Side of the reference matrix product."""

    def compare(
        self, work: str, unit: str, ours: Sample, others: Mapping[str, Sample | None], **wanted: str
    ) -> list[Result]:
        """Ours against each of the others, in turns after an untimed one.

        An other that is None is left out. `wanted` says by name, with _ for all that is no
        letter, what its ratio ought to be.
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
        """Works of `flops` operations a second at the rate of three float32 matrix products."""
        a, b = torch.randn(2, self.matrix, self.matrix, generator=seeded())
        return rate(3 * 2 * self.matrix**3 / flops, lambda: [a @ b for _ in range(3)])

    def ask(self, unit: str | None = None, **request: Any) -> Sample | None:
        """mbrl-lib's rate at a request, in what its reply counts as `unit`, or in requests.

        None where it is not installed.
        """
        peer = self.peer
        if peer is None:
            return None

        def sample() -> float:
            reply = peer.ask(**request, threads=self.threads)
            return (reply[unit] if unit else 1) / reply["seconds"][0]

        return sample


def seeded() -> torch.Generator:
    """A generator that draws the same in every benchmark."""
    return torch.Generator().manual_seed(0)
