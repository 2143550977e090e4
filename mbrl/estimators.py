"""Monte Carlo estimates of expectations, entropies, divergences and gradients.

Pure functions. Samples are the first dimension, N; an estimate is a mean over them, and what comes
after is estimated separately. Probabilities and densities of samples are given as logarithms, which
do not underflow. Every function raises ValueError for shapes that do not fit; NaN gives NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.checks import same_shape

# Importance sampling.


def importance_sampling(
    value: Float[Tensor, " N *D"],
    log_p: Float[Tensor, " N *D"],
    log_q: Float[Tensor, " N *D"],
    *,
    normalised: bool = False,
) -> Float[Tensor, "*D"]:
    """E_p[f] from samples of q: the mean of f p / q (Owen 2013, chapter 9).

    Args:
        value: f(x_i) for x_i drawn from q.
        log_p: log p(x_i); where `normalised` it need be known up to a constant only, as log_q.
        log_q: log q(x_i).
        normalised: divide by the mean weight: biased by O(1 / N), often of less variance, and never
            outside the range of the values.

    Raises:
        ValueError: shapes; no samples; q(x) = 0 at a sample, which q cannot have drawn; with
            `normalised`, p = 0 at all samples.
    """
    _check_samples(value=value, log_p=log_p, log_q=log_q)
    _check_drawn(log_p, log_q)
    log_weight = log_p - log_q
    if not normalised:
        return (log_weight.exp() * value).mean(0)
    if bool((log_weight == -math.inf).all(0).any()):
        raise ValueError("log_p: is -inf at all samples, so the weights cannot be normalised")
    return (log_weight.softmax(0) * value).sum(0)


def per_decision_importance_sampling(
    reward: Float[Tensor, " T N"],
    log_p: Float[Tensor, " T N"],
    log_q: Float[Tensor, " T N"],
    *,
    discount: float,
) -> Float[Tensor, ""]:
    """The expected return of policy p from N trajectories of policy q (Precup et al. 2000).

    The mean of Σ_t γ^t r_t Π_{k<=t} p_k / q_k: each reward has the ratios of the actions before it
    alone, so the variance is less than with those of the whole trajectory.

    Args:
        reward: r_t; 0 behind the end of a trajectory.
        log_p: log p(a_t | s_t); behind the end equal to log_q.
        log_q: log q(a_t | s_t).
        discount: γ.

    Raises:
        ValueError: shapes; no samples; a discount outside [0, 1]; q = 0 for an action taken.
    """
    if reward.ndim != 2 or not reward.numel():
        raise ValueError(f"reward: want the shape (T, N), neither 0, got {tuple(reward.shape)}")
    _check_samples(reward=reward, log_p=log_p, log_q=log_q)
    _check_drawn(log_p, log_q)
    if not 0 <= discount <= 1:
        raise ValueError(f"discount: must be in [0, 1], got {discount!r}")
    steps = torch.arange(len(reward), dtype=reward.dtype, device=reward.device)
    weighted = (log_p - log_q).cumsum(0).exp() * reward
    return (discount ** steps.unsqueeze(-1) * weighted).sum(0).mean()


def effective_sample_size(log_weight: Float[Tensor, " N *D"]) -> Float[Tensor, "*D"]:
    """1 / Σ w̄² for normalised weights w̄, between 1 and N (Kong 1992).

    Raises:
        ValueError: no samples; all weights 0.
    """
    _check_samples(log_weight=log_weight)
    if bool((log_weight == -math.inf).all(0).any()):
        raise ValueError("log_weight: all weights are 0")
    return 1 / log_weight.softmax(0).square().sum(0)


def importance_variance(
    value: Float[Tensor, " K"], p: Float[Tensor, " K"], q: Float[Tensor, " K"]
) -> Float[Tensor, ""]:
    """The variance of f p / q for one sample of q: E_p[f² p / q] - (E_p f)².

    The exact one, of distributions over K points; that of a mean of N samples is N times less.

    Raises:
        ValueError: shapes; p or q not probabilities; q = 0 where p > 0, for which importance
            sampling is biased.
    """
    check_support(p, q)
    if value.shape != p.shape:
        raise ValueError(f"value: want the shape {tuple(p.shape)} of p, got {tuple(value.shape)}")
    ratio = torch.where(p > 0, p / torch.where(p > 0, q, 1), 0)
    return (p * value.square() * ratio).sum() - (p * value).sum().square()


def check_support(p: Float[Tensor, " K"], q: Float[Tensor, " K"]) -> None:
    """Check that q can draw all that p can: importance sampling is biased otherwise.

    Raises:
        ValueError: p or q not probabilities over the same K points; q = 0 where p > 0.
    """
    if p.ndim != 1 or p.shape != q.shape:
        raise ValueError(
            f"p and q: want vectors of one size, got {tuple(p.shape)} and {tuple(q.shape)}"
        )
    _check_probs(p=p, q=q)
    missed = (q == 0) & (p > 0)
    if bool(missed.any()):
        k = int(missed.nonzero()[0])
        raise ValueError(f"q: is 0 at point {k}, where p is {float(p[k]):.3g}; want q > 0 there")


# Entropy and KL divergence.


def gaussian_entropy(std: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead"]:
    """Differential entropy of a diagonal Gaussian, in nats. ValueError for std <= 0 or NaN."""
    _check_std(std=std)
    return (std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def gaussian_kl(
    mean: Float[Tensor, "*lead D"],
    std: Float[Tensor, "*lead D"],
    other_mean: Float[Tensor, "*lead D"],
    other_std: Float[Tensor, "*lead D"],
) -> Float[Tensor, "*lead"]:
    """KL(N(mean, std²) ‖ N(other_mean, other_std²)), in nats; ValueError for std <= 0 or NaN."""
    same_shape(mean=mean, std=std, other_mean=other_mean, other_std=other_std)
    _check_std(std=std, other_std=other_std)
    log_ratio = (std / other_std).log()
    z = (mean - other_mean) / other_std
    return (0.5 * (torch.expm1(2 * log_ratio) + z.square()) - log_ratio).sum(-1)


def categorical_entropy(probs: Float[Tensor, "*lead K"]) -> Float[Tensor, "*lead"]:
    """-Σ p log p, in nats; ValueError for values that are not probabilities."""
    _check_probs(probs=probs)
    return torch.special.entr(probs).sum(-1)


def categorical_kl(
    probs: Float[Tensor, "*lead K"], other: Float[Tensor, "*lead K"]
) -> Float[Tensor, "*lead"]:
    """Σ p log(p / q), in nats; infinite where q = 0 and p > 0. ValueError for no probabilities."""
    same_shape(probs=probs, other=other)
    _check_probs(probs=probs, other=other)
    return (torch.special.xlogy(probs, probs) - torch.special.xlogy(probs, other)).sum(-1)


def monte_carlo_entropy(log_p: Float[Tensor, " N *D"]) -> Float[Tensor, "*D"]:
    """Entropy from samples of p: the mean of -log p(x_i), in nats."""
    _check_samples(log_p=log_p)
    return -log_p.mean(0)


Estimator = Literal["k1", "k3"]
"""The names of Schulman's estimators of the KL divergence."""


