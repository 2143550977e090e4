"""Bandits: explore one decision, where the regret of doing so is known.

Every bandit plays R independent runs of K arms at once: `choose` an arm in each, then `observe`
what it paid. What is chosen maximises the `index` of the algorithm, ties broken at random; an
algorithm is its index. Lattimore and Szepesvári 2020, "Bandit algorithms", tells of all of them.

Counts and sums are float64. Rewards outside [0, 1] are refused where the algorithm rests on
that range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from mbrl.types import Gaussian

# Regret, and what theory says of it.


def regret(
    bandit: Bandit,
    means: Float[Tensor, "*R K"],
    *,
    steps: int,
    noise: float | None = None,
    generator: Generator,
) -> Float[Tensor, "R T"]:
    """Cumulative pseudo-regret t · max mean - Σ mean of the arm chosen, over `steps` plays.

    `means` is (K,), or (R, K) for a problem of its own in each run. Rewards are Bernoulli, or
    Gaussian about the mean where `noise` gives their std. Raises ValueError for means of another
    shape, not finite, or outside [0, 1] for Bernoulli rewards.
    """
    runs, arms = bandit.counts.shape
    if means.shape not in ((arms,), (runs, arms)) or not bool(means.isfinite().all()):
        raise ValueError(
            f"means must be finite, (K,) = ({arms},) or (R, K) = ({runs}, {arms}), "
            f"got {tuple(means.shape)}"
        )
    if noise is None and not bool(((means >= 0) & (means <= 1)).all()):
        raise ValueError("means must lie in [0, 1] for Bernoulli rewards (no `noise`)")
    means = means.to(bandit.counts).expand(runs, arms)
    gaps = means.amax(1, keepdim=True) - means
    lost = means.new_empty(steps, runs)
    for t in range(steps):
        chosen = bandit.choose(generator=generator)
        mean = means.gather(1, chosen[:, None])[:, 0]
        lost[t] = gaps.gather(1, chosen[:, None])[:, 0]
        bandit.observe(chosen, _paid(mean, noise, generator))
    return lost.cumsum_(0).T


def ucb1_bound(means: Sequence[float], steps: int) -> float:
    """8 Σ ln T / Δ + (1 + π²/3) Σ Δ, over the arms that fall short by Δ > 0.

    UCB1's expected regret never exceeds it, for rewards in [0, 1] (Auer et al. 2002, theorem 1).
    """
    gaps = [max(means) - mean for mean in means if mean < max(means)]
    return sum(8 * math.log(steps) / gap + (1 + math.pi**2 / 3) * gap for gap in gaps)


def lai_robbins(means: Sequence[float], *, noise: float | None = None) -> float:
    """Σ Δ / KL(arm, best arm): what regret grows by with ln T, at least, in the long run.

    For every algorithm whose regret is o(Tᵃ) for all a > 0 on every problem (Lai and Robbins
    1985); rewards are Bernoulli, or Gaussian with std `noise`.
    """
    best = max(means)

    def divergence(mean: float) -> float:
        if noise is not None:
            return (best - mean) ** 2 / (2 * noise**2)
        return float(bernoulli_kl(*torch.tensor([mean, best], dtype=torch.float64)))

    return sum((best - mean) / divergence(mean) for mean in means if mean < best)


def bernoulli_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(Bernoulli(p), Bernoulli(q)) in nats, any shapes that broadcast."""
    return torch.xlogy(p, p / q) + torch.xlogy(1 - p, (1 - p) / (1 - q))


# Arms without features.


