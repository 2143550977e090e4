"""MPPI that weights only the best candidates and adapts its standard deviation, as TD-MPC does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from planners.base import Plan, ScoreFn
from planners.checks import NonNegativeFloat, PositiveFloat, PositiveInt, Rounds
from planners.mppi import MPPI, exponential_weights
from planners.search import Algorithm, DrawnAnswer, checked


@dataclass(frozen=True, eq=False, kw_only=True)
class EliteMPPI(MPPI):
    """The planner of TD-MPC (Hansen et al. 2022, algorithm 1) and TD-MPC2 (2024).

    As `MPPI`, but in each round only the elites are weighted; the next mean and std are their
    weighted mean and std. The elites of the start, such as the plans of a policy, are among the
    candidates of every round, at most half of them. The defaults are those of TD-MPC2 for a box of
    [-1, 1] and scores that are returns.
    """

    population: PositiveInt = 512
    iterations: Rounds = 6
    elites: PositiveInt = 64
    """M, the number of best candidates that are weighted."""
    sigma: PositiveFloat = 1.0
    """First and largest std as a fraction of the box's width."""
    floor: NonNegativeFloat = 0.025
    """Smallest std as a fraction of the box's width; at most `sigma` counts."""
    temperature: PositiveFloat = 2.0
    """λ: lower is greedier."""
    relative: bool = False
    """Whether λ is in units of the distance from the median elite's score to the best, instead of
    in units of the score."""
    answer: DrawnAnswer = "draw"
    """What is returned: one of the last elites, drawn with their weights (`draw`), the final
    `mean`, or the `best` candidate seen."""

    keeps_mean = True

    def algorithm(self, start: Plan | None) -> Algorithm:
        """The planner itself, or with the start's elites among the candidates."""
        given = None if start is None else start.elites[: self.population // 2]
        return self if given is None or not len(given) else _WithPlans(self, given)

    def refit(
        self, mean: Tensor, std: Tensor, knots: Tensor, scores: Tensor, elites: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighted mean and std of the elites."""
        weights = self._weights(scores.topk(len(elites)).values).to(elites.dtype)
        flat = elites.flatten(1)
        centre = weights @ flat
        spread = (weights @ (flat - centre).square_()).sqrt_()
        least, most = self._range
        return centre.view_as(mean), spread.view_as(std).clamp_(least, most)

    def draw(
        self, elites: Tensor, scores: Tensor, *, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """One of the elites, by their weights."""
        index = torch.multinomial(self._weights(scores), 1, generator=generator)
        return elites.index_select(0, index)[0], scores.index_select(0, index)[0]

    def _weights(self, scores: Tensor) -> Tensor:
        """Of the elites (M,), whose scores are finite."""
        if self.relative:
            return exponential_weights(scores, self.temperature)
        return (scores / self.temperature).softmax(0)

    @cached_property
    def _range(self) -> tuple[Tensor, Tensor]:
        width = self.high - self.low
        return min(self.floor, self.sigma) * width, self.sigma * width


class _WithPlans:
    """A search with given knots (M, K, A) among the candidates of every round."""

    def __init__(self, planner: EliteMPPI, plans: Tensor) -> None:
        self.planner, self.plans, self.refit = planner, plans, planner.refit

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        """The given knots and draws, together `count`."""
        drawn = self.planner.sample(mean, std, count - len(self.plans), generator=generator)
        return torch.cat((self.plans, drawn))

    def evaluate(self, score: ScoreFn, knots: Tensor) -> Tensor:
        """Scores (N,)."""
        return checked(score, self.planner.actions(knots))