def monte_carlo_kl(
    log_p: Float[Tensor, " N *D"], log_q: Float[Tensor, " N *D"], *, estimator: Estimator = "k1"
) -> Float[Tensor, "*D"]:
    """KL(p ‖ q) from samples of p, in nats (Schulman 2020, "Approximating KL divergence").

    Both estimators are unbiased. With r = q / p, "k1" is the mean of -log r; "k3" that of
    (r - 1) - log r, which is never negative and varies less where p and q are close. "k3" needs
    q = 0 wherever p = 0.
    """
    _check_samples(log_p=log_p, log_q=log_q)
    if estimator not in get_args(Estimator):
        raise ValueError(f"estimator: must be one of k1, k3, got {estimator!r}")
    log_ratio = log_q - log_p
    if estimator == "k1":
        return -log_ratio.mean(0)
    return (torch.expm1(log_ratio) - log_ratio).mean(0)


# Gradients of an expectation.


class GaussianGradient(NamedTuple):
    """Gradients of E[f(x)] for x ~ N(mean, std²), one estimate from each sample.

    The mean over samples is the estimate; each row alone is unbiased.
    """

    mean: Float[Tensor, " N D"]
    std: Float[Tensor, " N D"]


def score_function_gradient(
    function: Callable[[Tensor], Tensor],
    mean: Float[Tensor, " D"],
    std: Float[Tensor, " D"],
    noise: Float[Tensor, " N D"],
    *,
    baseline: float | Float[Tensor, " N"] = 0.0,
) -> GaussianGradient:
    """(f(x) - b) ∇ log p(x), which needs no derivative of f (REINFORCE; Williams 1992).

    Args:
        function: f, (N, D) -> (N,).
        mean: of the Gaussian.
        std: of the Gaussian.
        noise: standard normal; x = mean + std · noise.
        baseline: b, which changes the variance alone, unless it depends on the row's own sample.

    Raises:
        ValueError: shapes, also of what `function` returns; std <= 0.
    """
    _check_gaussian(mean, std, noise)
    with torch.no_grad():
        value = function(mean + std * noise)
        _check_returned(value, noise)
        if isinstance(baseline, Tensor) and baseline.shape not in ((), value.shape):
            raise ValueError(
                f"baseline: want a number or the shape {tuple(value.shape)}, "
                f"got {tuple(baseline.shape)}"
            )
        weight = (value - baseline).unsqueeze(-1)
        return GaussianGradient(weight * noise / std, weight * (noise.square() - 1) / std)


