"""The cross-entropy method as PETS uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from planners.checks import PositiveInt, Rounds
from planners.noise import truncated_normal
from planners.search import Answer, EliteSearch


@dataclass(frozen=True, eq=False, kw_only=True)
class CEM(EliteSearch):
    """Refit a Gaussian to the elites in each iteration (Rubinstein 1999; PETS, Chua et al. 2018).

    A start gives the first mean; its elites are not used.
    """

    population: PositiveInt = 350
    elites: PositiveInt = 35
    iterations: Rounds = 5
    sampling: Literal["truncated", "clipped"] = "truncated"
    """How draws stay in the box. `truncated`, as PETS: the normal cut at two standard
    deviations, which shrink to half the distance from the mean to the nearer bound; it
    stops short of optima on a bound. `clipped`: the plain normal, clipped, which puts mass on
    the bounds and so finds optima there."""
    answer: Answer = "mean"
    """What is returned: the final `mean`, as PETS, or the `best` candidate seen."""

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        """Normal draws, truncated or to be clipped."""
        if self.sampling == "truncated":
            std = torch.minimum(std, torch.minimum(mean - self.low, self.high - mean) / 2)
            noise = truncated_normal(mean, count, generator=generator)
        else:
            noise = torch.randn(
                count, *mean.shape, generator=generator, device=mean.device, dtype=mean.dtype
            )
        return torch.addcmul(mean, noise, std)
