"""Posterior distributions of the arms' mean rewards and of the best arm."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.tabular._bandit_common import normal, numpy_generator
from mbrl.types import Gaussian
from planners.checks import PositiveFloat, check_fields


def bernoulli_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(Bernoulli(p), Bernoulli(q)) in nats, any shapes that broadcast."""
    return torch.xlogy(p, p / q) + torch.xlogy(1 - p, (1 - p) / (1 - q))


class Posterior(ABC):
    """The posterior of the arms' mean rewards, given the number of plays and the sum of rewards.

    The arms are independent. `counts` (plays) and `sums` (of rewards) are (*lead, K). The conjugate
    prior is equivalent to `weight` plays with mean reward `centre`.
    """

    bounded: ClassVar[bool] = False
    """Whether rewards must lie in [0, 1]."""

    @property
    @abstractmethod
    def centre(self) -> float:
        """Mean of the prior."""

    @property
    @abstractmethod
    def weight(self) -> float:
        """Number of plays that the prior is equivalent to."""

    def moments(self, counts: Tensor, sums: Tensor) -> Gaussian:
        """Mean and std of the posterior, (*lead, K)."""
        plays = self.weight + counts
        mean = (self.weight * self.centre + sums) / plays
        return Gaussian(mean, self._std(mean, plays))

    @abstractmethod
    def _std(self, mean: Tensor, plays: Tensor) -> Tensor:
        """Std of the posterior of each mean, (*lead, K)."""

    @abstractmethod
    def log_density(self, counts: Tensor, sums: Tensor, at: Float[Tensor, "*lead G"]) -> Tensor:
        """Log density of each arm's mean at G values, (*lead, K, G)."""

    @abstractmethod
    def draw(self, counts: Tensor, sums: Tensor, *, generator: Generator) -> Tensor:
        """A mean for each arm drawn from its posterior, (*lead, K)."""

    @abstractmethod
    def information(self, mean: Tensor, other: Tensor) -> Tensor:
        """KL divergence of rewards with mean `mean` from rewards with mean `other`, in nats."""


