"""What members agree on and where they differ: aleatoric and epistemic uncertainty, fusion."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.uncertainty._common import dense, finite, log_density, normal_draws, same_shape, several


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
    same_shape(mean, std)
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


class Entropies(NamedTuple):
    """Entropies of predictions, each (...), in nats: total = aleatoric + epistemic."""

    aleatoric: Tensor
    epistemic: Tensor
    total: Tensor


def entropy_split(
    mean: Float[Tensor, "E *lead D"],
    std: Float[Tensor, "E *lead D"],
    *,
    samples: int = 64,
    generator: Generator,
) -> Entropies:
    """The entropy of the mixture, split into that of its members and the rest.

    Aleatoric is the mean entropy of members. Epistemic is the mutual information of the target and
    the member that predicts it, from 0 to ln E (BALD, Houlsby et al. 2011; Depeweg et al. 2018):
    the mean over members of KL(member || mixture); 0 for E = 1. It has no closed form, so each
    divergence is estimated without bias from `samples` draws. All members use the same standard
    normal numbers, because most of the errors then cancel where members nearly agree; an estimate
    can still be slightly negative there. `jensen_renyi` needs no draws.

    Raises:
        ValueError: wrong shapes, NaN, a std that is not positive, or fewer than one sample.
    """
    same_shape(mean, std)
    finite(mean=mean, std=std)
    dense(std)
    aleatoric = (std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1).mean(0)
    noise = normal_draws(samples, mean, generator)
    epistemic = torch.zeros_like(aleatoric)
    for i in range(len(mean)):
        x = mean[i] + std[i] * noise  # (samples, ..., D)
        # one member at a time: an (E, samples, ..., D) would be the largest thing in memory
        each = torch.stack([log_density(x, *member) for member in zip(mean, std, strict=True)])
        log_ratio = (each - each[i]).logsumexp(0)
        epistemic = epistemic + (math.log(len(mean)) - log_ratio).mean(0)
    epistemic = epistemic / len(mean)
    return Entropies(aleatoric, epistemic, aleatoric + epistemic)


def jensen_renyi(
    mean: Float[Tensor, "E *lead D"], std: Float[Tensor, "E *lead D"]
) -> Float[Tensor, "*lead"]:
    """Quadratic Rényi entropy of the mixture minus the mean of its members', in nats.

    The closed form that MAX (Shyam et al. 2019) takes instead of the mutual information of
    `entropy_split`. The entropy is -log ∫ p² dx, and the integral for a mixture is the mean over
    pairs of members of N(μ_i; μ_j, σ_i² + σ_j²). The difference is 0 if all members are equal, at
    most ln E, and ln E if they do not overlap and have one std. If their stds differ it can be
    negative, because -log ∫ p² is not concave in p.

    Values are not checked, to be fast enough for a planning loop; without a spread the result is
    not finite. Raises ValueError for shapes that differ, or fewer than two members.
    """
    same_shape(mean, std)
    several(mean)
    variance = std.square()
    own = -0.5 * (4 * math.pi * variance).log().sum(-1)
    overlaps = [own]
    for i in range(1, len(mean)):  # one member with all before it: (i, ..., D)
        both = variance[i] + variance[:i]
        apart = (mean[i] - mean[:i]).square() / both
        overlaps.append(math.log(2) - 0.5 * (apart + (2 * math.pi * both).log()).sum(-1))
    own = own.mean(0)
    # `own` inside the sum: its size grows with D, and the difference does not
    return 2 * math.log(len(mean)) - (torch.cat(overlaps) - own).logsumexp(0)


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
    same_shape(mean, std)
    several(mean)
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
    same_shape(mean, std)
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
