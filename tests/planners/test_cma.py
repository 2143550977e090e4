"""CMA-ES on problems that need its covariance, on bounds, and with a given generator."""

import math

import numpy as np
import pytest
import torch

from planners import CEM, CMA

LOW, HIGH = -torch.ones(2), torch.tensor([1.0, 3.0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ridge(actions):
    """The score depends mainly on sums of neighbours: a valley 1000 times as long as wide."""
    x = actions.flatten(1)
    return -((x[:, 1:] + x[:, :-1] - 0.4) ** 2).sum(1) - 1e-3 * (x - 0.2).square().sum(1)


def test_cma_follows_a_ridge_that_a_diagonal_gaussian_does_not():
    """With 1,600 evaluations each. Over five seeds CEM loses at least 690 times as much."""
    for seed in range(3):
        full = CMA(LOW, HIGH, 4, iterations=100).plan(ridge, None, generator=seeded(seed))
        diagonal = CEM(LOW, HIGH, 4, population=160, elites=16, iterations=10, sampling="clipped")
        other = diagonal.plan(ridge, None, generator=seeded(seed))
        assert full.evaluated == 1600 and other.evaluated == 1601
        assert -full.score < 0.02 * -other.score


def test_cma_finds_an_optimum_in_a_corner():
    target = torch.tensor([2.0, -4.0])
    plan = CMA(LOW, HIGH, 3).plan(
        lambda a: -((a - target) ** 2).sum((1, 2)), None, generator=seeded()
    )
    corner = torch.tensor([1.0, -1.0]).expand(3, 2)
    assert ((plan.actions - corner).abs() / (HIGH - LOW)).max() < 0.01


def test_plans_depend_only_on_the_ranks_of_scores():
    """Any increasing function of the score gives the same plan."""
    planner = CMA(LOW, HIGH, 3, iterations=5)
    plain = planner.plan(ridge, None, generator=seeded())
    bent = planner.plan(lambda a: 1e3 * ridge(a).exp() + 5, None, generator=seeded())
    assert torch.equal(plain.actions, bent.actions)


def test_a_plan_of_one_number_is_searched():
    planner = CMA(LOW[:1], HIGH[:1], 5, knots=1)
    plan = planner.plan(lambda a: -(a - 0.3).square().sum((1, 2)), None, generator=seeded())
    torch.testing.assert_close(plan.actions, torch.full((5, 1), 0.3), atol=1e-3, rtol=0)


def test_cma_neither_reads_nor_seeds_numpys_global_stream():
    plans = []
    for seed in (0, 1):
        np.random.seed(seed)
        before = str(np.random.get_state(legacy=False))
        plans.append(CMA(LOW, HIGH, 3).plan(ridge, None, generator=seeded()))
        assert str(np.random.get_state(legacy=False)) == before
    assert torch.equal(plans[0].actions, plans[1].actions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"population": 2}, "population must be an integer of at least 3, got 2"),
        ({"sigma": math.nan}, "sigma must be finite and > 0, got nan"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        CMA(LOW, HIGH, 5, **change)