@dataclass(frozen=True)
class BetaBernoulli(Posterior):
    """Bernoulli rewards, each arm's mean a priori Beta(alpha, beta).

    The posterior is Beta(alpha + successes, beta + failures).
    """

    alpha: PositiveFloat = 1.0
    beta: PositiveFloat = 1.0
    bounded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def centre(self) -> float:
        """α / (α + β)."""
        return self.alpha / self.weight

    @property
    def weight(self) -> float:
        """α + β."""
        return self.alpha + self.beta

    def _std(self, mean: Tensor, plays: Tensor) -> Tensor:
        return (mean * (1 - mean) / (plays + 1)).sqrt()

    def _shapes(self, counts: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        return self.alpha + sums, self.beta + (counts - sums)

    def log_density(self, counts: Tensor, sums: Tensor, at: Tensor) -> Tensor:
        """Log density of the beta distribution; -inf outside (0, 1)."""
        a, b = self._shapes(counts, sums)
        scale = (a + b).lgamma() - a.lgamma() - b.lgamma()
        outside = (at <= 0) | (at >= 1)
        x = at.masked_fill(outside, 0.5)
        powers = torch.stack((a - 1, b - 1), -1) @ torch.stack((x.log(), (-x).log1p()), -2)
        return (scale[..., None] + powers).masked_fill(outside[..., None, :], -math.inf)

    def draw(self, counts: Tensor, sums: Tensor, *, generator: Generator) -> Tensor:
        """Draws of the beta distribution, made on the CPU."""
        # numpy is twice as fast; torch would also draw from its global random stream.
        a, b = (shape.cpu().numpy() for shape in self._shapes(counts, sums))
        return torch.from_numpy(numpy_generator(generator).beta(a, b)).to(sums)

    def information(self, mean: Tensor, other: Tensor) -> Tensor:
        """KL divergence of Bernoulli rewards."""
        return bernoulli_kl(mean, other)


@dataclass(frozen=True)
class NormalNormal(Posterior):
    """Normal rewards of known std `noise`, each arm's mean a priori Normal(mean, std²).

    The posterior is normal, of precision 1 / std² + n / noise².
    """

    mean: float = 0.0
    std: PositiveFloat = 1.0
    noise: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def centre(self) -> float:
        """Mean of the prior."""
        return self.mean

    @property
    def weight(self) -> float:
        """(noise / std)²."""
        return (self.noise / self.std) ** 2

    def _std(self, mean: Tensor, plays: Tensor) -> Tensor:
        return self.noise * plays.rsqrt()

    def log_density(self, counts: Tensor, sums: Tensor, at: Tensor) -> Tensor:
        """Log density of the normal distribution."""
        mean, std = self.moments(counts, sums)
        z = (at[..., None, :] - mean[..., None]) / std[..., None]
        return -0.5 * z.square() - (std.log() + 0.5 * math.log(2 * math.pi))[..., None]

    def draw(self, counts: Tensor, sums: Tensor, *, generator: Generator) -> Tensor:
        """Draws of the normal distribution."""
        mean, std = self.moments(counts, sums)
        return mean + std * normal(mean, generator)

    def information(self, mean: Tensor, other: Tensor) -> Tensor:
        """KL divergence of normal rewards, (mean - other)² / 2 noise²."""
        return (mean - other).square() / (2 * self.noise**2)


class BestArm(NamedTuple):
    """Posterior of the best arm A*, and posterior expectation of the means given A*."""

    chance: Tensor  # (R, K), P(A* = a)
    given: Tensor  # (R, K, K), E[mean of k | A* = a] at [a, k]


def best_arm(posterior: Posterior, counts: Tensor, sums: Tensor, *, points: int) -> BestArm:
    """P(A* = a) and the means given A*, by integrals over the best arm's mean.

    The midpoint rule on `points` equal intervals. Runs in which an interval is wider than the std
    of some arm that may be best are computed again, with more intervals around the means.
    """
    mean, std = posterior.moments(counts, sums)
    # The largest mean is almost surely above mean - 6 std and below the largest mean + 8 std.
    low, high = (mean - 6 * std).amax(-1, keepdim=True), (mean + 8 * std).amax(-1, keepdim=True)
    width = (high - low) / points
    x = low + width * (torch.arange(points, device=mean.device) + 0.5).to(mean)  # (R, G)
    found = _integrate(posterior, counts, sums, low, x, width.expand_as(x))
    narrow = ((width > std) & (mean + 8 * std > low)).any(-1)
    if bool(narrow.any()):
        low, high, mean, std = (each[narrow] for each in (low, high, mean, std))
        if posterior.bounded:
            low, high = low.clamp(min=0), high.clamp(max=1)
        steps = torch.linspace(-6, 8, max(points // 4, 16)).to(mean)
        near = (mean[..., None] + std[..., None] * steps).flatten(1)
        even = low + (high - low) * torch.linspace(0, 1, points + 1).to(mean)
        edges = torch.cat((torch.minimum(torch.maximum(near, low), high), even), -1)
        edges = edges.sort(-1).values
        x, widths = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=-1)
        finer = _integrate(posterior, counts[narrow], sums[narrow], low, x, widths)
        found.chance[narrow], found.given[narrow] = finer
    return found


def _integrate(
    posterior: Posterior, counts: Tensor, sums: Tensor, low: Tensor, x: Tensor, widths: Tensor
) -> BestArm:
    """The integrals of `best_arm`, over intervals above `low` (R, 1).

    `x` is their midpoints and `widths` their widths, both (R, G).

    With f, F and Q the density, distribution and first partial moment of an arm's mean,
    P(A* = a) = ∫ f_a Π F_b over b ≠ a, and at each value E[mean of k | mean of k below it] is
    Q_k / F_k.
    """
    mean, std = posterior.moments(counts, sums)
    mass = (posterior.log_density(counts, sums, x) + widths[:, None].log()).exp()  # (R, K, G)
    # a sum above 1 occurs if a density is narrower than an interval
    mass = mass / mass.sum(-1, keepdim=True).clamp(min=1)
    moment = mass * x[:, None]
    # The mass outside the intervals is below them; it is placed at the point that gives the arm its
    # exact mean. Half of an interval's mass counts as below its midpoint.
    rest = (1 - mass.sum(-1)).clamp(min=0)
    place = (mean - moment.sum(-1)) / rest.clamp(min=1e-12)
    place = torch.minimum(torch.maximum(place, mean - 8 * std), low)
    below = rest[..., None] + mass.cumsum(-1) - mass / 2
    worth = (rest * place)[..., None] + moment.cumsum(-1) - moment / 2
    tiny = torch.finfo(mean.dtype).tiny
    worth = torch.where(below > tiny, worth / below.clamp(min=tiny), x[:, None])
    logs = below.clamp(min=tiny).log()
    wins = mass * (logs.sum(-2, keepdim=True) - logs).exp()  # (R, K, G)
    chance = wins.sum(-1)
    given = (wins @ worth.mT) / chance.clamp(min=tiny)[..., None]
    own = (wins * x[:, None]).sum(-1) / chance.clamp(min=tiny)
    given.diagonal(dim1=-2, dim2=-1).copy_(own)
    given = torch.where(chance[..., None] > 0, given, mean[:, None])
    return BestArm(chance / chance.sum(-1, keepdim=True), given)


class Mixture(NamedTuple):
    """A distribution over two arms: both (...,), and `share`, the probability of the first."""

    first: Tensor
    second: Tensor
    share: Tensor


def least_ratio(cost: Float[Tensor, "*lead K"], gain: Float[Tensor, "*lead K"]) -> Mixture:
    """The distribution over arms with the least (expected cost)² / expected gain.

    Some distribution over two arms always attains it (Russo and Van Roy 2018, proposition 6), and
    for two arms the ratio is convex in the share of the first. Costs and gains are at least 0. If
    an arm has cost 0, or all gains are 0, the result is only the arm of least cost, and of several
    such arms the one with the largest gain.
    """
    # The last two axes are the pair of arms: first, second.
    a, b = cost[..., :, None], cost[..., None, :]
    u, v = gain[..., :, None], gain[..., None, :]
    # the share at which the derivative of the ratio is 0
    inner = b / (a - b) - 2 * v / (u - v)
    shares = torch.stack(
        (torch.zeros_like(inner), torch.ones_like(inner), inner.nan_to_num(0.0).clamp(0, 1))
    )
    spent = (shares * a + (1 - shares) * b).square()
    ratio = spent / (shares * u + (1 - shares) * v)
    ratio = torch.where(ratio.isnan() | ratio.isinf(), torch.finfo(ratio.dtype).max, ratio)
    ratio, which = ratio.min(0)
    share = shares.gather(0, which[None])[0]
    arms = cost.shape[-1]
    pair = ratio.flatten(-2).argmin(-1, keepdim=True)
    first, second = pair[..., 0] // arms, pair[..., 0] % arms
    share = share.flatten(-2).gather(-1, pair)[..., 0]
    # here the minimum ratio is 0, or the ratio is infinite for every distribution
    alone = (cost <= 0).any(-1) | ~(gain > 0).any(-1)
    cheapest = gain.masked_fill(cost > cost.amin(-1, keepdim=True), -1.0).argmax(-1)
    return Mixture(torch.where(alone, cheapest, first), torch.where(alone, cheapest, second), share)
