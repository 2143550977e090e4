"""iCEM: the cross-entropy method with coloured noise, memory and a shrinking population."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from planners.noise import coloured_noise
from planners.search import EliteSearch, require


@dataclass(frozen=True, eq=False, kw_only=True)
class ICEM(EliteSearch):
    """Pinneri et al. 2020, "Sample-efficient cross-entropy method for real-time planning".

    Draws are clipped into the box, as in the paper. Iteration i draws
    max(N γ^-i, 2 M) candidates; a fraction of the elites of the iteration before (in the
    first iteration: of the start's) is scored again with them, and in the last iteration
    so is the mean. These are in addition to the drawn candidates.
    """

    population: int = 100
    elites: int = 10
    iterations: int = 3
    beta: float = 2.0
    """Exponent of the noise's power law: 0 is white, larger is smoother."""
    decay: float = 1.25
    """γ, the factor by which the number of candidates decreases per iteration; at least 1."""
    keep: float = 0.3
    """Fraction of the elites scored again, in [0, 1]."""
    answer: str = "best"
    """What is returned: the `best` candidate seen, as in the paper, or the final `mean`,
    which is less affected by noise in the score."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.beta < math.inf, f"beta must be finite and >= 0, got {self.beta!r}")
        require(1 <= self.decay < math.inf, f"decay must be finite and >= 1, got {self.decay!r}")
        require(0 <= self.keep <= 1, f"keep must lie in [0, 1], got {self.keep!r}")

    def sizes(self) -> Sequence[int]:
        """max(N γ^-i, 2 M) for each iteration i."""
        return [
            max(int(self.population * self.decay**-i), 2 * self.elites)
            for i in range(self.iterations)
        ]

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        """Coloured draws, to be clipped."""
        noise = coloured_noise(mean, count, self.beta, generator=generator)
        return torch.addcmul(mean, noise, std)

    def again(self, iteration: int, mean: Tensor, elites: Tensor) -> Sequence[Tensor]:
        """The kept elites, and the mean in the last iteration."""
        kept = elites[: round(self.keep * self.elites)]
        return (kept, mean[None]) if iteration == self.iterations - 1 else (kept,)
