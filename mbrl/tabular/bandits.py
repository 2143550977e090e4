"""Bandits: repeated choice among K arms, with exact pseudo-regret.

Every bandit plays R independent runs of K arms at once: `choose` an arm in each, then `observe`
what it paid. What is chosen maximises the `index` of the algorithm, ties broken at random.
Lattimore and Szepesvári 2020, "Bandit algorithms", covers all of them.

Counts and sums are float64. Rewards outside [0, 1] are refused where the algorithm needs
that range.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from mbrl.tabular import _bandit_loops as loops
from mbrl.tabular._bandit_common import (
    any_best,
    at_least_one,
    check_rewards,
    extremes,
    numpys,
    paid,
    uniform,
)
from mbrl.tabular.posteriors import (
    BetaBernoulli,
    Posterior,
    bernoulli_kl,
    best_arm,
    least_ratio,
)

# Regret and its theoretical bounds.


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
    if noise is None and means.device.type == "cpu" and _compiled(bandit):
        return _played(bandit, means, steps, generator)
    best = means.amax(1)
    lost = means.new_empty(steps, runs)
    for t in range(steps):
        chosen = bandit.choose(generator=generator)
        mean = means.gather(1, chosen[:, None])[:, 0]
        lost[t] = best - mean
        bandit.observe(chosen, paid(mean, noise, generator))
    return lost.cumsum_(0).T


def _compiled(bandit: Bandit) -> bool:
    """Whether `_bandit_loops` plays it; not for subclasses, which may choose otherwise."""
    if type(bandit) is Thompson:
        return type(bandit.posterior) is BetaBernoulli
    return type(bandit) in (UCB1, KLUCB)


def _played(bandit: Bandit, means: Tensor, steps: int, generator: Generator) -> Tensor:
    """`regret` of what is compiled."""
    kinds = {
        UCB1: loops.UCB1,
        KLUCB: loops.KL_UCB,
        Thompson: loops.THOMPSON,
    }
    prior = getattr(bandit, "posterior", BetaBernoulli())
    lost = means.new_empty(len(means), steps)
    loops.play(
        kinds[type(bandit)], bandit.counts.numpy(), bandit.sums.numpy(), bandit.steps, prior.alpha,
        prior.beta, means.contiguous().numpy(), lost.numpy(), numpys(generator),
    )  # fmt: skip
    bandit.steps += steps
    return lost.cumsum_(1)


def ucb1_bound(means: Sequence[float], steps: int) -> float:
    """8 Σ ln T / Δ + (1 + π²/3) Σ Δ, over the arms that fall short by Δ > 0.

    UCB1's expected regret never exceeds it, for rewards in [0, 1] (Auer et al. 2002, theorem 1).
    """
    gaps = [max(means) - mean for mean in means if mean < max(means)]
    return sum(8 * math.log(steps) / gap + (1 + math.pi**2 / 3) * gap for gap in gaps)


def lai_robbins(means: Sequence[float], *, noise: float | None = None) -> float:
    """Σ Δ / KL(arm, best arm): the least asymptotic slope of regret against ln T.

    For every algorithm whose regret is o(Tᵃ) for all a > 0 on every problem (Lai and Robbins
    1985); rewards are Bernoulli, or Gaussian with std `noise`.
    """
    best = max(means)

    def divergence(mean: float) -> float:
        if noise is not None:
            return (best - mean) ** 2 / (2 * noise**2)
        return float(bernoulli_kl(*torch.tensor([mean, best], dtype=torch.float64)))

    return sum((best - mean) / divergence(mean) for mean in means if mean < best)


def auer_epsilon(means: Sequence[float], *, factor: float) -> Callable[[int], float]:
    """ε_t = min(1, c K / (d² t)) for `EpsilonGreedy`, d the gap between the two best of K means.

    Auer et al. 2002 prove that regret is then O(ln T), for a `factor` c above 5; they observe that
    a smaller one does better. Raises ValueError where the two best means are equal.
    """
    best, second = sorted(means)[-1], sorted(means)[-2]
    gap = best - second
    if not gap > 0:
        raise ValueError(f"the two best means must differ, got {best!r} twice")
    return lambda t: min(1.0, factor * len(means) / (gap**2 * t))


# The algorithms.


class Bandit(ABC):
    """R runs of K arms, and how often (`counts`) and how well (`sums`) each has paid, (R, K).

    An algorithm is a subclass with an `index`. Raises ValueError for runs or arms below 1.
    """

    bounded = False
    """Whether rewards must lie in [0, 1]."""

    def __init__(self, runs: int, arms: int, *, device: torch.device | str = "cpu") -> None:
        at_least_one(runs=runs, arms=arms)
        self.counts = torch.zeros(runs, arms, dtype=torch.float64, device=device)
        self.sums = torch.zeros_like(self.counts)
        self.steps = 0
        """Plays seen by each run."""

    @property
    def means(self) -> Float[Tensor, "R K"]:
        """What each arm has paid on average; 0 before its first play."""
        return self.sums / self.counts.clamp(min=1)

    @abstractmethod
    def index(self, *, generator: Generator) -> Float[Tensor, "R K"]:
        """What the choice maximises."""

    def choose(self, *, generator: Generator) -> Int[Tensor, " R"]:
        """An arm for each run."""
        return any_best(self.index(generator=generator), generator)

    def observe(self, arms: Int[Tensor, " R"], rewards: Float[Tensor, " R"]) -> None:
        """What the arms chosen have paid.

        Raises ValueError for other shapes, arms out of range, rewards that are not finite, or
        outside [0, 1] where the algorithm is `bounded`.
        """
        runs, count = self.counts.shape
        low, high = extremes(arms) if arms.shape == (runs,) else (-1, -1)
        if not 0 <= low <= high < count:
            raise ValueError(f"arms must be (R,) = ({runs},) integers in 0..{count - 1}")
        check_rewards(rewards, runs, self.bounded)
        at = arms[:, None]
        self.counts.scatter_add_(1, at, torch.ones_like(self.counts[:, :1]))
        self.sums.scatter_add_(1, at, rewards.to(self.sums)[:, None])
        self.steps += 1


class EpsilonGreedy(Bandit):
    """The best arm so far, or with probability ε any arm.

    `epsilon` is a number, or a function of the play t = 1, 2, ... such as `auer_epsilon`. With a
    constant ε regret is linear: a share ε of the plays pays the mean gap. Raises ValueError for an
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
        exploring = uniform(self.counts[:, :1], generator) < epsilon
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

    Asymptotically optimal for Bernoulli rewards: its regret's slope is Lai and Robbins's. The
    bounds are computed on the CPU.
    """

    bounded = True

    def index(self, *, generator: Generator) -> Float[Tensor, "R K"]:
        """An upper confidence bound; infinite before an arm's first play."""
        levels = math.log(max(self.steps, 1)) / self.counts
        upper = loops.kl_upper(*(each.flatten().cpu().numpy() for each in (self.means, levels)))
        upper = torch.from_numpy(upper).to(levels).view_as(levels)
        return upper.masked_fill_(self.counts == 0, math.inf)


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
    posterior on `points` values.

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
        at_least_one(points=points)
        if information not in ("variance", "mutual"):
            raise ValueError(f"information must be variance or mutual, got {information!r}")
        self.posterior = posterior or BetaBernoulli()
        self.bounded = self.posterior.bounded
        self.information = information
        self.points = points

    def index(self, *, generator: Generator) -> Float[Tensor, "R K"]:
        """1 for the arm drawn from the mixture of two, 0 for the others."""
        mix = least_ratio(*self.prospects())
        first = uniform(mix.share, generator) < mix.share
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
