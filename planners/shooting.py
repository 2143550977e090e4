"""Random shooting: the best of N uniform draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from planners.search import Search


@dataclass(frozen=True, eq=False)
class RandomShooting(Search):
    """The best of N candidates drawn uniformly in the box (Rao, "A survey of numerical methods
    for optimal control", 2009; Nagabandi et al. 2018 for model-based RL).

    The best sequence of the start is one more candidate. The plan's mean is the best knots
    found, its std that of the uniform distribution.
    """

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        """Uniform draws in the box; mean and std are not used."""
        draws = torch.rand(
            count, *mean.shape, generator=generator, device=mean.device, dtype=mean.dtype
        )
        return torch.lerp(self.low, self.high, draws)

    def again(self, iteration: int, mean: Tensor, elites: Tensor) -> list[Tensor]:
        """The start's best candidate."""
        return [elites[:1]]