def pathwise_gradient(
    function: Callable[[Tensor], Tensor],
    mean: Float[Tensor, " D"],
    std: Float[Tensor, " D"],
    noise: Float[Tensor, " N D"],
) -> GaussianGradient:
    """∇ f(mean + std · noise), the reparameterisation trick (Kingma and Welling 2014).

    Args:
        function: f, (N, D) -> (N,), differentiable; rows must not depend on one another.
        mean: of the Gaussian.
        std: of the Gaussian.
        noise: standard normal.

    Raises:
        ValueError: shapes, also of what `function` returns; std <= 0; a function without gradient.
    """
    _check_gaussian(mean, std, noise)
    with torch.enable_grad():
        x = (mean + std * noise).detach().requires_grad_()
        value = function(x)
        _check_returned(value, noise)
        if not value.requires_grad:
            raise ValueError("function: has no gradient; use score_function_gradient")
        (slope,) = torch.autograd.grad(value.sum(), x)
    return GaussianGradient(slope, slope * noise)


def optimal_baseline(
    value: Float[Tensor, " N"], score: Float[Tensor, " N D"]
) -> Float[Tensor, " D"]:
    """E[g² f] / E[g²] for the score g, of least variance (Greensmith et al. 2004).

    One baseline for each of D parameters. Computed from the samples that it is used on, it makes
    the gradient biased by O(1 / N). 0 where the score is 0 in all samples.
    """
    if score.ndim != 2 or value.shape != score.shape[:1] or not len(value):
        raise ValueError(
            f"value and score: want the shapes (N,) and (N, D) with N >= 1, "
            f"got {tuple(value.shape)} and {tuple(score.shape)}"
        )
    square = score.square()
    total = square.sum(0)
    weighted = (square * value.unsqueeze(-1)).sum(0)
    return weighted / torch.where(total == 0, 1, total)


def _check_samples(**arrays: Tensor) -> None:
    same_shape(**arrays)
    name, first = next(iter(arrays.items()))
    if first.ndim < 1 or len(first) < 1:
        raise ValueError(f"{name}: want one or more samples, got {tuple(first.shape)}")


def _check_drawn(log_p: Tensor, log_q: Tensor) -> None:
    for name, log_prob in (("log_p", log_p), ("log_q", log_q)):
        if bool((log_prob == math.inf).any()):
            raise ValueError(f"{name}: is infinite at a sample")
    if bool((log_q == -math.inf).any()):
        raise ValueError("log_q: is -inf at a sample, which q cannot have drawn; want q > 0")


def _check_std(**stds: Tensor) -> None:
    for name, std in stds.items():
        if not bool((std > 0).all()):
            raise ValueError(f"{name}: must be above 0, without NaN")


def _check_probs(**arrays: Tensor) -> None:
    for name, probs in arrays.items():
        rounding = 10 * probs.shape[-1] * torch.finfo(probs.dtype).eps
        total = probs.sum(-1)
        if not bool((probs >= 0).all()) or not bool(((total - 1).abs() <= rounding).all()):
            raise ValueError(f"{name}: must be probabilities that sum to 1")


def _check_gaussian(mean: Tensor, std: Tensor, noise: Tensor) -> None:
    if mean.ndim != 1 or std.shape != mean.shape or noise.shape[1:] != mean.shape:
        raise ValueError(
            f"mean, std and noise: want the shapes (D,), (D,) and (N, D), "
            f"got {tuple(mean.shape)}, {tuple(std.shape)} and {tuple(noise.shape)}"
        )
    _check_samples(noise=noise)
    _check_std(std=std)


def _check_returned(value: Tensor, noise: Tensor) -> None:
    if value.shape != noise.shape[:1]:
        raise ValueError(
            f"function: must return the shape {tuple(noise.shape[:1])}, got {tuple(value.shape)}"
        )
