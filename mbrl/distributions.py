"""Distributions that policies and critics use, exact and differentiable.

Each is a named tuple of parameter tensors with any leading dimensions; probabilities are summed
over the last one, the action's. Values may have more leading dimensions, in front. Nothing here
draws random numbers but `gumbel_noise`: `sample` takes noise that is already drawn, so the caller
decides about generators, and the code can be compiled. Samples of Gaussians are differentiable with
respect to the parameters (the reparameterisation trick; Kingma and Welling 2014).

Every method raises ValueError for a shape that does not fit. NaN in parameters gives NaN, and an
error where the result is an integer. Values are checked on the CPU only: on other devices it would
have to wait for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class DiagonalGaussian(NamedTuple):
    """A Gaussian with independent dimensions; `log_std` may lack leading dimensions of `mean`."""

    mean: Float[Tensor, "*lead A"]
    log_std: Float[Tensor, "*lead A"]

    @property
    def std(self) -> Float[Tensor, "*lead A"]:
        """Standard deviation."""
        return self.log_std.exp()

    @property
    def mode(self) -> Float[Tensor, "*lead A"]:
        """The mean."""
        return self.mean

    def sample(self, noise: Float[Tensor, "*more A"]) -> Float[Tensor, "*more A"]:
        """mean + std · noise, for standard normal noise."""
        _check_gaussian(self.mean, self.log_std)
        _check_ends("noise", noise.shape, self.mean.shape)
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def sample_and_log_prob(self, noise: Float[Tensor, "*more A"]) -> tuple[Tensor, Tensor]:
        """The sample (*more, A) and its log density (*more)."""
        sample = self.sample(noise)
        log_prob = torch.addcmul(self.log_std, noise, noise, value=0.5)
        return sample, -log_prob.sum(-1) - _LOG_SQRT_2PI * self.mean.shape[-1]

    def log_prob(self, value: Float[Tensor, "*more A"]) -> Float[Tensor, "*more"]:
        """Log density."""
        _check_gaussian(self.mean, self.log_std)
        _check_ends("value", value.shape, self.mean.shape)
        z = (value - self.mean) * (-self.log_std).exp()
        log_prob = torch.addcmul(self.log_std, z, z, value=0.5)
        return -log_prob.sum(-1) - _LOG_SQRT_2PI * self.mean.shape[-1]

    def entropy(self) -> Float[Tensor, "*lead"]:
        """Differential entropy, in nats."""
        _check_gaussian(self.mean, self.log_std)
        return (self.log_std + (0.5 + _LOG_SQRT_2PI)).expand(self.mean.shape).sum(-1)

    def kl(self, other: DiagonalGaussian) -> Float[Tensor, "*lead"]:
        """KL(self ‖ other), in nats."""
        _check_gaussian(self.mean, self.log_std)
        _check_gaussian(other.mean, other.log_std)
        if other.mean.shape != self.mean.shape:
            raise ValueError(
                f"other: want the shape {tuple(self.mean.shape)}, got {tuple(other.mean.shape)}"
            )
        log_ratio = self.log_std - other.log_std
        z = (self.mean - other.mean) * (-other.log_std).exp()
        # expm1, because close distributions would lose the digits of a small difference
        return (0.5 * (torch.expm1(2 * log_ratio) + z.square()) - log_ratio).sum(-1)


@dataclass(frozen=True, eq=False)
class Bounds:
    """The box [low, high] of actions, with what `TanhGaussian` needs of it computed once.

    Raises:
        ValueError: bounds that are not vectors of one size, not finite, or not low < high.
    """

    low: Float[Tensor, " A"]
    high: Float[Tensor, " A"]
    centre: Float[Tensor, " A"] = field(init=False)
    half: Float[Tensor, " A"] = field(init=False)
    """Half of the width."""
    log_half: float = field(init=False)
    """Sum of the logarithms of `half`."""

    def __post_init__(self) -> None:
        low, high = self.low, self.high
        if low.ndim != 1 or low.shape != high.shape:
            raise ValueError(
                f"low and high: want vectors of one size, "
                f"got {tuple(low.shape)} and {tuple(high.shape)}"
            )
        half = 0.5 * high - 0.5 * low  # the difference of large bounds could overflow
        centre = low + half
        if not bool((low.isfinite() & high.isfinite() & (low < high) & (half > 0)).all()):
            raise ValueError(f"low and high: want finite numbers, low < high, got {low} and {high}")
        # Rounding can put the ends of centre ± half outside: then the next smaller half is taken.
        outside = (centre + half > high) | (centre - half < low)
        while bool(outside.any()):
            half = torch.where(outside, half.nextafter(torch.zeros_like(half)), half)
            outside = (centre + half > high) | (centre - half < low)
        object.__setattr__(self, "centre", centre)
        object.__setattr__(self, "half", half)
        object.__setattr__(self, "log_half", float(half.double().log().sum()))


class TanhGaussian(NamedTuple):
    """centre + half · tanh(u) for Gaussian u: actions inside a box (Haarnoja et al. 2018)."""

    mean: Float[Tensor, "*lead A"]
    log_std: Float[Tensor, "*lead A"]
    bounds: Bounds

    @property
    def mode(self) -> Float[Tensor, "*lead A"]:
        """The action for u = mean, which is the median of each dimension.

        It is what SAC plays in evaluation. The density has its maximum elsewhere, for a wide
        Gaussian near the bounds.
        """
        self._check()
        return torch.addcmul(self.bounds.centre, self.bounds.half, self.mean.tanh())

    def sample(self, noise: Float[Tensor, "*more A"]) -> Float[Tensor, "*more A"]:
        """The action for u = mean + std · noise, for standard normal noise."""
        return torch.addcmul(self.bounds.centre, self.bounds.half, self._unsquashed(noise).tanh())

    def sample_and_log_prob(self, noise: Float[Tensor, "*more A"]) -> tuple[Tensor, Tensor]:
        """The action (*more, A) and its log density (*more).

        The density is computed from u, so it is exact where tanh(u) rounds to ±1.
        """
        u = self._unsquashed(noise)
        action = torch.addcmul(self.bounds.centre, self.bounds.half, u.tanh())
        # log(1 - tanh²(u)) = log 4 + 2u - 2 softplus(2u); F.softplus divides by its β
        slope = torch.sub(F.softplus(u, 2.0, 40.0), u, alpha=0.5)
        negative = torch.addcmul(self.log_std, noise, noise, value=0.5)
        summed = torch.sub(negative, slope, alpha=4.0).sum(-1)
        constant = self.mean.shape[-1] * (_LOG_SQRT_2PI + math.log(4)) + self.bounds.log_half
        return action, -constant - summed

    def log_prob(self, action: Float[Tensor, "*more A"]) -> Float[Tensor, "*more"]:
        """Log density of given actions: exact near the bounds, -inf on them and outside.

        A float32 sample can round to a bound, where the density is 0. Use `sample_and_log_prob`
        for one's own samples; move given actions inside first if -inf must not occur.
        """
        self._check()
        _check_ends("action", action.shape, self.mean.shape)
        above, below = action - self.bounds.low, self.bounds.high - action
        outside = (above <= 0) | (below <= 0)  # False for NaN, which gives NaN
        # The distances to the bounds keep all digits there, which tanh⁻¹ of a rounded number lacks.
        above, below = (x.masked_fill(outside, 1).log() for x in (above, below))
        z = (0.5 * (above - below) - self.mean) * (-self.log_std).exp()
        log_prob = -(torch.addcmul(self.log_std, z, z, value=0.5) + above + below)
        summed = log_prob.masked_fill(outside, -math.inf).sum(-1)
        return summed + (self.bounds.log_half - self.mean.shape[-1] * _LOG_SQRT_2PI)

    def _unsquashed(self, noise: Tensor) -> Tensor:
        self._check()
        _check_ends("noise", noise.shape, self.mean.shape)
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def _check(self) -> None:
        _check_gaussian(self.mean, self.log_std)
        if self.bounds.low.shape != self.mean.shape[-1:]:
            raise ValueError(
                f"bounds: want {self.mean.shape[-1]} of low and high, as mean has, "
                f"got {len(self.bounds.low)}"
            )


def clamp_log_std(
    raw: Float[Tensor, "*lead A"], low: float = -20.0, high: float = 2.0
) -> Float[Tensor, "*lead A"]:
    """A network's output held to [low, high] (Haarnoja et al. 2018); no gradient outside."""
    return raw.clamp(low, high)


