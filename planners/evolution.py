"""An evolution strategy that adapts the standard deviation of its draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Generator, Tensor

from planners.base import Plan
from planners.checks import PositiveFloat, PositiveInt, Rounds, require
from planners.interpolation import interpolation_matrix
from planners.search import Search


@dataclass(frozen=True, eq=False, kw_only=True)
class Evolution(Search):
    """A (μ/μ_w, λ) strategy with self-adapting steps (Beyer and Schwefel 2002, "Evolution
    strategies: a comprehensive introduction").

    Each candidate is the mean plus noise with a step size of its own: the step sizes form a
    geometric sequence from `spread` times the std down to the std divided by `spread`. The next
    mean is the average of the elites with the weights log(M + ½) - log i of CMA-ES; the next std is
    the old one times the geometric average of the elites' step sizes with the same weights. Unlike
    in a cross-entropy method the std can grow. A search from a start begins with the start's std.
    The mean is scored with the candidates, and in the first iteration the start's best candidate
    too, so with an unchanged score the new plan is not worse than the start.

    Noise is interpolated linearly between a few random knots, while the plan has a knot for every
    action unless `knots` is set. So plans are as smooth as with few knots, but can be shifted in
    time exactly.
    """

    population: PositiveInt = 32
    iterations: Rounds = 1
    elites: PositiveInt = 4
    """M, the number of best candidates that determine the next mean and std."""
    sigma: PositiveFloat = 0.15
    """First and largest std as a fraction of the box's width."""
    floor: PositiveFloat = 5e-4
    """Smallest std as a fraction of the box's width."""
    spread: Annotated[float, Ge(1)] = 4.0
    """Ratio of the largest step to the std, and of the std to the smallest; at least 1."""
    widen: Annotated[float, Ge(1)] = 2.0
    """Factor on the std of a start, because the state has changed since; at least 1."""
    noise_knots: PositiveInt = 4
    """Knots of the noise, at most as many as the plan's; at least 1."""

    carries_best = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.floor <= self.sigma,
            f"floor must lie in (0, sigma = {self.sigma}], got {self.floor!r}",
        )

    def begin(self, start: Plan | None) -> tuple[Tensor, Tensor, Tensor]:
        """As in `Search`, but the std is also that of the start."""
        mean, std, elites = super().begin(start)
        if start is not None:
            std = torch.minimum(torch.maximum(start.std * self.widen, self._least_std), std)
        return mean, std, elites

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        """Draws around the mean, the widest first, to be clipped."""
        options = {"generator": generator, "device": mean.device, "dtype": mean.dtype}
        smooth, size = self._smooth, mean.shape[1]
        steps, _ = _step_sizes(count, self.spread, mean.dtype, mean.device)
        draws = torch.randn(count, size * len(smooth), **options).mul_(steps)
        noise = torch.mm(draws.view(-1, len(smooth)), smooth).view(count, size, -1)
        return torch.addcmul(mean, noise.transpose(1, 2), std)

    def again(self, iteration: int, mean: Tensor, elites: Tensor) -> Sequence[Tensor]:
        """The mean itself, and at first the start's best candidate."""
        return (mean[None], elites[:1]) if iteration == 0 else (mean[None],)

    def refit(
        self, mean: Tensor, std: Tensor, knots: Tensor, scores: Tensor, elites: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The weighted elites and their steps."""
        best = scores.topk(len(elites)).indices
        weights = _weights(len(elites), mean.dtype, mean.device)
        _, logs = _step_sizes(self.population, self.spread, mean.dtype, mean.device)
        # Candidates after the first `count` were not drawn; they use the last log.
        factor = torch.dot(weights, logs.index_select(0, best.clamp_max_(self.population))).exp_()
        new = torch.mv(elites.view(len(elites), -1).t(), weights).view_as(mean)
        return new, std * factor

    @cached_property
    def _least_std(self) -> Tensor:
        return self.floor / self.sigma * self._prior[1]

    @cached_property
    def _smooth(self) -> Tensor:
        """The matrix (noise knots, K) that turns the knots of the noise into those of the plan."""
        knots = self.matrix.shape[1]
        matrix = interpolation_matrix(knots, min(self.noise_knots, knots), "linear")
        return torch.as_tensor(matrix.T, dtype=self.low.dtype, device=self.low.device).contiguous()


@lru_cache(maxsize=64)
def _step_sizes(
    count: int, spread: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Step sizes of `count` draws, (count, 1), and their logs with one more, (count + 1,).

    The last log is for candidates that were not drawn (the mean, the start's best): they are
    treated as drawn with the smallest step size.
    """
    logs = torch.linspace(1, -1, count, dtype=torch.float64) * math.log(spread)
    steps = logs.exp()[:, None].to(device, dtype)
    return steps, torch.cat((logs, logs.new_tensor([-math.log(spread)]))).to(device, dtype)


@lru_cache(maxsize=64)
def _weights(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """log(M + ½) - log i for i = 1..M, normalised; (M,). Hansen 2016, "The CMA evolution
    strategy: a tutorial"."""
    rank = torch.arange(1, count + 1, dtype=torch.float64)
    weights = math.log(count + 0.5) - rank.log()
    return (weights / weights.sum()).to(device, dtype)
