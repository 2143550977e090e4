"""Bandits: repeated choice among K arms, with exact pseudo-regret.

Every bandit plays R independent runs of K arms at once. In each step `choose` picks the arm with
the largest `index` in each run, ties broken at random, and `observe` takes the rewards.
Lattimore and Szepesvári 2020, "Bandit algorithms", covers all of them.

Counts and sums are float64. Rewards outside [0, 1] raise an error if the algorithm
assumes that range.
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
    argmax_random_ties,
    at_least_one,
    check_rewards,
    draw_rewards,
    extremes,
    numpy_generator,
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

    `means` is (K,), or (R, K) for a different problem in each run. Rewards are Bernoulli, or
    Gaussian with std `noise` if that is given. Raises ValueError for means of another
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
    if noise is None and means.device.type == "cpu" and _has_compiled_loop(bandit):
        return _compiled_regret(bandit, means, steps, generator)
    best = means.amax(1)
    lost = means.new_empty(steps, runs)
    for t in range(steps):
        chosen = bandit.choose(generator=generator)
        mean = means.gather(1, chosen[:, None])[:, 0]
        lost[t] = best - mean
        bandit.observe(chosen, draw_rewards(mean, noise, generator))
    return lost.cumsum_(0).T


def _has_compiled_loop(bandit: Bandit) -> bool:
    """Whether `_bandit_loops` has this algorithm. Subclasses may choose arms differently."""
    if type(bandit) is Thompson:
        return type(bandit.posterior) is BetaBernoulli
    return type(bandit) in (UCB1, KLUCB)


def _compiled_regret(bandit: Bandit, means: Tensor, steps: int, generator: Generator) -> Tensor:
    """`regret`, computed by `_bandit_loops`."""
    kinds = {
        UCB1: loops.UCB1,
        KLUCB: loops.KL_UCB,
        Thompson: loops.THOMPSON,
    }
    prior = BetaBernoulli()
    if isinstance(bandit, Thompson):
        assert isinstance(bandit.posterior, BetaBernoulli)
        prior = bandit.posterior
    lost = means.new_empty(len(means), steps)
    loops.play(
        kinds[type(bandit)], bandit.counts.numpy(), bandit.sums.numpy(), bandit.steps, prior.alpha,
        prior.beta, means.contiguous().numpy(), lost.numpy(), numpy_generator(generator),
    )  # fmt: skip
    bandit.steps += steps
    return lost.cumsum_(1)


def ucb1_bound(means: Sequence[float], steps: int) -> float:
    """8 Σ ln T / Δ + (1 + π²/3) Σ Δ, over arms whose mean is Δ > 0 below the best.

    An upper bound on UCB1's expected regret for rewards in [0, 1] (Auer et al. 2002, theorem 1).
    """
    gaps = [max(means) - mean for mean in means if mean < max(means)]
    return sum(8 * math.log(steps) / gap + (1 + math.pi**2 / 3) * gap for gap in gaps)


def lai_robbins(means: Sequence[float], *, noise: float | None = None) -> float:
    """Σ Δ / KL(arm, best arm): a lower bound on the asymptotic slope of regret against ln T.

    It holds for every algorithm whose regret is o(Tᵃ) for all a > 0 on every problem (Lai and
    Robbins 1985). Rewards are Bernoulli, or Gaussian with std `noise` if that is given.
    """
    best = max(means)

    def divergence(mean: float) -> float:
        if noise is not None:
            return (best - mean) ** 2 / (2 * noise**2)
        return float(bernoulli_kl(*torch.tensor([mean, best], dtype=torch.float64)))

    return sum((best - mean) / divergence(mean) for mean in means if mean < best)


def auer_epsilon(means: Sequence[float], *, factor: float) -> Callable[[int], float]:
    """ε_t = min(1, c K / (d² t)) for `EpsilonGreedy`, d the gap between the two best of K means.

    Auer et al. 2002 prove that regret is then O(ln T) for a `factor` c above 5, and observe lower
    regret for smaller c. Raises ValueError if the two best means are equal.
    """
    best, second = sorted(means)[-1], sorted(means)[-2]
    gap = best - second
    if not gap > 0:
        raise ValueError(f"the two best means must differ, got {best!r} twice")
    return lambda t: min(1.0, factor * len(means) / (gap**2 * t))


# The algorithms.


class Bandit(ABC):
    """R independent runs of K arms; `counts` (plays) and `sums` (of rewards) are (R, K).

    A subclass defines the `index` by which arms are chosen. Raises ValueError for runs or arms
    below 1.
    """

    bounded = False
    """Whether rewards must lie in [0, 1]."""

    def __init__(self, runs: int, arms: int, *, device: torch.device | str = "cpu") -> None:
        at_least_one(runs=runs, arms=arms)
        self.counts = torch.zeros(runs, arms, dtype=torch.float64, device=device)
        self.sums = torch.zeros_like(self.counts)
        self.steps = 0
        """Number of plays observed in each run."""

    @property
    def means(self) -> Float[Tensor, "R K"]:
        """Mean reward of each arm; 0 before its first play."""
        return self.sums / self.counts.clamp(min=1)

    @abstractmethod
    def index(self, *, generator: Generator) -> Float[Tensor, "R K"]:
        """An index of each arm; the arm with the largest is chosen."""

    def choose(self, *, generator: Generator) -> Int[Tensor, " R"]:
        """The arm with the largest index in each run."""
        return argmax_random_ties(self.index(generator=generator), generator)

    def observe(self, arms: Int[Tensor, " R"], rewards: Float[Tensor, " R"]) -> None:
        """Learn from the rewards of the arms chosen.

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
    """The arm with the best mean so far, or with probability ε a uniformly random arm.

    `epsilon` is a number, or a function of the play t = 1, 2, ... such as `auer_epsilon`. With a
    constant ε regret is linear in T, because a share ε of the plays has the mean regret of a random
    arm. `index` raises ValueError for an ε outside [0, 1].
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
        """The means; all 0 in runs that explore in this play."""
        epsilon = self.epsilon(self.steps + 1) if callable(self.epsilon) else self.epsilon
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon must lie in [0, 1], got {epsilon!r}")
        exploring = uniform(self.counts[:, :1], generator) < epsilon
        return self.means.masked_fill_(exploring, 0.0)


class UCB1(Bandit):
    """Index: mean + √(2 ln t / n), after each arm has been played once (Auer et al. 2002)."""

    bounded = True

    def index(self, *, generator: Generator) -> Float[Tensor, "R K"]:
        """An upper confidence bound; infinite before an arm's first play."""
        width = (2 * math.log(max(self.steps, 1)) / self.counts).sqrt_()
        return (self.means + width).masked_fill_(self.counts == 0, math.inf)


