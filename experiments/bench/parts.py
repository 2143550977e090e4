"""Parts of several benchmarks: an ensemble, a search and the score of its plans."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from experiments.bench.measure import seeded
from mbrl.agents import PlannerConfig
from mbrl.dynamics import Ensemble, EnsembleConfig
from mbrl.imagination import score_fn
from mbrl.types import RewardFn, TerminatedFn
from planners import Plan, ScoreFn, Search


class Planning:
    """Plans repeatedly; each search starts from the last plan."""

    def __init__(self, search: Search, score: Callable[[], ScoreFn]):
        self.search, self.score, self.generator = search, score, seeded()
        self.last: Plan | None = None

    def __call__(self) -> None:
        """Make one plan."""
        start = self.last and self.search.shift(self.last, 1)
        self.last = self.search.plan(self.score(), start, generator=self.generator)


def make_search(name: Any, size: int, horizon: int, population: int, iterations: int) -> Search:
    """A planner by name over `horizon` actions of `size` numbers in [-1, 1]."""
    elites = None if name == "mppi" else population // 10
    config = PlannerConfig(name, horizon, population, iterations, elites)
    search = config.build(-torch.ones(size), torch.ones(size))
    assert isinstance(search, Search)
    return search


def scorer(
    obs: int, action: int, horizon: int, reward: RewardFn, terminated: TerminatedFn | None
) -> Callable[[], ScoreFn]:
    """A function that makes the score of plans from one state: an ensemble, TS∞, 20 particles."""
    model, draw = ensemble(obs, action), seeded()
    known = {"horizon": horizon, "reward": reward, "terminated": terminated}
    return lambda: score_fn(model, torch.zeros(obs), generator=draw, **known)


def ensemble(obs_size: int, action_size: int, **settings: Any) -> Ensemble:
    """An untrained ensemble; `settings` are those of its config."""
    config = EnsembleConfig(**settings)
    return Ensemble(obs_size, action_size, config, generator=seeded())


def forward_flops(model: Ensemble) -> float:
    """Floating-point operations of one row through one net."""
    return 2 * sum(i * o for i, o in pairwise(model.net.sizes))


def run_forward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """The half-cheetah's reward."""
    return next_obs[..., 8] - 0.1 * action.square().sum(-1)


def stay_upright(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """The cart-pole's reward."""
    return (~fallen(next_obs)).float()


def never(next_obs: Tensor) -> Tensor:
    """A termination that is computed and never True."""
    return next_obs[..., 0] > torch.inf


def fallen(next_obs: Tensor) -> Tensor:
    """Whether the cart-pole's episode has ended."""
    return (next_obs[..., 0].abs() > 2.4) | (next_obs[..., 2].abs() > 0.21)
