"""CMA-ES: a search that adapts the full covariance of its draws."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Generator, Tensor

from planners.base import Plan, ScoreFn
from planners.checks import PositiveFloat, Rounds
from planners.search import Answer, Search


@dataclass(frozen=True, eq=False, kw_only=True)
class CMA(Search):
    """Covariance matrix adaptation (Hansen and Ostermeier 2001; Hansen 2016, "The CMA evolution
    strategy: a tutorial"), by the package `cma`.

    The strategy works in the unit box and maps draws outside back into it. Each search begins
    at the start's mean with an isotropic covariance. The first iteration also scores the
    start's best candidate again, so with an unchanged score and `answer` "best" the new plan is not
    worse than the start. It runs on the CPU in float64, and some iterations take O((K A)³), so it
    suits problems with some tens of variables, that is, few knots.
    """

    population: Annotated[int, Ge(3)] = 16
    iterations: Rounds = 40
    sigma: PositiveFloat = 0.2
    """First standard deviation as a fraction of the box's width."""
    answer: Answer = "best"
    """What is returned: the `best` candidate found or the final `mean`."""

    carries_best = True

    def algorithm(self, start: Plan | None) -> _Evolution:
        """A new strategy for one search."""
        return _Evolution(self)

    def again(self, iteration: int, mean: Tensor, elites: Tensor) -> list[Tensor]:
        """The start's best candidate."""
        return [elites[:1]] if iteration == 0 else []


@dataclass(eq=False)
class _Evolution:
    planner: CMA
    strategy: Any = None
    asked: list[np.ndarray] = field(default_factory=list)

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        low, width = self.planner.low, self.planner.high - self.planner.low
        if self.strategy is None:
            import cma  # takes seconds: it imports matplotlib and scipy where installed

            def normals(rows: int, columns: int) -> np.ndarray:
                options = {"generator": generator, "device": generator.device}
                return torch.randn(rows, columns, dtype=torch.float64, **options).cpu().numpy()

            first = ((mean - low) / width).clamp(0, 1).double().cpu().numpy().ravel()
            # The package refuses one dimension, so add a second one that the score ignores.
            first = np.resize(first, max(first.size, 2))
            options = {"bounds": [0, 1], "popsize": count, "verbose": -9}
            # With a seed of NaN the package neither seeds nor reads numpy's global stream.
            options |= {"randn": normals, "seed": math.nan}
            self.strategy = cma.CMAEvolutionStrategy(first, self.planner.sigma, options)
        self.asked = self.strategy.ask()
        return self._in_the_box(np.array(self.asked)[:, : mean.numel()])

    def evaluate(self, score: ScoreFn, knots: Tensor) -> Tensor:
        return self.planner.evaluate(score, knots)

    def refit(
        self, mean: Tensor, std: Tensor, knots: Tensor, scores: Tensor, elites: Tensor
    ) -> tuple[Tensor, Tensor]:
        cost = -scores[: len(self.asked)].double().cpu().numpy()
        # The strategy uses only the ranks of scores; rejected candidates rank last.
        ranks = np.unique(cost, return_inverse=True)[1].astype(float)
        es = self.strategy
        es.tell(self.asked, ranks)
        middle = es.gp.pheno(es.mean, into_bounds=es.boundary_handler.repair)
        width = self.planner.high - self.planner.low
        spread = torch.as_tensor(es.stds[: std.numel()]).to(width).view_as(std)
        return self._in_the_box(middle[: mean.numel()]), spread * width

    def _in_the_box(self, flat: np.ndarray) -> Tensor:
        low, high = self.planner.low, self.planner.high
        unit = torch.as_tensor(flat).to(low).unflatten(-1, (-1, len(low)))
        return torch.lerp(low, high, unit)
