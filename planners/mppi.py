"""Model predictive path integral control."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from planners.checks import NonNegativeFloat, PositiveFloat, PositiveInt, Rounds
from planners.noise import coloured_noise
from planners.search import Search


@dataclass(frozen=True, eq=False, kw_only=True)
class MPPI(Search):
    """The exponentially weighted mean of all candidates (Williams et al. 2017, "Information
    theoretic MPC for model-based reinforcement learning").

    Draws have a constant std, `sigma`, and are clipped into the box. The temperature is
    relative, see `exponential_weights`, so that scaling or shifting the score does not change the
    plan. The paper's control cost λ uᵀΣ⁻¹ε is not added; include it in the score if needed. The
    first mean is that of the start; plans have no elites. The mean is returned.
    """

    population: PositiveInt = 500
    iterations: Rounds = 3
    sigma: PositiveFloat = 0.25
    """Standard deviation of the draws as a fraction of the box's width."""
    temperature: PositiveFloat = 0.2
    """λ in units of the distance from the median score to the best: lower is greedier."""
    beta: NonNegativeFloat = 0.0
    """Exponent of the noise's power law: 0 is white, larger is smoother."""

    elites = 0
    answer = "mean"

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        """Draws around the mean, to be clipped."""
        noise = coloured_noise(mean, count, self.beta, generator=generator)
        return torch.addcmul(mean, noise, std)

    def refit(
        self, mean: Tensor, std: Tensor, knots: Tensor, scores: Tensor, elites: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The weighted mean; the std stays."""
        weights = exponential_weights(scores, self.temperature).to(knots.dtype)
        return (weights @ knots.flatten(1)).view_as(mean), std


def exponential_weights(scores: Tensor, temperature: float) -> Tensor:
    """Weights (N,) that sum to one, proportional to exp((score - best) / (λ · scale)).

    The scale is best minus median of the accepted scores: unlike the standard deviation it
    does not depend on how low the lowest scores are, so one very bad candidate does not flatten the
    weights. Scores of -inf get weight zero; if all are -inf, all weights are zero.
    """
    limits = torch.finfo(scores.dtype)
    best = scores.max()
    median = scores.nan_to_num(neginf=math.nan).nanmedian()
    scale = (best - median).mul_(temperature).clamp_(limits.tiny, limits.max)
    # If all are -inf, the differences are NaN, and become zeros.
    return (scores - best).div_(scale).softmax(0).nan_to_num_(0.0)
