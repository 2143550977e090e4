"""Calibration, proper scores and detection: predictions against what happened."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.special import ndtr

from mbrl.uncertainty._common import check, dense, log_density, normal_draws, positive
from mbrl.uncertainty.members import spread


def sharpness(
    mean: Float[Tensor, "E *lead D"], std: Float[Tensor, "E *lead D"]
) -> Float[Tensor, " D"]:
    """Root mean predictive variance of each dimension, in the target's units (lower is sharper).

    Gneiting et al. (2007): of two calibrated models, the sharper one is better.
    """
    total = spread(mean, std).total
    return total.reshape(-1, total.shape[-1]).mean(0).sqrt()


def pit(
    mean: Float[Tensor, "E *lead D"],
    std: Float[Tensor, "E *lead D"],
    target: Float[Tensor, "*lead D"],
) -> Float[Tensor, "*lead D"]:
    """Probability integral transform: the mixture's CDF at the target, in [0, 1].

    Uniform over targets if and only if the marginal of each dimension is calibrated
    (Dawid 1984). Raises ValueError for wrong shapes, NaN, or a negative std.
    """
    check(mean, std, target)
    return ndtr((target - mean) / positive(std)).mean(0)


def calibration_curve(
    mean: Float[Tensor, "E *lead D"],
    std: Float[Tensor, "E *lead D"],
    target: Float[Tensor, "*lead D"],
    levels: Float[Tensor, " L"],
) -> Float[Tensor, "L D"]:
    """Share of targets inside the central interval of each level, for each dimension.

    A target lies in the mixture's central interval of probability p when its `pit` is within
    p / 2 of one half, so no CDF has to be inverted (Kuleshov et al. 2018 for the diagram).
    The curve pooled over dimensions is `.mean(-1)`. Raises ValueError for levels outside
    [0, 1], wrong shapes, NaN, or a negative std.
    """
    return coverage(pit(mean, std, target), levels)


def coverage(values: Float[Tensor, "*lead D"], levels: Float[Tensor, " L"]) -> Float[Tensor, "L D"]:
    """`calibration_curve` from PIT values, such as those that a recalibration map has changed.

    Raises ValueError for levels outside [0, 1].
    """
    if levels.ndim != 1 or not bool(((levels >= 0) & (levels <= 1)).all()):
        raise ValueError("levels: want a vector of probabilities in [0, 1]")
    off_centre = (values - 0.5).abs().reshape(-1, values.shape[-1])
    # One level at a time: (L, N, D) booleans would be the largest thing in memory.
    return torch.stack([(off_centre <= p / 2).to(values.dtype).mean(0) for p in levels])


def calibration_error(
    levels: Float[Tensor, " L"], observed: Float[Tensor, " L *dims"]
) -> Float[Tensor, "*dims"]:
    """Mean over levels of |observed - expected| frequency, in [0, 1].

    `observed` is the result of `calibration_curve`. There is one error per dimension: in a
    curve pooled over dimensions, errors of opposite sign would cancel. Raises ValueError for
    lengths that differ.
    """
    if len(levels) != len(observed):
        raise ValueError(
            f"observed: want one row for each of {len(levels)} levels, got {len(observed)}"
        )
    return (observed - levels.reshape(-1, *[1] * (observed.ndim - 1))).abs().mean(0)


def negative_log_likelihood(
    mean: Float[Tensor, "E *lead D"],
    std: Float[Tensor, "E *lead D"],
    target: Float[Tensor, "*lead D"],
) -> Float[Tensor, "*lead"]:
    """Minus the log density of the target under the mixture, in nats; lower is better.

    Joint over D: the density of a member is that of all dimensions together, so the mixture can
    represent dependence between dimensions. Pass `[..., d:d + 1]` for one dimension.
    Raises ValueError for wrong shapes, NaN, or a std that is not positive.
    """
    check(mean, std, target)
    dense(std)
    return math.log(len(mean)) - log_density(target, mean, std).logsumexp(0)


def crps(
    mean: Float[Tensor, "E *lead D"],
    std: Float[Tensor, "E *lead D"],
    target: Float[Tensor, "*lead D"],
) -> Float[Tensor, "*lead D"]:
    """Continuous ranked probability score of each dimension, in its units; lower is better.

    E|X - y| - E|X - X'| / 2 in closed form for a Gaussian mixture (Grimit et al. 2006); the
    absolute error if the prediction is a point. Unlike the log-likelihood it is finite for std = 0,
    and grows only linearly with the error of an outlier. Raises ValueError for wrong shapes, NaN,
    or a negative std.
    """
    check(mean, std, target)
    if not bool(std.any()):  # E|X - X'| of particles from their order, without all pairs
        ordered, count = mean.sort(0).values, len(mean)
        rank = torch.arange(1 - count, count, 2, dtype=mean.dtype, device=mean.device)
        apart = (rank.reshape(-1, *[1] * (mean.ndim - 1)) * ordered).sum(0)
        return (target - mean).abs().mean(0) - apart / count**2
    accuracy = _mean_abs(target - mean, std).mean(0)
    # Pairs one member at a time: memory grows with E, not with E².
    disagreement = torch.zeros_like(accuracy)
    for mu, sigma in zip(mean, std, strict=True):
        disagreement += _mean_abs(mu - mean, torch.hypot(sigma.expand_as(std), std)).mean(0)
    return accuracy - disagreement / (2 * len(mean))


def energy_score(
    mean: Float[Tensor, "E *lead D"],
    std: Float[Tensor, "E *lead D"],
    target: Float[Tensor, "*lead D"],
    *,
    samples: int = 128,
    generator: Generator,
) -> Float[Tensor, "*lead"]:
    """Energy score of all dimensions together, in their units; lower is better.

    E‖X - y‖ - E‖X - X'‖ / 2 (Gneiting & Raftery 2007, section 4.3), the `crps` if D = 1; unlike a
    mean of `crps` it also scores dependence between dimensions. Dimensions count by their size, so
    bring them to one unit first. Each expectation is a mean over members, or pairs of members,
    of the norm of a Gaussian, which is estimated without bias from `samples` draws that all share;
    particles (std = 0) need only one. Raises ValueError for wrong shapes, NaN, a negative std, or
    fewer than one sample.
    """
    check(mean, std, target)
    noise = normal_draws(samples, mean, generator)
    accuracy = _mean_norm(target - mean, std, noise).mean(0)
    disagreement = torch.zeros_like(accuracy)
    for mu, sigma in zip(mean, std, strict=True):
        both = torch.hypot(sigma.expand_as(std), std)
        disagreement += _mean_norm(mu - mean, both, noise).mean(0)
    return accuracy - disagreement / (2 * len(mean))


def auroc(score_in: Float[Tensor, " N"], score_out: Float[Tensor, " M"]) -> float:
    """Area under the ROC curve of a score that should be higher out of distribution.

    The chance that one of `score_out` exceeds one of `score_in`, ties counted one half, over all
    N · M pairs; 0.5 is guessing (Hendrycks & Gimpel 2017 for its use). Raises ValueError for
    scores that are not vectors, are empty, or hold NaN.
    """
    _vectors(1, score_in=score_in, score_out=score_out)
    count = len(score_out)
    above = _ranks(torch.cat((score_in, score_out)))[len(score_in) :].sum()
    return float(above - count * (count + 1) / 2) / (len(score_in) * count)


def rank_correlation(a: Float[Tensor, " N"], b: Float[Tensor, " N"]) -> float:
    """Spearman's rank correlation, ties averaged: of predicted uncertainty with error, say.

    Raises ValueError for scores that are not vectors of one length of at least two, hold NaN, or
    are all equal.
    """
    _vectors(2, a=a, b=b)
    if len(a) != len(b):
        raise ValueError(f"b: want {len(a)} numbers like a, got {len(b)}")
    ranks = []
    for name, value in (("a", a), ("b", b)):
        rank = _ranks(value) - (len(value) + 1) / 2
        if not bool(rank.any()):
            raise ValueError(f"{name}: all {len(value)} numbers are equal and have no order")
        ranks.append(rank / rank.norm())
    return float(ranks[0] @ ranks[1])


def _mean_norm(
    mu: Float[Tensor, "E *lead D"],
    sigma: Float[Tensor, "E *lead D"],
    noise: Float[Tensor, "samples *lead D"],
) -> Float[Tensor, " E *lead"]:
    """Mean over draws of ‖X‖ for X ~ N(mu, sigma²)."""
    each = [(m + s * noise).norm(dim=-1).mean(0) for m, s in zip(mu, sigma, strict=True)]
    return torch.stack(each)


def _ranks(x: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Ranks from 1 to N in float64; ties have the mean of theirs."""
    _, place, counts = x.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[place]


def _mean_abs(mu: Tensor, sigma: Tensor) -> Tensor:
    """E|X| for X ~ N(mu, sigma²); Grimit et al. call it A(mu, sigma²)."""
    sigma = positive(sigma)
    z = mu / sigma
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return 2 * sigma * density + mu * (2 * ndtr(z) - 1)


def _vectors(least: int, **scores: Tensor) -> None:
    for name, value in scores.items():
        if value.ndim != 1 or len(value) < least:
            raise ValueError(
                f"{name}: want a vector of {least} numbers or more, got shape {tuple(value.shape)}"
            )
        if bool(value.isnan().any()):
            raise ValueError(f"{name}: has NaN")
