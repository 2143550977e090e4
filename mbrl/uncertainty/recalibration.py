"""Maps that recalibrate predicted distributions, fitted on held-out data.

A level is a value in [0, 1] of a predicted CDF. If F is the CDF that a model predicts for a
dimension, its `pit` values are the levels of the targets; they are uniform if the model is
calibrated. A `LevelMap` R is fitted so that R(pit) is uniform, and R(F) is the recalibrated CDF.

Fit maps on data that the model was not trained on: on its own training data a model errs less
than it will later. Maps are fitted to log F and log(1 - F), because F itself rounds to 1 where an
overconfident model errs by 8 stds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from scipy.special import ndtri_exp
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.special import log_ndtr, ndtr, ndtri

from mbrl.uncertainty._common import check

QUADRATURE = 8193
"""Points of the trapezoidal rule for the moments of recalibrated noise."""

FAR = 40.0
"""A normal score beyond all of float64's levels."""


class LevelMap(Protocol):
    """An increasing map of levels for each of D dimensions, which takes 0 to 0 and 1 to 1.

    Differentiable almost everywhere. Values are not checked, to be fast enough for a planning loop.
    """

    @property
    def dims(self) -> int:
        """D."""
        ...

    def cdf(self, level: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """R: the recalibrated CDF where the model's is `level`."""
        ...

    def quantile(self, level: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """The inverse of R: the model's level at the recalibrated quantile of `level`."""
        ...

    def noise(self, z: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """Φ⁻¹(quantile(Φ(z))), with which μ + σ · noise(z) is recalibrated for z ~ N(0, 1).

        Accurate in the tails, where Φ(z) itself would round to 0 or 1.
        """
        ...


@dataclass(frozen=True)
class Temperature:
    """A `LevelMap` that multiplies the std by a factor; R(p) = Φ(Φ⁻¹(p) / scale) for a Gaussian.

    Attributes:
        scale: (D,), positive; 1 is the identity.
    """

    scale: Float[Tensor, " D"]

    @classmethod
    def fit(
        cls,
        mean: Float[Tensor, "E *lead D"],
        std: Float[Tensor, "E *lead D"],
        target: Float[Tensor, "*lead D"],
    ) -> Temperature:
        """The `recalibration_scale` of two targets or more, which is for the std of each member.

        Raises:
            ValueError: wrong shapes, NaN, fewer than two targets, or a std that is not positive.
        """
        _check_rows(mean, std, target)
        return cls(recalibration_scale(mean, std, target))

    @property
    def dims(self) -> int:
        """D."""
        return len(self.scale)

    def cdf(self, level: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """See `LevelMap.cdf`."""
        return ndtr(ndtri(level) / self.scale.to(level))

    def quantile(self, level: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """See `LevelMap.quantile`."""
        return ndtr(ndtri(level) * self.scale.to(level))

    def noise(self, z: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """scale · z."""
        return z * self.scale.to(z)


@dataclass(frozen=True)
class Logistic:
    """The `LevelMap` R(p) = sigmoid(slope · logit(p) + offset).

    Malik et al. (2019) recalibrate models for planning with sigmoid(a · p + b), which takes 0 to
    sigmoid(b) > 0 and 1 to less than 1 and so is neither a map of CDFs nor ever the identity. With
    logits it is both: the identity at slope 1, offset 0. It suits models that are somewhat too
    narrow or biased; no slope is a factor of the std, so for many errors of 3 stds or more take
    another map.

    Attributes:
        slope: (D,), positive; below 1 the recalibrated distribution is wider.
        offset: (D,); positive moves it down.
    """

    slope: Float[Tensor, " D"]
    offset: Float[Tensor, " D"]

    @classmethod
    def fit(
        cls,
        mean: Float[Tensor, "E *lead D"],
        std: Float[Tensor, "E *lead D"],
        target: Float[Tensor, "*lead D"],
    ) -> Logistic:
        """Maximum likelihood of the PIT values of two targets or more.

        R(pit) is uniform if slope · logit(pit) + offset follows the standard logistic distribution,
        so this fits a logistic distribution to logits: a concave problem, solved by Newton's
        method. A dimension with one PIT value, such as a constant predicted without error, keeps
        the identity.

        Raises:
            ValueError: wrong shapes, NaN, fewer than two targets, or a std that is not positive.
        """
        below, above = _tails(mean, std, target)
        logit = below - above
        slope, offset = torch.ones_like(logit[0]), torch.zeros_like(logit[0])
        centre, width = logit.mean(0), logit.std(0, correction=0)
        varied = width > 1e-12 * (1 + centre.abs())  # by more than rounding
        x = (logit[:, varied] - centre[varied]) / width[varied]
        slope[varied], offset[varied] = _logistic_newton(x)
        slope = torch.where(varied, slope / width, slope)
        offset = torch.where(varied, offset - slope * centre, offset)
        return cls(slope.to(mean.dtype), offset.to(mean.dtype))

    @property
    def dims(self) -> int:
        """D."""
        return len(self.slope)

    def cdf(self, level: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """See `LevelMap.cdf`."""
        return torch.sigmoid(torch.logit(level) * self.slope.to(level) + self.offset.to(level))

    def quantile(self, level: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """See `LevelMap.quantile`."""
        return torch.sigmoid((torch.logit(level) - self.offset.to(level)) / self.slope.to(level))

    def noise(self, z: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """See `LevelMap.noise`."""
        x = z.double()
        logit = log_ndtr(x) - log_ndtr(-x)
        logit = (logit - self.offset.to(x)) / self.slope.to(x)
        low = logit < 0
        # in the lower tail, where levels do not round to 1; exp(-700) is near the least of float64
        tail = torch.where(low, logit, -logit).clamp_min(-700.0)
        quantile = ndtri(torch.sigmoid(tail))
        return torch.where(low, quantile, -quantile).to(z.dtype)


@dataclass(frozen=True)
class Isotonic:
    """A `LevelMap` through the PIT values it was fitted on, with lines between them.

    A normal score is Φ⁻¹ of a level. Lines are between normal scores, not between levels, so
    that a model whose std is wrong by a factor gives one straight line, also in the tails.

    Attributes:
        model: (D, K) increasing normal scores of the model's levels.
        actual: (D, K) those of the recalibrated levels.
    """

    model: Float[Tensor, "D K"]
    actual: Float[Tensor, "D K"]

    @classmethod
    def fit(
        cls,
        mean: Float[Tensor, "E *lead D"],
        std: Float[Tensor, "E *lead D"],
        target: Float[Tensor, "*lead D"],
    ) -> Isotonic:
        """The distribution function of the PIT values of two targets or more.

        Algorithm 1 of Kuleshov et al. (2018) is isotonic regression of the share of PIT values up
        to p on p. These shares increase already, so pool-adjacent-violators would leave them as
        they are. Here they are ranks over n + 1, ties averaged. Beyond the extreme values the
        map goes on with the slope of the line between them, or 1 if all values are one.

        Raises:
            ValueError: wrong shapes, NaN, fewer than two targets, or a std that is not positive.
        """
        below, above = _tails(mean, std, target)
        log_tail = torch.minimum(below, above)
        scores = torch.from_numpy(ndtri_exp(log_tail.cpu().numpy())).to(log_tail)
        scores = torch.where(below < above, scores, -scores)
        columns = [column.unique(return_counts=True) for column in scores.T]
        size = 2 + max(len(score) for score, _ in columns)
        model, actual = scores.new_empty(2, len(columns), size)
        for d, (score, counts) in enumerate(columns):
            share = (counts.cumsum(0) - (counts - 1) / 2) / (len(scores) + 1)
            normal = ndtri(share.double())
            run, rise = normal[-1] - normal[0], score[-1] - score[0]
            slope = rise / run if len(score) > 1 else torch.ones_like(rise)
            beyond = FAR * torch.arange(1, size - len(score)).to(score)
            actual[d] = torch.cat(((normal[0] - FAR).reshape(1), normal, normal[-1] + beyond))
            model[d] = torch.cat(
                ((score[0] - slope * FAR).reshape(1), score, score[-1] + slope * beyond)
            )
        return cls(model, actual)

    @property
    def dims(self) -> int:
        """D."""
        return len(self.model)

    def cdf(self, level: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """See `LevelMap.cdf`."""
        score = ndtri(level.to(self.model.dtype))
        return ndtr(_interpolate(score, self.model, self.actual)).to(level.dtype)

    def quantile(self, level: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """See `LevelMap.quantile`."""
        return ndtr(self.noise(ndtri(level.to(self.model.dtype)))).to(level.dtype)

    def noise(self, z: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """See `LevelMap.noise`."""
        return _interpolate(z, self.actual, self.model)


def noise_moments(level_map: LevelMap) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Mean and std of `level_map.noise` for standard normal z, in float64."""
    z = torch.linspace(-8.25, 8.25, QUADRATURE, dtype=torch.float64)
    weight = torch.softmax(-0.5 * z.square(), 0)
    noise = level_map.noise(z.unsqueeze(-1).expand(-1, level_map.dims))
    mean = weight @ noise
    return mean, (weight @ (noise - mean).square()).sqrt()


def recalibration_scale(
    mean: Float[Tensor, "E *lead D"],
    std: Float[Tensor, "E *lead D"],
    target: Float[Tensor, "*lead D"],
    *,
    iterations: int = 100,
) -> Float[Tensor, " D"]:
    """The factor for every member's std that maximises the likelihood of held-out data.

    One factor s a dimension, to be used as `std * s`: temperature scaling (Guo et al. 2017)
    for regression (Laves et al. 2020; Malik et al. 2019 show that it helps planning). The means do
    not change, so every member can still be stepped on its own. For E = 1 it is the closed form
    s² = mean(((y - μ) / σ)²); for a mixture, the fixed point of that average weighted by each
    member's responsibility for the target (expectation maximisation of the marginal
    likelihood), so error that the disagreement of members explains does not inflate their std. At
    least the dtype's epsilon, which it equals if the model makes no error.
    Raises ValueError for wrong shapes, NaN, or a std that is not positive.
    """
    check(mean, std, target)
    if not bool((std > 0).all()):
        raise ValueError("std: is 0 in some place, which no factor can scale to fit")
    members, dims = len(mean), mean.shape[-1]
    z2 = ((target - mean) / std).square().reshape(members, -1, dims)
    log_std = std.log().reshape(members, -1, dims)
    eps = torch.finfo(mean.dtype).eps
    s2 = z2.mean((0, 1)).clamp_min(eps**2)
    for _ in range(iterations if members > 1 else 0):
        responsibility = torch.softmax(-0.5 * z2 / s2 - log_std, 0)
        before, s2 = s2, (responsibility * z2).sum(0).mean(0).clamp_min(eps**2)
        if torch.allclose(s2, before, rtol=1e-5, atol=0.0):
            break
    return s2.sqrt()


def _logistic_newton(x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """The a, b that maximise mean log a + log σ(ax + b) + log σ(-ax - b), which is concave.

    Columns of x have mean 0 and std 1. The start is the logistic distribution of these moments.
    """

    def objective(a: Tensor, b: Tensor) -> Tensor:
        y = a * x + b
        return a.log() + (logsigmoid(y) + logsigmoid(-y)).mean(0)

    a, b = torch.full_like(x[0], math.pi / math.sqrt(3)), torch.zeros_like(x[0])
    best = objective(a, b)
    for _ in range(50):
        t = torch.tanh((a * x + b) / 2)
        bend = (1 - t.square()) / 2
        slope_a, slope_b = 1 / a - (t * x).mean(0), -t.mean(0)
        aa, ab, bb = 1 / a.square() + (bend * x * x).mean(0), (bend * x).mean(0), bend.mean(0)
        det = aa * bb - ab.square()
        step_a, step_b = (bb * slope_a - ab * slope_b) / det, (aa * slope_b - ab * slope_a) / det
        share = torch.ones_like(a)
        for _ in range(30):  # halve steps that leave a > 0 or do not improve
            value = objective(a + share * step_a, b + share * step_b)
            worse = ~(value >= best)
            if not bool(worse.any()):
                break
            share = torch.where(worse, share / 2, share)
        better = value > best
        a = torch.where(better, a + share * step_a, a)
        b = torch.where(better, b + share * step_b, b)
        best = torch.where(better, value, best)
        if not bool(better.any()):
            break
    return a, b


def _interpolate(
    x: Float[Tensor, "*lead D"], knots: Float[Tensor, "D K"], values: Float[Tensor, "D K"]
) -> Float[Tensor, "*lead D"]:
    """Piecewise linear, with a row of knots for each column of x; computed in the knots' dtype."""
    knots, values = knots.to(x.device), values.to(x.device)
    columns = x.reshape(-1, x.shape[-1]).to(knots.dtype).T.contiguous()  # (D, N)
    right = torch.searchsorted(knots, columns.detach()).clamp(1, knots.shape[1] - 1)
    x0, x1 = knots.gather(1, right - 1), knots.gather(1, right)
    y0, y1 = values.gather(1, right - 1), values.gather(1, right)
    return (y0 + (columns - x0) * ((y1 - y0) / (x1 - x0))).T.reshape(x.shape).to(x.dtype)


def _tails(
    mean: Float[Tensor, "E *lead D"],
    std: Float[Tensor, "E *lead D"],
    target: Float[Tensor, "*lead D"],
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]]:
    """Logs of F and of 1 - F at the targets, for the mixture of members; in float64."""
    _check_rows(mean, std, target)
    z = ((target.double() - mean.double()) / std.double()).reshape(len(mean), -1, mean.shape[-1])
    below, above = (log_ndtr(x).logsumexp(0) - math.log(len(mean)) for x in (z, -z))
    return below, above


def _check_rows(mean: Tensor, std: Tensor, target: Tensor) -> None:
    check(mean, std, target)
    if target.numel() < 2 * target.shape[-1]:
        raise ValueError(
            f"target: want two targets or more of each dimension, got shape {tuple(target.shape)}"
        )
    if not bool((std > 0).all()):
        raise ValueError("std: is 0 in some place, which no map can recalibrate")
