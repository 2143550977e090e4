"""Linear bandits: the mean reward of an arm is linear in its features.

R independent runs are played at once. In each step `choose` picks an arm in each run, given the
features of the arms, and `observe` takes their rewards. Lattimore and Szepesvári 2020, "Bandit
algorithms", part V.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypedDict, Unpack

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.tabular._bandit_common import (
    apply,
    argmax_random_ties,
    at_least_one,
    check_rewards,
    draw_rewards,
    normal,
    positive,
)


class Regression(TypedDict, total=False):
    """Settings of the ridge regression of a `LinearBandit`."""

    noise: float
    ridge: float
    device: torch.device | str


class LinearBandit(ABC):
    """Ridge regression of rewards r = <θ, x> + noise on features x (F,), θ unknown, in R runs.

    `covariance` is V⁻¹ (R, F, F) with V = λ I + Σ x xᵀ, `estimate` is θ̂ = V⁻¹ Σ x r (R, F).
    A subclass defines the `index` by which arms are chosen. Raises ValueError for runs or features
    below 1, or a λ or noise that is not positive.
    """

    def __init__(
        self,
        runs: int,
        features: int,
        *,
        noise: float = 1.0,
        ridge: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        at_least_one(runs=runs, features=features)
        positive(noise=noise, ridge=ridge)
        eye = torch.eye(features, dtype=torch.float64, device=device)
        self.covariance = (eye / ridge).repeat(runs, 1, 1)
        self.moment = self.covariance.new_zeros(runs, features)
        self.growth = self.covariance.new_zeros(runs)
        """ln(det V / det λ I), (R,)."""
        self.noise = noise
        """Std of a reward (its sub-Gaussian constant)."""
        self.ridge = ridge
        """λ."""

    @property
    def estimate(self) -> Float[Tensor, "R F"]:
        """θ̂."""
        return apply(self.covariance, self.moment)

    @abstractmethod
    def index(
        self, features: Float[Tensor, "R K F"], *, generator: Generator
    ) -> Float[Tensor, "R K"]:
        """An index of each arm; the arm with the largest is chosen."""

    def choose(self, features: Float[Tensor, "R K F"], *, generator: Generator) -> Tensor:
        """The arm (R,) in 0..K-1 with the largest index in each run; ties are broken at random.

        Raises ValueError for features of another shape or not finite.
        """
        runs, size = self.moment.shape
        wrong = features.ndim != 3 or (len(features), features.shape[-1]) != (runs, size)
        if wrong or not bool(features.isfinite().all()):
            raise ValueError(
                f"features must be finite, (R, K, F) with R = {runs} and F = {size}, "
                f"got {tuple(features.shape)}"
            )
        return argmax_random_ties(
            self.index(features.to(self.moment), generator=generator), generator
        )

    def observe(self, features: Float[Tensor, "R F"], rewards: Float[Tensor, " R"]) -> None:
        """Learn from the rewards of the arms that have these features.

        Raises ValueError for other shapes, or numbers that are not finite.
        """
        runs, size = self.moment.shape
        if features.shape != (runs, size) or not bool(features.isfinite().all()):
            raise ValueError(
                f"features must be finite, (R, F) = ({runs}, {size}), got {tuple(features.shape)}"
            )
        check_rewards(rewards, runs, bounded=False)
        x = features.to(self.moment)
        along = apply(self.covariance, x)  # V⁻¹ x
        scale = 1 + (x * along).sum(-1)
        self.covariance -= along[:, :, None] * (along / scale[:, None])[:, None]
        self.moment += x * rewards.to(x)[:, None]
        self.growth += scale.log()


class LinUCB(LinearBandit):
    """Upper confidence bounds: the index is <θ̂, x> + radius |x|_V⁻¹.

    That is the greatest <θ, x> in the ellipsoid |θ - θ̂|_V <= radius. The radius is `alpha` if
    given, as in Li et al. 2010; else that of Abbasi-Yadkori et al. 2011 (theorem 2, "OFUL"), for
    which the ellipsoid contains θ at all times with probability 1 - δ if |θ| <= `norm`. Raises
    ValueError for a δ outside (0, 1) or a norm that is not positive.
    """

    def __init__(
        self,
        runs: int,
        features: int,
        *,
        norm: float = 1.0,
        delta: float = 0.05,
        alpha: float | None = None,
        **regression: Unpack[Regression],
    ) -> None:
        super().__init__(runs, features, **regression)
        positive(norm=norm, alpha=1.0 if alpha is None else alpha)
        if not 0 < delta < 1:
            raise ValueError(f"delta must lie in (0, 1), got {delta!r}")
        self.norm, self.delta, self.alpha = norm, delta, alpha

    @property
    def radius(self) -> Float[Tensor, " R"]:
        """noise √(ln(det V / det λ I) + 2 ln(1/δ)) + √λ norm, or `alpha`."""
        if self.alpha is not None:
            return torch.full_like(self.growth, self.alpha)
        width = (self.growth - 2 * math.log(self.delta)).sqrt()
        return self.noise * width + math.sqrt(self.ridge) * self.norm

    def index(
        self, features: Float[Tensor, "R K F"], *, generator: Generator
    ) -> Float[Tensor, "R K"]:
        """The upper confidence bound of each arm's mean."""
        spread = (features @ self.covariance * features).sum(-1).clamp(min=0).sqrt()
        return apply(features, self.estimate) + self.radius[:, None] * spread