class Bandit:
    """R runs of K arms, and how often (`counts`) and how well (`sums`) each has paid, (R, K).

    An algorithm is a subclass with an `index`. Raises ValueError for runs or arms below 1.
    """

    bounded = False
    """Whether rewards must lie in [0, 1]."""

    def __init__(self, runs: int, arms: int, *, device: torch.device | str = "cpu") -> None:
        _at_least_one(runs=runs, arms=arms)
        self.counts = torch.zeros(runs, arms, dtype=torch.float64, device=device)
        self.sums = torch.zeros_like(self.counts)
        self.steps = 0
        """Plays seen by each run."""

    @property
    def means(self) -> Float[Tensor, "R K"]:
        """What each arm has paid on average; 0 before its first play."""
        return self.sums / self.counts.clamp(min=1)

    def index(self, *, generator: Generator) -> Float[Tensor, "R K"]:
        """What the choice maximises."""
        raise NotImplementedError

    def choose(self, *, generator: Generator) -> Int[Tensor, " R"]:
        """An arm for each run."""
        return _any_best(self.index(generator=generator), generator)

    def observe(self, arms: Int[Tensor, " R"], rewards: Float[Tensor, " R"]) -> None:
        """What the arms chosen have paid.

        Raises ValueError for other shapes, arms out of range, rewards that are not finite, or
        outside [0, 1] where the algorithm is `bounded`.
        """
        runs, count = self.counts.shape
        if arms.shape != (runs,) or bool(((arms < 0) | (arms >= count)).any()):
            raise ValueError(f"arms must be (R,) = ({runs},) integers in 0..{count - 1}")
        _check_rewards(rewards, runs, self.bounded)
        at = arms[:, None]
        self.counts.scatter_add_(1, at, torch.ones_like(self.counts[:, :1]))
        self.sums.scatter_add_(1, at, rewards.to(self.sums)[:, None])
        self.steps += 1


