"""An evolution strategy that finds its own scale: far on the way, still at rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Generator, Tensor

from planners.base import Plan
from planners.interpolation import interpolation_matrix
from planners.search import Search, require


@dataclass(frozen=True, eq=False, kw_only=True)
class Evolution(Search):
    """A (μ/μ_w, λ) strategy with self-adapting steps (Beyer and Schwefel 2002, "Evolution
    strategies: a comprehensive introduction").

    Each candidate is the mean plus noise at a step of its own: the steps are a geometric ladder
    about the std, from `spread` times it down to a `spread`-th. Elites are recombined with the
    weights log(M + ½) - log i of CMA-ES, their steps geometrically and likewise. So the std goes
    where it helps and, unlike that of a cross-entropy method, also grows; a start passes it on.
    The mean is scored with the candidates, so a warm start loses nothing.

    Noise is linear between a few random knots, while the plan has every action unless `knots`
    says otherwise: it is as smooth, and shifts in time without the loss of refitting knots.
    """

    population: int = 32
    iterations: int = 1
    elites: int = 4
    """Candidates M that make the next mean and std."""
    sigma: float = 0.15
    """First and largest std as a fraction of the box's width."""
    floor: float = 5e-4
    """Smallest std, likewise."""
    spread: float = 4.0
    """Ratio of the largest step to the std, and of the std to the smallest; at least 1."""
    widen: float = 2.0
    """Factor on the std of a start, as the world has moved on since; at least 1."""
    noise_knots: int = 4
    """Knots of the noise, at most as many as the plan's; at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.elites >= 1, f"elites must be at least 1, got {self.elites!r}")
        require(
            0 < self.floor <= self.sigma,
            f"floor must lie in (0, sigma = {self.sigma}], got {self.floor!r}",
        )
        for name in ("spread", "widen"):
            value = getattr(self, name)
            require(1 <= value < math.inf, f"{name} must be finite and >= 1, got {value!r}")
        require(
            isinstance(self.noise_knots, int) and self.noise_knots >= 1,
            f"noise_knots must be an integer of at least 1, got {self.noise_knots!r}",
        )

    def begin(self, start: Plan | None) -> tuple[Tensor, Tensor, Tensor]:
        """As for every search, but a start gives the std too."""
        mean, std, elites = super().begin(start)
        if start is not None:
            std = (self.widen * start.std).clamp(self._finest, std)
        return mean, std, elites

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        """Draws around the mean, the widest first, to be clipped."""
        options = {"generator": generator, "device": mean.device, "dtype": mean.dtype}
        draws = torch.randn(count, mean.shape[1], len(self._smooth), **options)
        draws.mul_(_ladder(count, self.spread, mean.dtype, mean.device)[:count, None, None])
        return torch.addcmul(mean, (draws @ self._smooth).transpose(1, 2), std)

    def again(self, iteration: int, mean: Tensor, elites: Tensor) -> Sequence[Tensor]:
        """The mean itself."""
        return (mean[None],)

    def refit(
        self, mean: Tensor, std: Tensor, knots: Tensor, scores: Tensor, elites: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The weighted elites and their steps."""
        best = scores.topk(len(elites)).indices
        weights = _weights(len(elites), mean.dtype, mean.device)
        steps = _ladder(len(knots) - 1, self.spread, mean.dtype, mean.device)
        factor = (weights @ steps.index_select(0, best).log_()).exp_()
        return (weights @ elites.flatten(1)).view_as(mean), std * factor

    @cached_property
    def _finest(self) -> Tensor:
        return self.floor * (self.high - self.low)

    @cached_property
    def _smooth(self) -> Tensor:
        """What turns the noise's knots into the plan's, (noise knots, K)."""
        knots = self.matrix.shape[1]
        matrix = interpolation_matrix(knots, min(self.noise_knots, knots), "linear")
        return torch.as_tensor(matrix.T, dtype=self.low.dtype, device=self.low.device).contiguous()


@lru_cache(maxsize=64)
def _ladder(count: int, spread: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Steps of `count` draws, and of the mean, which counts as the smallest; (count + 1,)."""
    steps = torch.logspace(1, -1, count, spread, dtype=torch.float64)
    return torch.cat((steps, steps.new_tensor([1 / spread]))).to(device, dtype)


@lru_cache(maxsize=64)
def _weights(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """log(M + ½) - log i for i = 1..M, normalised; (M,). Hansen 2016, "The CMA evolution
    strategy: a tutorial"."""
    rank = torch.arange(1, count + 1, dtype=torch.float64)
    weights = math.log(count + 0.5) - rank.log()
    return (weights / weights.sum()).to(device, dtype)