class LinearThompson(LinearBandit):
    """Thompson sampling: the best arm for a θ drawn from the posterior Normal(θ̂, noise² V⁻¹).

    The prior is Normal(0, noise² / λ I). `widen` multiplies the posterior's standard deviation:
    Agrawal and Goyal 2013 use √(9 F ln(T/δ)) to bound regret in the worst case. Raises ValueError
    for a `widen` that is not positive.
    """

    def __init__(
        self,
        runs: int,
        features: int,
        *,
        widen: float = 1.0,
        **regression: Unpack[Regression],
    ) -> None:
        super().__init__(runs, features, **regression)
        positive(widen=widen)
        self.widen = widen

    def draw(self, *, generator: Generator) -> Float[Tensor, "R F"]:
        """A θ for each run, drawn from the posterior."""
        root = torch.linalg.cholesky(self.covariance)
        noise = apply(root, normal(self.moment, generator))
        return self.estimate + self.widen * self.noise * noise

    def index(
        self, features: Float[Tensor, "R K F"], *, generator: Generator
    ) -> Float[Tensor, "R K"]:
        """The mean reward of each arm for the θ drawn."""
        return apply(features, self.draw(generator=generator))


def linear_regret(
    bandit: LinearBandit,
    theta: Float[Tensor, "*R F"],
    features: Callable[[Generator], Float[Tensor, "R K F"]],
    *,
    steps: int,
    generator: Generator,
) -> Float[Tensor, "R T"]:
    """Cumulative pseudo-regret Σ (max <θ, x> - <θ, chosen x>) after each of T = `steps` plays.

    `features` draws the features of all arms before each play. Rewards are normal with mean <θ, x>
    and std `bandit.noise`. Raises ValueError for a θ of another shape.
    """
    runs, size = bandit.moment.shape
    if theta.shape not in ((size,), (runs, size)):
        raise ValueError(
            f"theta must be (F,) = ({size},) or (R, F) = ({runs}, {size}), got {tuple(theta.shape)}"
        )
    theta = theta.to(bandit.moment).expand(runs, size)
    lost = theta.new_empty(steps, runs)
    every = torch.arange(runs, device=theta.device)
    for t in range(steps):
        offered = features(generator).to(theta)
        chosen = bandit.choose(offered, generator=generator)
        means = apply(offered, theta)
        mean = means[every, chosen]
        lost[t] = means.amax(1) - mean
        bandit.observe(offered[every, chosen], draw_rewards(mean, bandit.noise, generator))
    return lost.cumsum_(0).T
