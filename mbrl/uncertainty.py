"""Aleatoric and epistemic uncertainty, calibration and proper scores of predictions.

Pure functions on an equally weighted mixture of E Gaussians: `mean` and `std` of shape
(E, ..., D), as `GaussianDynamics.predict` gives them, against a `target` of shape (..., D).
Each of the D dimensions is evaluated separately, except in `negative_log_likelihood`. E = 1 is a
single Gaussian; `std` = 0 with E = P is a set of P particles, so the same functions (all but the
likelihood) evaluate imagined trajectories.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.special import ndtr


class Spread(NamedTuple):
    """Predictive variances, each (..., D), in the square of the target's units.

    Variances rather than standard deviations, because variances add: total = aleatoric + epistemic.
    """

    aleatoric: Tensor
    epistemic: Tensor
    total: Tensor


def spread(mean: Float[Tensor, "E *lead D"], std: Float[Tensor, "E *lead D"]) -> Spread:
    """The law of total variance over members (Depeweg et al. 2018).

    Aleatoric is the mean over members of their variance: noise that no data removes. Epistemic is
    the variance over members of their mean, which more data would reduce; 0 for E = 1. It is
    divided by E, not E - 1, so that the two add up to the mixture's variance exactly.
    Values are not checked, to be fast enough for a planning loop. Raises ValueError for
    shapes that differ.
    """
    _same_shape(mean, std)
    aleatoric = std.square().mean(0)
    epistemic = mean.var(0, correction=0)
    return Spread(aleatoric, epistemic, aleatoric + epistemic)


def particle_spread(particles: Float[Tensor, "P *lead D"], *, members: int) -> Spread:
    """The spread of particles propagated with a fixed member each (`tsinf`), P / E per member.

    Particles of one member differ by noise alone (aleatoric), members by epistemic uncertainty.
    With k = P / E particles per member, 1/k of the aleatoric variance is counted as epistemic, so
    use many particles.

    Raises:
        ValueError: P is not a multiple of `members`, or there is only one particle per member.
    """
    if members < 1 or len(particles) % members or len(particles) < 2 * members:
        raise ValueError(
            f"particles must be a multiple of {members} members, two or more each, "
            f"got {len(particles)}"
        )
    grouped = particles.unflatten(0, (members, -1))
    return spread(grouped.mean(1), grouped.std(1, correction=0))


def geometric_jensen_shannon(
    mean: Float[Tensor, "E *lead D"], std: Float[Tensor, "E *lead D"]
) -> Float[Tensor, "*lead"]:
    """Mean over pairs of members of the geometric Jensen-Shannon divergence, in nats.

    The mean of KL(g || p) and KL(g || q) for the normalised geometric mean g of two Gaussians p and
    q (Nielsen 2019; the dual form, which MACURA uses, Frauenknecht et al. 2024). It equals
    -log ∫ √(p q) dx, the Bhattacharyya distance, so for diagonal Gaussians it is the sum over
    dimensions of (μ_p - μ_q)² / (4 (σ_p² + σ_q²)) + ½ log((σ_p² + σ_q²) / (2 σ_p σ_q)).

    Values are not checked, to be fast enough for rollouts; without a spread the result is not
    finite. Raises ValueError for shapes that differ, or fewer than two members.
    """
    _same_shape(mean, std)
    if len(mean) < 2:
        raise ValueError(f"mean: want two members or more, got {len(mean)}")
    variance, log_std = std.square(), std.log()
    total, pairs = torch.zeros_like(mean[0, ..., 0]), 0
    for i in range(1, len(mean)):  # one member with all before it: (i, ..., D)
        both = variance[i] + variance[:i]
        apart = (mean[i] - mean[:i]).square() / (4 * both)
        wider = 0.5 * ((0.5 * both).log() - log_std[i] - log_std[:i])
        total = total + (apart + wider).sum(-1).sum(0)
        pairs += i
    return total / pairs


class Fused(NamedTuple):
    """The predictions of all members as one; see `fused`."""

    mean: Tensor  # (..., D)
    variance: Tensor  # (..., D), Σ̄: of the fused noise
    gain: Tensor  # (..., D), K in [0, 1]: how much of a member's deviation counts
    left: Tensor  # (..., D), (1 - K) Σ̄: variance of the next state given a member's sample


def fused(mean: Float[Tensor, "E *lead D"], std: Float[Tensor, "E *lead D"]) -> Fused:
    """The members' predictions, fused by their precisions (Infoprop; Frauenknecht et al. 2025).

    Members are taken as noisy sensors of one world: Σ̄ = 1 / mean_i(1 / σ_i²) and
    μ̄ = Σ̄ mean_i(μ_i / σ_i²) for its next state, and Var = mean_i (μ_i - μ̄)² for what a member adds
    to it. Given the sample x of a member, the next state is Gaussian with mean μ̄ + K (x - μ̄) and
    variance (1 - K) Σ̄, K = Σ̄ / (Σ̄ + Var). That variance is 0 where the members agree.

    Values are not checked. Raises ValueError for shapes that differ.
    """
    _same_shape(mean, std)
    precision = std.square().reciprocal()
    variance = precision.mean(0).reciprocal()
    centre = variance * (precision * mean).mean(0)
    apart = (mean - centre).square().mean(0)
    share = apart / (variance + apart)  # 1 - K, without cancellation
    return Fused(centre, variance, 1 - share, share * variance)


def information_lost(
    variance: Float[Tensor, "*lead D"], *, unit: float = 1e-6
) -> Float[Tensor, "*lead D"]:
    """Information on a number that its Gaussian uncertainty loses, in bits, at least 0.

    Its entropy beyond that of a cell of size `unit`: ½ log2(2πe variance) - log2 unit.

    Raises:
        ValueError: a unit that is not positive.
    """
    if not unit > 0:
        raise ValueError(f"unit: must be positive, got {unit}")
    bits = 0.5 * (2 * math.pi * math.e * variance).log2() - math.log2(unit)
    return bits.clamp_min(0.0)


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
    _check(mean, std, target)
    return ndtr((target - mean) / _positive(std)).mean(0)


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
    if levels.ndim != 1 or not bool(((levels >= 0) & (levels <= 1)).all()):
        raise ValueError("levels: want a vector of probabilities in [0, 1]")
    off_centre = (pit(mean, std, target) - 0.5).abs().reshape(-1, mean.shape[-1])
    # One level at a time: (L, N, D) booleans would be the largest thing in memory.
    return torch.stack([(off_centre <= p / 2).to(mean.dtype).mean(0) for p in levels])


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
    _check(mean, std, target)
    if not bool((std > 0).all()):
        raise ValueError("std: must be positive for a density, got 0")
    z = (target - mean) / std
    member = -(0.5 * z.square() + std.log() + 0.5 * math.log(2 * math.pi)).sum(-1)
    return math.log(len(mean)) - member.logsumexp(0)


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
    _check(mean, std, target)
    accuracy = _mean_abs(target - mean, std).mean(0)
    # Pairs one member at a time: memory grows with E, not with E².
    disagreement = torch.zeros_like(accuracy)
    for mu, sigma in zip(mean, std, strict=True):
        disagreement += _mean_abs(mu - mean, torch.hypot(sigma.expand_as(std), std)).mean(0)
    return accuracy - disagreement / (2 * len(mean))


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
    _check(mean, std, target)
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


def _mean_abs(mu: Tensor, sigma: Tensor) -> Tensor:
    """E|X| for X ~ N(mu, sigma²); Grimit et al. call it A(mu, sigma²)."""
    sigma = _positive(sigma)
    z = mu / sigma
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return 2 * sigma * density + mu * (2 * ndtr(z) - 1)


def _positive(std: Tensor) -> Tensor:
    """`std` with 0 replaced by the smallest positive number of the dtype."""
    return std.clamp_min(torch.finfo(std.dtype).tiny)


def _same_shape(mean: Tensor, std: Tensor) -> None:
    if mean.shape != std.shape or mean.ndim < 2 or len(mean) == 0:
        raise ValueError(
            f"std: want mean and std of one shape (E, ..., D) with E >= 1, "
            f"got {tuple(mean.shape)} and {tuple(std.shape)}"
        )


def _check(mean: Tensor, std: Tensor, target: Tensor) -> None:
    _same_shape(mean, std)
    if target.shape != mean.shape[1:]:
        raise ValueError(
            f"target: want the shape {tuple(mean.shape[1:])} of one member's mean, "
            f"got {tuple(target.shape)}"
        )
    if target.numel() == 0:
        raise ValueError("target: is empty; want at least one prediction")
    for name, value in (("mean", mean), ("std", std), ("target", target)):
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name}: has NaN or infinite values; want finite ones")
    if bool((std < 0).any()):
        raise ValueError("std: has negative values; want 0 or more")
