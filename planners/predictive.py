"""Predictive sampling: keep the best of a few plans drawn around the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from planners.checks import PositiveFloat, PositiveInt, Rounds
from planners.noise import coloured_noise
from planners.search import Search


@dataclass(frozen=True, eq=False, kw_only=True)
class PredictiveSampling(Search):
    """Howell et al. 2022, "Predictive Sampling: Real-time Behaviour Synthesis with MuJoCo".

    Draws are normal with constant std around the best plan so far, clipped into the box. That plan
    is scored again with them, and the best of all is kept. The first plan is the start's mean.
    """

    population: PositiveInt = 32
    iterations: Rounds = 1
    sigma: PositiveFloat = 0.1
    """Standard deviation of the draws as a fraction of the box's width."""

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        """Draws around the best plan, to be clipped."""
        noise = coloured_noise(mean, count, 0.0, generator=generator)
        return torch.addcmul(mean, noise, std)

    def again(self, iteration: int, mean: Tensor, elites: Tensor) -> Sequence[Tensor]:
        """The best plan itself."""
        return (mean[None],)
