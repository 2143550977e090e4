"""Random shooting against extreme-value theory."""

import math

import pytest
import torch

from planners import RandomShooting


@pytest.mark.parametrize("population", [1, 3, 10, 100])
def test_the_best_of_n_draws_has_the_closed_form_mean(population):
    """With a linear score the best of N uniform draws is Beta(N, 1), with mean N/(N+1)."""
    planner = RandomShooting(torch.zeros(1), torch.ones(1), 1, population=population)
    generator = torch.Generator().manual_seed(0)
    seeds = 400
    best = [
        planner.plan(lambda a: a[:, 0, 0], None, generator=generator).score for _ in range(seeds)
    ]
    n = population
    error = math.sqrt(n / ((n + 1) ** 2 * (n + 2)) / seeds)
    assert torch.stack(best).mean().item() == pytest.approx(n / (n + 1), abs=4 * error)


def test_draws_cover_an_asymmetric_box():
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 2.5])
    seen = []
    score = lambda a: seen.append(a) or a[:, 0, 0]  # noqa: E731
    RandomShooting(low, high, 2, population=20_000).plan(
        score, None, generator=torch.Generator().manual_seed(0)
    )
    draws = (seen[0] - low) / (high - low)
    assert (draws.mean(0) - 0.5).abs().max() < 0.01
    assert (draws.var(0) - 1 / 12).abs().max() < 0.003


def test_the_start_is_kept_if_no_draw_is_better():
    """One draw cannot beat a start that is the optimum."""
    planner = RandomShooting(-torch.ones(1), torch.ones(1), 3, population=1)
    score = lambda a: -(a**2).sum((1, 2))  # noqa: E731
    generator = torch.Generator().manual_seed(0)
    start = planner.plan(score, None, generator=generator)
    optimum = start._replace(elites=torch.zeros(1, 3, 1))
    plan = planner.plan(score, optimum, generator=generator)
    assert plan.evaluated == 2
    assert torch.equal(plan.actions, torch.zeros(3, 1))