def rescale_log_std(
    raw: Float[Tensor, "*lead A"], low: float = -5.0, high: float = 2.0
) -> Float[Tensor, "*lead A"]:
    """A network's output squashed into [low, high] by tanh, as in CleanRL (Huang et al. 2022)."""
    return low + 0.5 * (high - low) * (raw.tanh() + 1)


class GeneralisedNoise(NamedTuple):
    """Generalised state-dependent exploration, gSDE (Raffin et al. 2021).

    The noise of an action is a linear function of the policy's features of the state, whose
    random weights stay for many steps: exploration is then smooth over time. Seen over all
    weights, an action is Gaussian. To squash it, make `TanhGaussian(*g.gaussian(), bounds)`; both
    take `g.noise(weights)` as their noise.
    """

    mean: Float[Tensor, "*lead A"]
    log_std: Float[Tensor, "F A"]
    features: Float[Tensor, "*lead F"]

    def gaussian(self) -> DiagonalGaussian:
        """The distribution of the action in each state: variance features² · std²."""
        self._check()
        variance = self.features.square() @ (2 * self.log_std).exp()
        # features that are all 0 get no noise
        floor = torch.finfo(variance.dtype).tiny
        return DiagonalGaussian(self.mean, 0.5 * variance.clamp_min(floor).log())

    def noise(self, weights: Float[Tensor, "*lead F A"]) -> Float[Tensor, "*lead A"]:
        """Noise for the samples of `gaussian`, from standard normal weights.

        Weights (F, A) are shared by all rows; those with leading dimensions are one set a row.
        """
        self._check()
        if weights.shape not in (self.log_std.shape, (*self.mean.shape[:-1], *self.log_std.shape)):
            raise ValueError(
                f"weights: want the shape {tuple(self.log_std.shape)}, with the leading dimensions "
                f"of mean or none, got {tuple(weights.shape)}"
            )
        scaled = self.log_std.exp() * weights
        noise = (self.features.unsqueeze(-2) @ scaled).squeeze(-2)
        return noise * (-self.gaussian().log_std).exp()

    def _check(self) -> None:
        want = (self.features.shape[-1], self.mean.shape[-1])
        if self.features.shape[:-1] != self.mean.shape[:-1] or self.log_std.shape != want:
            raise ValueError(
                f"mean, log_std and features: want the shapes (..., A), (F, A) and (..., F), got "
                f"{tuple(self.mean.shape)}, {tuple(self.log_std.shape)} and "
                f"{tuple(self.features.shape)}"
            )