class EpsilonGreedy(Bandit):
    """The best arm so far, or with probability ε any arm.

    `epsilon` is a number, or a function of the play t = 1, 2, ...; Auer et al. 2002 take
    ε_t = min(1, c K / (d² t)) with 0 < d <= the least gap and c > 5, whose regret is O(ln T). With
    a constant ε it is linear: a share ε of the plays pays the mean gap. Raises ValueError for an
    ε outside [0, 1].
    """

    def __init__(
        self,
        runs: int,
        arms: int,
        *,
        epsilon: float | Callable[[int], float],
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(runs, arms, device=device)
        self.epsilon = epsilon

    def index(self, *, generator: Generator) -> Float[Tensor, "R K"]:
        """The means; all the same in runs that explore."""
        epsilon = self.epsilon(self.steps + 1) if callable(self.epsilon) else self.epsilon
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon must lie in [0, 1], got {epsilon!r}")
        exploring = _uniform(self.counts[:, :1], generator) < epsilon
        return self.means.masked_fill_(exploring, 0.0)


class UCB1(Bandit):
    """Mean + √(2 ln t / n), after each arm has been played once (Auer et al. 2002)."""

    bounded = True

    def index(self, *, generator: Generator) -> Float[Tensor, "R K"]:
        """An upper confidence bound; infinite before an arm's first play."""
        width = (2 * math.log(max(self.steps, 1)) / self.counts).sqrt_()
        return (self.means + width).masked_fill_(self.counts == 0, math.inf)


class KLUCB(Bandit):
    """The greatest q with n KL(mean, q) <= ln t (Garivier and Cappé 2011, with c = 0).

    Asymptotically optimal for Bernoulli rewards: its regret's slope is Lai and Robbins's.
    """

    bounded = True

    def index(self, *, generator: Generator) -> Float[Tensor, "R K"]:
        """An upper confidence bound; infinite before an arm's first play."""
        level = math.log(max(self.steps, 1)) / self.counts
        return _kl_upper(self.means, level).masked_fill_(self.counts == 0, math.inf)


class Posterior(Protocol):
    """What is believed of the arms' means, given how often and how well each has paid.

    The arms are independent. `counts` and `sums` are (*lead, K).
    """

    bounded: ClassVar[bool]
    """Whether rewards must lie in [0, 1]."""

    def moments(self, counts: Tensor, sums: Tensor) -> Gaussian:
        """Mean and std, (*lead, K)."""
        ...

    def log_density(self, counts: Tensor, sums: Tensor, at: Float[Tensor, "*lead G"]) -> Tensor:
        """Of each arm's mean, at G values: (*lead, K, G)."""
        ...

    def draw(self, counts: Tensor, sums: Tensor, *, generator: Generator) -> Tensor:
        """A mean for each arm, (*lead, K)."""
        ...

    def information(self, mean: Tensor, other: Tensor) -> Tensor:
        """KL of a reward about `mean` from one about `other`, in nats."""
        ...


@dataclass(frozen=True)
class BetaBernoulli:
    """Bernoulli rewards, each arm's mean a priori Beta(alpha, beta).

    The posterior is Beta(alpha + successes, beta + failures).
    """

    alpha: float = 1.0
    beta: float = 1.0
    bounded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _positive(alpha=self.alpha, beta=self.beta)

    def moments(self, counts: Tensor, sums: Tensor) -> Gaussian:
        """Mean and std, (*lead, K)."""
        total = self.alpha + self.beta + counts
        mean = (self.alpha + sums) / total
        return Gaussian(mean, (mean * (1 - mean) / (total + 1)).sqrt())

    def log_density(self, counts: Tensor, sums: Tensor, at: Tensor) -> Tensor:
        """Of each arm's mean, at G values: (*lead, K, G)."""
        a, b = self.alpha + sums, self.beta + counts - sums
        scale = (a + b).lgamma() - a.lgamma() - b.lgamma()
        outside = (at <= 0) | (at >= 1)
        x = at.masked_fill(outside, 0.5)
        powers = torch.stack((a - 1, b - 1), -1) @ torch.stack((x.log(), (-x).log1p()), -2)
        return (scale[..., None] + powers).masked_fill(outside[..., None, :], -math.inf)

    def draw(self, counts: Tensor, sums: Tensor, *, generator: Generator) -> Tensor:
        """A mean for each arm, (*lead, K)."""
        a, b = self.alpha + sums, self.beta + counts - sums
        # torch.distributions would draw from the global stream.
        wins, losses = torch._standard_gamma(  # pyright: ignore[reportPrivateImportUsage]
            torch.stack((a, b)), generator=generator
        )
        return wins / (wins + losses)

    def information(self, mean: Tensor, other: Tensor) -> Tensor:
        """KL of Bernoulli rewards, in nats."""
        return bernoulli_kl(mean, other)


@dataclass(frozen=True)
class NormalNormal:
    """Normal rewards of known std `noise`, each arm's mean a priori Normal(mean, std²).

    The posterior is normal, of precision 1 / std² + n / noise².
    """

    mean: float = 0.0
    std: float = 1.0
    noise: float = 1.0
    bounded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _positive(std=self.std, noise=self.noise)

    def moments(self, counts: Tensor, sums: Tensor) -> Gaussian:
        """Mean and std, (*lead, K)."""
        precision = self.std**-2 + counts / self.noise**2
        mean = (self.mean / self.std**2 + sums / self.noise**2) / precision
        return Gaussian(mean, precision.rsqrt())

    def log_density(self, counts: Tensor, sums: Tensor, at: Tensor) -> Tensor:
        """Of each arm's mean, at G values: (*lead, K, G)."""
        mean, std = self.moments(counts, sums)
        z = (at[..., None, :] - mean[..., None]) / std[..., None]
        return -0.5 * z.square() - (std.log() + 0.5 * math.log(2 * math.pi))[..., None]

    def draw(self, counts: Tensor, sums: Tensor, *, generator: Generator) -> Tensor:
        """A mean for each arm, (*lead, K)."""
        mean, std = self.moments(counts, sums)
        return mean + std * _normal(mean, generator)

    def information(self, mean: Tensor, other: Tensor) -> Tensor:
        """KL of normal rewards, (mean - other)² / 2 noise²."""
        return (mean - other).square() / (2 * self.noise**2)


class Thompson(Bandit):
    """The arm that is best under means drawn from the posterior (Thompson 1933).

    Asymptotically optimal for Bernoulli rewards (Kaufmann et al. 2012): its regret's slope comes to
    that of Lai and Robbins, slowly and from below.
    """

    def __init__(
        self,
        runs: int,
        arms: int,
        *,
        posterior: Posterior | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(runs, arms, device=device)
        self.posterior = posterior or BetaBernoulli()
        self.bounded = self.posterior.bounded

    def index(self, *, generator: Generator) -> Float[Tensor, "R K"]:
        """Means drawn from the posterior."""
        return self.posterior.draw(self.counts, self.sums, generator=generator)


class InformationDirected(Bandit):
    """Pay the least squared regret for a nat about which arm is best (Russo and Van Roy 2014).

    What an arm's reward tells of the best arm A* is the mutual information of the two ("mutual":
    exact for Bernoulli rewards), or the variance of its mean given A* ("variance", which is
    cheaper and bounds the other from below, up to a constant). Both come from integrals over the
    posterior on `points` values, as in their algorithm 2.

    Raises ValueError for another `information`, or points below 1.
    """

    def __init__(
        self,
        runs: int,
        arms: int,
        *,
        posterior: Posterior | None = None,
        information: Literal["variance", "mutual"] = "variance",
        points: int = 128,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(runs, arms, device=device)
        _at_least_one(points=points)
        if information not in ("variance", "mutual"):
            raise ValueError(f"information must be variance or mutual, got {information!r}")
        self.posterior = posterior or BetaBernoulli()
        self.bounded = self.posterior.bounded
        self.information = information
        self.points = points

    def index(self, *, generator: Generator) -> Float[Tensor, "R K"]:
        """1 for the arm drawn from the mixture of two, 0 for the others."""
        mix = least_ratio(*self.prospects())
        first = _uniform(mix.share, generator) < mix.share
        arms = torch.where(first, mix.first, mix.second)
        return torch.nn.functional.one_hot(arms, self.counts.shape[1]).to(self.counts)

    def prospects(self) -> tuple[Float[Tensor, "R K"], Float[Tensor, "R K"]]:
        """Expected regret of each arm, and what its reward tells of the best one."""
        chance, given = best_arm(self.posterior, self.counts, self.sums, points=self.points)
        mean = (chance[..., None] * given).sum(1)  # as integrated, so that errors cancel below
        best = (chance * given.diagonal(dim1=-2, dim2=-1)).sum(-1, keepdim=True)
        if self.information == "variance":
            told = (given - mean[:, None]).square()
        else:
            told = self.posterior.information(given, mean[:, None]).clamp(min=0)
        return (best - mean).clamp(min=0), (chance[..., None] * told).sum(1)


class BestArm(NamedTuple):
    """What is believed of which arm is best, A*."""

    chance: Tensor  # (R, K), P(A* = a)
    given: Tensor  # (R, K, K), E[mean of k | A* = a] at [a, k]


def best_arm(posterior: Posterior, counts: Tensor, sums: Tensor, *, points: int) -> BestArm:
    """Integrals over the best arm's mean, by the midpoint rule on so many values a run.

    With f, F and Q the density, distribution and first partial moment of an arm's mean,
    P(A* = a) = ∫ f_a Π F_b over b ≠ a, and there arm k is worth Q_k / F_k.
    """
    mean, std = posterior.moments(counts, sums)
    # The best mean is all but surely no less than any arm's lower end, nor over the highest end.
    low, high = (mean - 6 * std).amax(-1, keepdim=True), (mean + 8 * std).amax(-1, keepdim=True)
    width = (high - low) / points
    x = low + width * (torch.arange(points, device=mean.device) + 0.5).to(mean)  # (R, G)
    mass = (posterior.log_density(counts, sums, x) + width[..., None].log()).exp()  # (R, K, G)
    mass = mass / mass.sum(-1, keepdim=True).clamp(min=1)  # of densities narrower than the values
    moment = mass * x[:, None]
    # Below the values lies what they leave over, at its mean; a value has half of itself below.
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
    """Two arms (...,), and the probability of the first."""

    first: Tensor
    second: Tensor
    share: Tensor


def least_ratio(cost: Float[Tensor, "*lead K"], gain: Float[Tensor, "*lead K"]) -> Mixture:
    """The distribution over arms with the least (expected cost)² / expected gain.

    Two arms are always enough (Russo and Van Roy 2014, proposition 6), and for two the ratio is
    convex in the share. Costs and gains are at least 0; where nothing is to be gained, the
    cheapest arm.
    """
    # Along the last two axes every pair: first arm, second arm.
    a, b = cost[..., :, None], cost[..., None, :]
    u, v = gain[..., :, None], gain[..., None, :]
    inner = b / (b - a) - 2 * v / (u - v)  # where the slope is 0
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
    hopeless = ~(gain > 0).any(-1)
    cheapest = cost.argmin(-1)
    return Mixture(
        torch.where(hopeless, cheapest, first), torch.where(hopeless, cheapest, second), share
    )


# Arms with features: the mean reward is linear in them.


class LinearBandit:
    """R runs of arms that pay <θ, features> + noise, θ (F,) unknown, by ridge regression.

    `covariance` is V⁻¹ (R, F, F) with V = λ I + Σ x xᵀ, `estimate` is θ̂ = V⁻¹ Σ x r (R, F).
    Raises ValueError for runs or features below 1, or a λ or noise that is not positive.
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
        _at_least_one(runs=runs, features=features)
        _positive(noise=noise, ridge=ridge)
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
        return _apply(self.covariance, self.moment)

    def index(
        self, features: Float[Tensor, "R K F"], *, generator: Generator
    ) -> Float[Tensor, "R K"]:
        """What the choice maximises."""
        raise NotImplementedError

    def choose(self, features: Float[Tensor, "R K F"], *, generator: Generator) -> Tensor:
        """An arm (R,) for each run, of the K whose features are given.

        Raises ValueError for features of another shape or not finite.
        """
        runs, size = self.moment.shape
        wrong = features.ndim != 3 or (len(features), features.shape[-1]) != (runs, size)
        if wrong or not bool(features.isfinite().all()):
            raise ValueError(
                f"features must be finite, (R, K, F) with R = {runs} and F = {size}, "
                f"got {tuple(features.shape)}"
            )
        return _any_best(self.index(features.to(self.moment), generator=generator), generator)

    def observe(self, features: Float[Tensor, "R F"], rewards: Float[Tensor, " R"]) -> None:
        """What the arms with these features have paid.

        Raises ValueError for other shapes, or numbers that are not finite.
        """
        runs, size = self.moment.shape
        if features.shape != (runs, size) or not bool(features.isfinite().all()):
            raise ValueError(
                f"features must be finite, (R, F) = ({runs}, {size}), got {tuple(features.shape)}"
            )
        _check_rewards(rewards, runs, bounded=False)
        x = features.to(self.moment)
        along = _apply(self.covariance, x)  # V⁻¹ x
        scale = 1 + (x * along).sum(-1)
        self.covariance -= along[:, :, None] * (along / scale[:, None])[:, None]
        self.moment += x * rewards.to(x)[:, None]
        self.growth += scale.log()


class LinUCB(LinearBandit):
    """The greatest <θ, x> over the ellipsoid |θ - θ̂|_V <= radius: <θ̂, x> + radius |x|_V⁻¹.

    The radius is that of Abbasi-Yadkori et al. 2011 (theorem 2, "OFUL"), with which the ellipsoid
    holds θ at all times with probability 1 - δ, given |θ| <= `norm`; or `alpha` where given, as in
    Li et al. 2010. Raises ValueError for a δ outside (0, 1) or a norm that is not positive.
    """

    def __init__(
        self,
        runs: int,
        features: int,
        *,
        noise: float = 1.0,
        ridge: float = 1.0,
        norm: float = 1.0,
        delta: float = 0.05,
        alpha: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(runs, features, noise=noise, ridge=ridge, device=device)
        _positive(norm=norm, alpha=1.0 if alpha is None else alpha)
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
        return _apply(features, self.estimate) + self.radius[:, None] * spread


class LinearThompson(LinearBandit):
    """The best arm under a θ drawn from Normal(θ̂, noise² V⁻¹).

    That is the posterior for the prior Normal(0, noise² / λ I). Agrawal and Goyal 2013 widen it to
    v = noise √(9 F ln(T/δ)) for a bound on the worst case: `widen` is that factor.
    """

    def __init__(
        self,
        runs: int,
        features: int,
        *,
        noise: float = 1.0,
        ridge: float = 1.0,
        widen: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(runs, features, noise=noise, ridge=ridge, device=device)
        _positive(widen=widen)
        self.widen = widen

    def draw(self, *, generator: Generator) -> Float[Tensor, "R F"]:
        """θ, one for each run."""
        root = torch.linalg.cholesky(self.covariance)
        noise = _apply(root, _normal(self.moment, generator))
        return self.estimate + self.widen * self.noise * noise

    def index(
        self, features: Float[Tensor, "R K F"], *, generator: Generator
    ) -> Float[Tensor, "R K"]:
        """The mean of each arm under the θ drawn."""
        return _apply(features, self.draw(generator=generator))


def linear_regret(
    bandit: LinearBandit,
    theta: Float[Tensor, "*R F"],
    features: Callable[[Generator], Float[Tensor, "R K F"]],
    *,
    steps: int,
    generator: Generator,
) -> Float[Tensor, "R T"]:
    """Cumulative pseudo-regret Σ max <θ, x> - <θ, chosen x>, with `features` drawn for each play.

    Rewards are normal about <θ, x>, with the bandit's `noise`. Raises ValueError for a θ of
    another shape.
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
        means = _apply(offered, theta)
        mean = means[every, chosen]
        lost[t] = means.amax(1) - mean
        bandit.observe(offered[every, chosen], _paid(mean, bandit.noise, generator))
    return lost.cumsum_(0).T


def _kl_upper(p: Tensor, level: Tensor) -> Tensor:
    """The greatest q with KL(p, q) <= level, by Newton's method from the right.

    KL is convex in q, so from above the root it comes down to it and never passes. Above lie
    Pinsker's bound, and the one that leaves out p ln(1 / q) >= 0.
    """
    entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
    most = 1 - torch.finfo(p.dtype).eps
    above = torch.minimum(p + (level / 2).sqrt(), 1 - torch.exp(-(level + entropy) / (1 - p)))
    q = above.clamp(max=most)
    for _ in range(8):
        slope = (q - p) / (q * (1 - q))
        q = torch.where(slope > 0, q - (bernoulli_kl(p, q) - level) / slope, p)
        q = torch.minimum(torch.maximum(q, p), p.new_tensor(most))
    return torch.where(p < 1, q, p)


def _any_best(index: Tensor, generator: Generator) -> Tensor:
    """Where each row is greatest, (R,); ties broken at random."""
    lot = torch.rand(index.shape, generator=generator, device=index.device)
    return lot.masked_fill_(index < index.amax(-1, keepdim=True), -1.0).argmax(-1)


def _paid(mean: Tensor, noise: float | None, generator: Generator) -> Tensor:
    if noise is None:
        return (_uniform(mean, generator) < mean).to(mean)
    return mean + noise * _normal(mean, generator)


def _uniform(like: Tensor, generator: Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _normal(like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """(R, N, M) and (R, M) to (R, N)."""
    return (matrices @ vectors[..., None])[..., 0]


def _check_rewards(rewards: Tensor, runs: int, bounded: bool) -> None:
    if rewards.shape != (runs,) or not bool(rewards.isfinite().all()):
        raise ValueError(f"rewards must be finite, (R,) = ({runs},), got {tuple(rewards.shape)}")
    if bounded and bool(((rewards < 0) | (rewards > 1)).any()):
        raise ValueError("rewards must lie in [0, 1], where this algorithm rests on that range")


def _at_least_one(**counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
