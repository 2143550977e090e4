"""The cross-entropy method, as in PETS."""

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

    The first mean is that of the start, whose elites are not used.
    """

    population: PositiveInt = 350
    elites: PositiveInt = 35
    iterations: Rounds = 5
    sampling: Literal["truncated", "clipped"] = "truncated"
    """How draws are kept inside the bounds. `truncated`, as in PETS: a normal truncated at two
    standard deviations, with the standard deviation at most half the distance from the mean to the
    nearer bound; it does not reach optima on a bound. `clipped`: a normal clipped to the bounds,
    which can find optima there."""
    answer: Answer = "mean"
    """What is returned: the final `mean`, as in PETS, or the `best` candidate found."""

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
