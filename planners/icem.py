"""iCEM: the cross-entropy method with coloured noise, memory and a shrinking population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Generator, Tensor

from planners.checks import NonNegativeFloat, PositiveInt, Rounds, Share
from planners.noise import coloured_noise
from planners.search import Answer, EliteSearch


@dataclass(frozen=True, eq=False, kw_only=True)
class ICEM(EliteSearch):
    """Pinneri et al. 2020, "Sample-efficient cross-entropy method for real-time planning".

    Draws are clipped into the box, as in the paper. Iteration i draws max(N γ^-i, 2 M) candidates.
    In addition it scores a fraction of the elites of the previous iteration (in the first
    iteration, of the start), and the last iteration scores the mean.
    """

    population: PositiveInt = 100
    elites: PositiveInt = 10
    iterations: Rounds = 3
    beta: NonNegativeFloat = 2.0
    """Exponent of the noise's power law: 0 is white, larger is smoother."""
    decay: Annotated[float, Ge(1)] = 1.25
    """γ, the factor by which the number of candidates decreases per iteration; at least 1."""
    keep: Share = 0.3
    """Fraction of the elites scored again, in [0, 1]."""
    answer: Answer = "best"
    """What is returned: the `best` candidate seen, as in the paper, or the final `mean`,
    which is less affected by noise in the score."""

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
