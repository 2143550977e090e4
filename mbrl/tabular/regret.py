"""Regret curves: means over independent runs, pooled over seeds, and their slopes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.tabular.bandits import Bandit, regret

_PART = 100
"""Plays between two calls of a callback."""


class RegretCurve(NamedTuple):
    """Mean cumulative regret over independent runs, and its standard error, after some plays."""

    plays: list[int]
    mean: list[float]
    error: list[float]

    @classmethod
    def of(cls, lost: Float[Tensor, "R T"], *, points: int = 60) -> RegretCurve:
        """The curve of cumulative regret, at up to `points` plays evenly spaced in ln t."""
        runs, plays = lost.shape
        at = np.unique(np.geomspace(1, plays, points).round().astype(int))
        kept = lost[:, torch.as_tensor(at - 1)]
        error = kept.std(0) / math.sqrt(runs)
        return cls(at.tolist(), kept.mean(0).tolist(), error.tolist())

    @classmethod
    def pooled(cls, curves: Sequence[RegretCurve]) -> RegretCurve:
        """The curve over the runs of all curves, which have equally many and are independent.

        Raises ValueError for no curves, or curves at different plays.
        """
        if not curves or any(curve.plays != curves[0].plays for curve in curves):
            raise ValueError("curves must be one or more, all at the same plays")
        error = np.linalg.norm([curve.error for curve in curves], axis=0) / len(curves)
        mean = np.mean([curve.mean for curve in curves], 0)
        return cls(curves[0].plays, mean.tolist(), error.tolist())

    @property
    def late_slope(self) -> float:
        """Slope of mean regret against ln t, over the last factor of 10 in plays."""
        at, mean = np.array(self.plays), np.array(self.mean)
        early = int(np.abs(at - at[-1] / 10).argmin())
        return float((mean[-1] - mean[early]) / math.log(at[-1] / at[early]))


def regret_curve(
    bandit: Bandit,
    means: Float[Tensor, "*R K"],
    *,
    plays: int,
    generator: Generator,
    callback: Callable[[], None] = lambda: None,
) -> RegretCurve:
    """The curve of `bandits.regret` for Bernoulli rewards.

    `callback` is called before every 100 plays; it may raise an exception to stop. Raises what
    `regret` raises.
    """
    parts: list[Tensor] = []
    for done in range(0, plays, _PART):
        callback()
        part = regret(bandit, means, steps=min(_PART, plays - done), generator=generator)
        parts.append(parts[-1][:, -1:] + part if parts else part)
    return RegretCurve.of(torch.cat(parts, 1))


def featureless_regret(
    bandit: Bandit,
    theta: Float[Tensor, "R F"],
    features: Callable[[Generator], Float[Tensor, "R K F"]],
    *,
    steps: int,
    noise: float,
    bound: float,
    generator: Generator,
) -> Float[Tensor, "R T"]:
    """Like `linear_bandits.linear_regret`, for a bandit that knows an arm's index but no features.

    Args:
        bandit: R runs of K arms.
        theta: θ; the mean reward of an arm with features x is <θ, x>.
        features: draws the features x of all arms before each play.
        steps: T, the number of plays.
        noise: std of the rewards, which are normal.
        bound: the bandit observes rewards as (r + bound) / (2 bound), clipped to [0, 1].
        generator: random stream of all draws.
    """
    lost = []
    for _ in range(steps):
        means = (features(generator) @ theta[..., None])[..., 0]  # (R, K)
        arm = bandit.choose(generator=generator)
        mean = means.gather(1, arm[:, None])[:, 0]
        lost.append(means.amax(1) - mean)
        reward = mean + noise * torch.randn(len(mean), generator=generator)
        bandit.observe(arm, ((reward + bound) / (2 * bound)).clamp(0, 1))
    return torch.stack(lost, 1).cumsum(1)