class Categorical(NamedTuple):
    """One of K actions; `logits` need not be normalised, and -inf forbids an action."""

    logits: Float[Tensor, "*lead K"]

    @property
    def log_probs(self) -> Float[Tensor, "*lead K"]:
        """Normalised log probabilities."""
        return self.logits.log_softmax(-1)

    @property
    def probs(self) -> Float[Tensor, "*lead K"]:
        """Probabilities."""
        return self.logits.softmax(-1)

    @property
    def mode(self) -> Int[Tensor, "*lead"]:
        """The most probable action, of equals the first."""
        return _argmax(self.logits)

    def sample(self, noise: Float[Tensor, "*more K"]) -> Int[Tensor, "*more"]:
        """The largest of logits + noise, for noise of `gumbel_noise` (Maddison et al. 2014)."""
        _check_ends("noise", noise.shape, self.logits.shape)
        return _argmax(self.logits + noise)

    def log_prob(self, action: Int[Tensor, "*more"]) -> Float[Tensor, "*more"]:
        """Log probability of given actions, 0 to K - 1."""
        _check_ends("action", action.shape, self.logits.shape[:-1])
        choices = self.logits.shape[-1]
        _check_action(action, choices)
        log_probs = self.log_probs.expand(*action.shape, choices)
        return log_probs.gather(-1, action.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Float[Tensor, "*lead"]:
        """Entropy, in nats."""
        log_probs = self.log_probs
        return -(log_probs.exp() * _finite(log_probs)).sum(-1)

    def kl(self, other: Categorical) -> Float[Tensor, "*lead"]:
        """KL(self ‖ other), in nats; infinite where other forbids what self allows."""
        if other.logits.shape != self.logits.shape:
            raise ValueError(
                f"other: want the shape {tuple(self.logits.shape)}, got {tuple(other.logits.shape)}"
            )
        log_p, log_q = self.log_probs, other.log_probs
        p = log_p.exp()
        log_q = log_q.masked_fill((p == 0) & (log_q == -math.inf), 0)
        return (p * (_finite(log_p) - log_q)).sum(-1)


class MultiCategorical(NamedTuple):
    """Several independent categorical actions, as of `gymnasium.spaces.MultiDiscrete`."""

    logits: Float[Tensor, "*lead K"]
    """Those of all dimensions, one after the other: K is the sum of `sizes`."""
    sizes: Sequence[int]
    """The number of choices in each of D dimensions."""

    @property
    def mode(self) -> Int[Tensor, "*lead D"]:
        """The most probable action of each dimension."""
        return torch.stack([each.mode for each in self.each()], -1)

    def sample(self, noise: Float[Tensor, "*more K"]) -> Int[Tensor, "*more D"]:
        """In each dimension the largest of logits + noise, for noise of `gumbel_noise`."""
        _check_ends("noise", noise.shape, self.logits.shape)
        parts = noise.split([*self.sizes], -1)
        samples = [one.sample(part) for one, part in zip(self.each(), parts, strict=True)]
        return torch.stack(samples, -1)

    def log_prob(self, action: Int[Tensor, "*more D"]) -> Float[Tensor, "*more"]:
        """Log probability of the actions of all dimensions together."""
        _check_ends("action", action.shape, (*self.logits.shape[:-1], len(self.sizes)))
        columns = zip(self.each(), action.unbind(-1), strict=True)
        return torch.stack([one.log_prob(column) for one, column in columns]).sum(0)

    def entropy(self) -> Float[Tensor, "*lead"]:
        """Entropy, in nats."""
        return torch.stack([one.entropy() for one in self.each()]).sum(0)

    def kl(self, other: MultiCategorical) -> Float[Tensor, "*lead"]:
        """KL(self ‖ other), in nats."""
        if [*self.sizes] != [*other.sizes]:
            raise ValueError(f"other: want sizes {[*self.sizes]}, got {[*other.sizes]}")
        pairs = zip(self.each(), other.each(), strict=True)
        return torch.stack([one.kl(another) for one, another in pairs]).sum(0)

    def each(self) -> list[Categorical]:
        """The distribution of each dimension."""
        sizes = [*self.sizes]
        if not sizes or min(sizes) < 1 or sum(sizes) != self.logits.shape[-1]:
            raise ValueError(
                f"sizes: want positive numbers that sum to the {self.logits.shape[-1]} logits, "
                f"got {sizes}"
            )
        return [Categorical(part) for part in self.logits.split(sizes, -1)]


Distribution = DiagonalGaussian | Categorical | MultiCategorical
"""What a policy's network gives: the distribution of an action, before the box cuts it."""


def rows_of(distribution: Distribution, rows: Tensor | slice) -> Distribution:
    """The distribution of some of B rows."""
    if isinstance(distribution, DiagonalGaussian):
        mean, log_std = distribution
        return DiagonalGaussian(mean[rows], log_std[rows] if log_std.ndim == mean.ndim else log_std)
    return distribution._replace(logits=distribution.logits[rows])


def kl(old: Distribution, new: Distribution) -> Float[Tensor, "*B"]:
    """KL(old ‖ new) of two distributions of one kind, in nats."""
    return cast(Any, old).kl(new)


def gumbel_noise(
    shape: Sequence[int], *, generator: Generator, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Standard Gumbel noise, -log E for exponential E, on the generator's device."""
    noise = torch.empty([*shape], dtype=dtype, device=generator.device)
    return noise.exponential_(generator=generator).log_().neg_()  # torch draws E > 0


class TwoHot(NamedTuple):
    """A scalar as a distribution over K bins (Hafner et al. 2023, DreamerV3).

    With `symlog`, `bins` are in symlog space, such as `torch.linspace(-20, 20, 255)`: targets are
    transformed by symlog, and the mean is transformed back by symexp. Without, bins are values,
    and may be spaced by symexp of equal steps.
    """

    logits: Float[Tensor, "*lead K"]
    bins: Float[Tensor, " K"]
    symlog: bool = False

    @property
    def mean(self) -> Float[Tensor, "*lead"]:
        """The expected bin, transformed back if `symlog`."""
        _check_support("bins", self.bins, self.logits)
        mean = self.logits.softmax(-1) @ self.bins
        return symexp(mean) if self.symlog else mean

    def log_prob(self, value: Float[Tensor, "*more"]) -> Float[Tensor, "*more"]:
        """Minus the cross entropy of the two-hot encoding of the value, as the critic's loss.

        Values beyond the first or the last bin count as that bin.
        """
        _check_support("bins", self.bins, self.logits)
        _check_ends("value", value.shape, self.logits.shape[:-1])
        target = two_hot(symlog(value) if self.symlog else value, self.bins)
        return (target * self.logits.log_softmax(-1)).sum(-1)


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): compresses large numbers of both signs."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp|x| - 1), the inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


def two_hot(value: Float[Tensor, "*lead"], bins: Float[Tensor, " K"]) -> Float[Tensor, "*lead K"]:
    """Weights of the two bins next to a value whose weighted sum is the value.

    Values beyond the first or the last bin get that bin. Raises ValueError as
    `categorical_projection`.
    """
    value = value.unsqueeze(-1)
    return categorical_projection(value, torch.ones_like(value), bins)


def categorical_projection(
    atoms: Float[Tensor, "*lead M"], probs: Float[Tensor, "*lead M"], support: Float[Tensor, " K"]
) -> Float[Tensor, "*lead K"]:
    """The projection of C51: a distribution on atoms onto a support (Bellemare et al. 2017).

    Each atom's probability is shared by its two neighbours in the support in proportion to their
    closeness, so the mean stays, but for atoms outside, which go to the end that they are beyond.

    Args:
        atoms: where the probability lies, such as r + γ z.
        probs: how much.
        support: onto what it is projected, in increasing order; steps need not be equal.

    Raises:
        ValueError: atoms and probs of different shapes, or a support that does not increase or
            has fewer than two atoms (its values are checked on the CPU only).
    """
    if atoms.shape != probs.shape or atoms.ndim < 1:
        raise ValueError(
            f"probs: want the shape {tuple(atoms.shape)} of atoms, got {tuple(probs.shape)}"
        )
    _check_support("support", support)
    last = len(support) - 1
    atoms = atoms.clamp(support[0], support[-1])
    upper = torch.bucketize(atoms, support).clamp(1, last)
    lower = upper - 1
    left = support[lower]
    share = (atoms - left) / (support[upper] - left)
    result = torch.zeros((*atoms.shape[:-1], last + 1), dtype=share.dtype, device=share.device)
    to_upper = probs * share
    return result.scatter_add(-1, lower, probs - to_upper).scatter_add(-1, upper, to_upper)


def quantile_midpoints(
    count: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Float[Tensor, " N"]:
    """(2i + 1) / 2N for i < N, the levels of N quantiles (Dabney et al. 2018, QR-DQN).

    Raises:
        ValueError: count below one.
    """
    if count < 1:
        raise ValueError(f"count: must be at least 1, got {count}")
    return (torch.arange(count, dtype=dtype, device=device) + 0.5) / count


def _finite(log_probs: Tensor) -> Tensor:
    """0 in place of -inf, which times a probability of 0 would be NaN."""
    return log_probs.masked_fill(log_probs == -math.inf, 0)


def _argmax(logits: Tensor) -> Tensor:
    best, index = logits.max(-1)
    if best.is_cpu and not bool((best > -math.inf).all()):
        raise ValueError("logits: a row has NaN or no action that is allowed")
    return index


def _check_action(action: Tensor, choices: int) -> None:
    if action.is_floating_point() or action.dtype == torch.bool:
        raise ValueError(f"action: must be integers, got {action.dtype}")
    if action.is_cpu and action.numel():
        least, most = (int(x) for x in action.aminmax())
        if least < 0 or most >= choices:
            raise ValueError(f"action: must be in 0..{choices - 1}, got {least} to {most}")


def _check_gaussian(mean: Tensor, log_std: Tensor) -> None:
    dims = log_std.ndim
    if not 1 <= dims <= mean.ndim or mean.shape[mean.ndim - dims :] != log_std.shape:
        raise ValueError(
            f"log_std: want the last dimensions of mean, {tuple(mean.shape)}, "
            f"got {tuple(log_std.shape)}"
        )


def _check_ends(name: str, shape: Sequence[int], want: Sequence[int]) -> None:
    """The last dimensions must be as wanted; there may be more in front."""
    if tuple(shape[len(shape) - len(want) :]) != tuple(want) or len(shape) < len(want):
        raise ValueError(
            f"{name}: want the shape {tuple(want)}, or more dimensions in front, got {tuple(shape)}"
        )


def _check_support(name: str, support: Tensor, logits: Tensor | None = None) -> None:
    if support.ndim != 1 or len(support) < 2:
        raise ValueError(f"{name}: want a vector of two or more, got {tuple(support.shape)}")
    if logits is not None and logits.shape[-1:] != support.shape:
        raise ValueError(
            f"{name}: want one for each of {logits.shape[-1]} logits, got {len(support)}"
        )
    if support.is_cpu and not bool((support[1:] > support[:-1]).all()):
        raise ValueError(f"{name}: must increase, without NaN")
