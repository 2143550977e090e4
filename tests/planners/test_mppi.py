"""MPPI: its weights, its limits and its settings."""

import math
from typing import Any

import pytest
import torch

from planners import MPPI
from planners.mppi import exponential_weights
from tests.planners.bowl import HIGH, LOW, TARGET, bowl, seeded


def test_weights_equal_hand_computed_values():
    """Best 3, lower median of (-5, 0, 1, 3) 0, λ = 1/3: the exponent is score - best."""
    scores = torch.tensor([0.0, 3.0, 1.0, -math.inf, -5.0])
    weights = exponential_weights(scores, 1 / 3)
    raw = [math.exp(-3), 1.0, math.exp(-2), 0.0, math.exp(-8)]
    torch.testing.assert_close(weights, torch.tensor(raw) / sum(raw))


@pytest.mark.parametrize(
    "scores",
    [
        [7.0, 7.0, 7.0],
        [3e38, -3e38, -3e38],
        [-math.inf, 2.0, -math.inf],
        [1e-38, 0.0, 0.0],
    ],
)
def test_weights_are_finite_and_sum_to_one(scores):
    weights = exponential_weights(torch.tensor(scores), 0.2)
    assert weights.isfinite().all()
    assert weights.sum().item() == pytest.approx(1.0)


def test_equal_scores_get_equal_weights_and_rejected_ones_zero():
    third = torch.full((3,), 1 / 3)
    torch.testing.assert_close(exponential_weights(torch.full((3,), -4.0), 0.2), third)
    nothing = exponential_weights(torch.full((3,), -math.inf), 0.2)
    assert torch.equal(nothing, torch.zeros(3))


def test_one_very_low_score_does_not_flatten_the_weights():
    scores = torch.linspace(-1, 0, 101)
    crashed = torch.cat((scores[1:], torch.tensor([-1e9])))
    clean, hurt = (exponential_weights(s, 0.2) for s in (scores, crashed))
    assert hurt.max().item() == pytest.approx(clean.max().item(), rel=0.1)


def test_plans_do_not_depend_on_the_scale_of_the_score():
    """A factor of eight is exact in binary, so plans are equal to the bit."""
    planner = MPPI(LOW, HIGH, 4)
    plan = planner.plan(bowl, None, generator=seeded())
    scaled = planner.plan(lambda a: 8 * bowl(a), None, generator=seeded())
    assert torch.equal(plan.actions, scaled.actions)
    moved = planner.plan(lambda a: 10 * bowl(a) + 5, None, generator=seeded())
    torch.testing.assert_close(plan.actions, moved.actions, atol=1e-4, rtol=1e-4)


def test_low_temperatures_give_the_best_candidate_and_high_ones_the_average():
    seen = []
    score = lambda a: seen.append(a.clone()) or bowl(a)  # noqa: E731
    settings: dict[str, Any] = {"population": 50, "iterations": 1}
    cold = MPPI(LOW, HIGH, 4, temperature=1e-6, **settings).plan(score, None, generator=seeded())
    torch.testing.assert_close(cold.mean, seen[0][bowl(seen[0]).argmax()])
    hot = MPPI(LOW, HIGH, 4, temperature=1e6, **settings).plan(score, None, generator=seeded())
    torch.testing.assert_close(hot.mean, seen[0].mean(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_sigma_is_the_std_of_the_candidates_in_every_iteration(sigma):
    seen = []
    score = lambda a: seen.append(a.clone()) or bowl(a)  # noqa: E731
    plan = MPPI(LOW, HIGH, 4, sigma=sigma, population=4000).plan(score, None, generator=seeded())
    for candidates in seen[:3]:
        spread = candidates.std(0) / (HIGH - LOW)
        torch.testing.assert_close(spread, torch.full((4, 2), sigma), rtol=0.06, atol=0)
    torch.testing.assert_close(plan.std, (sigma * (HIGH - LOW)).expand(4, 2))


def test_coloured_draws_of_neighbouring_steps_are_correlated():
    """With beta = 3 neighbouring steps are correlated, with 0 they are not."""
    correlation = {}
    for beta in (0.0, 3.0):
        draws = MPPI(LOW, HIGH, 16, beta=beta).sample(
            torch.zeros(16, 2), torch.ones(16, 2), 2000, generator=seeded()
        )
        correlation[beta] = (draws[:, 1:] * draws[:, :-1]).mean().item()
    assert abs(correlation[0.0]) < 0.02
    assert correlation[3.0] > 0.85


def test_mppi_finds_optima_inside_and_near_the_bounds():
    """Near a bound the constant std keeps the mean one or two sigma away."""
    planner = MPPI(LOW, HIGH, 3, iterations=20, sigma=0.05)
    inside = planner.plan(bowl, None, generator=seeded())
    assert ((inside.actions - TARGET).abs() / (HIGH - LOW)).max() < 0.02
    outside = planner.plan(
        lambda a: -((a - torch.tensor([3.0, -4.0])) ** 2).sum((1, 2)), None, generator=seeded()
    )
    corner = torch.tensor([2.0, -1.0])
    assert ((outside.actions - corner).abs() / (HIGH - LOW)).max() < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature must be finite and > 0, got 0.0"),
        ({"temperature": math.nan}, "temperature must be finite and > 0, got nan"),
        ({"beta": math.inf}, "beta must be finite and >= 0, got inf"),
        ({"sigma": -1.0}, "sigma must be finite and > 0, got -1.0"),
        ({"iterations": 0}, "iterations must be an integer in 1..1000000, got 0"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        MPPI(LOW, HIGH, 5, **change)