class KLUCB(Bandit):
    """Index: the greatest q with n KL(mean, q) <= ln t (Garivier and Cappé 2011, with c = 0).

    Asymptotically optimal for Bernoulli rewards: its regret attains the slope of `lai_robbins`. The
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
    """Thompson sampling: the best arm for means drawn from the posterior (Thompson 1933).

    Asymptotically optimal for Bernoulli rewards (Kaufmann et al. 2012): the slope of its regret
    approaches that of `lai_robbins`, slowly and from below.
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
    """Information-directed sampling (Russo and Van Roy 2014).

    Draws the arm from the distribution with the least (expected regret)² / expected information
    gain. The information gain of an arm about which arm is best, A*, is the mutual information of
    its reward and A* ("mutual", exact for Bernoulli rewards), or the variance of its mean given A*
    ("variance", cheaper, and up to a constant a lower bound of the other). Both are integrals over
    the posterior, computed with `points` intervals.

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
        """1 for the arm drawn from the distribution, 0 for the others."""
        mix = least_ratio(*self.regret_and_information())
        first = uniform(mix.share, generator) < mix.share
        arms = torch.where(first, mix.first, mix.second)
        return torch.nn.functional.one_hot(arms, self.counts.shape[1]).to(self.counts)

    def regret_and_information(self) -> tuple[Float[Tensor, "R K"], Float[Tensor, "R K"]]:
        """Expected regret and expected information gain of each arm."""
        chance, given = best_arm(self.posterior, self.counts, self.sums, points=self.points)
        # the means too are computed from the integrals, so that their errors cancel below
        mean = (chance[..., None] * given).sum(1)
        best = (chance * given.diagonal(dim1=-2, dim2=-1)).sum(-1, keepdim=True)
        if self.information == "variance":
            gained = (given - mean[:, None]).square()
        else:
            gained = self.posterior.information(given, mean[:, None]).clamp(min=0)
        return (best - mean).clamp(min=0), (chance[..., None] * gained).sum(1)
