"""Intervals with a guaranteed share of targets inside, whatever the model's distribution."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from mbrl.uncertainty._common import check, same_shape
from mbrl.uncertainty.members import spread


def conformal_factor(
    mean: Float[Tensor, "E *lead D"],
    std: Float[Tensor, "E *lead D"],
    target: Float[Tensor, "*lead D"],
    *,
    alpha: float,
) -> Float[Tensor, " D"]:
    """Half-width of each dimension's interval of coverage 1 - alpha, in predictive stds.

    Split conformal prediction (Vovk et al. 2005; Romano et al. 2019) with normalised scores
    |y - μ| / σ, where μ and σ² are the mean and variance of the mixture: the
    ⌈(n + 1)(1 - alpha)⌉-th smallest of n held-out scores. A fresh target, exchangeable with these,
    is inside `conformal_interval` with a chance of at least 1 - alpha, and less than 1 / (n + 1)
    more if no scores tie. That is for each dimension separately, and on average over inputs and
    held-out data. Successive steps of one episode are not exchangeable with those of another.

    Raises:
        ValueError: wrong shapes, NaN, members that agree on a point (a predictive std of 0), alpha
            outside (0, 1), or too few targets for alpha.
    """
    check(mean, std, target)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: want a share between 0 and 1, got {alpha}")
    centre, width = _moments(mean, std)
    if not bool((width > 0).all()):
        raise ValueError("std: is 0 in some place where members agree; want a positive one")
    scores = ((target - centre).abs() / width).reshape(-1, mean.shape[-1])
    count = len(scores)
    # rounded, because (n + 1)(1 - alpha) may lie just above an integer that it equals
    rank = max(math.ceil(round((count + 1) * (1 - alpha), 9)), 1)
    if rank > count:
        least = math.ceil(round(1 / alpha - 1, 9))
        raise ValueError(f"target: alpha {alpha} needs at least {least} targets, got {count}")
    return scores.kthvalue(rank, dim=0).values


def conformal_interval(
    mean: Float[Tensor, "E *lead D"],
    std: Float[Tensor, "E *lead D"],
    factor: Float[Tensor, " D"],
) -> tuple[Float[Tensor, "*lead D"], Float[Tensor, "*lead D"]]:
    """Low and high ends of the intervals whose `conformal_factor` is known.

    Raises ValueError for shapes that differ.
    """
    same_shape(mean, std)
    if factor.shape != mean.shape[-1:]:
        raise ValueError(f"factor: want shape {tuple(mean.shape[-1:])}, got {tuple(factor.shape)}")
    centre, width = _moments(mean, std)
    return centre - factor * width, centre + factor * width


def _moments(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    return mean.mean(0), spread(mean, std).total.sqrt()
