"""Gradient ascent: knots, bounds, restarts, and scores without a gradient."""

import math

import pytest
import torch

from planners import GradientAscent

LOW, HIGH = torch.tensor([-1.0, -30.0]), torch.tensor([1.0, 20.0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_ascent_on_knots_finds_the_least_squares_fit():
    """No plan of four knots equals the target; the nearest one is its projection."""
    planner = GradientAscent(LOW, HIGH, 9, knots=4, interpolation="linear", iterations=200)
    wave = torch.stack((torch.linspace(0, 3, 9).sin(), torch.linspace(-1, 1, 9)), 1) / 2
    plan = planner.plan(lambda a: -((a - wave) ** 2).sum((1, 2)), None, generator=seeded())
    fit = planner.matrix @ torch.linalg.lstsq(planner.matrix, wave).solution
    torch.testing.assert_close(plan.actions, fit, atol=2e-3, rtol=0)


def test_plans_stop_at_the_bounds():
    planner = GradientAscent(LOW, HIGH, 3)
    plan = planner.plan(lambda a: (a * torch.tensor([1.0, -1.0])).sum((1, 2)), None,
                        generator=seeded())  # fmt: skip
    assert torch.equal(plan.actions, torch.tensor([1.0, -30.0]).expand(3, 2))


def test_restarts_find_the_better_hill():
    """From the middle the gradient leads to the lower of two hills."""

    def score(actions):
        x = actions[:, 0, 0]
        return torch.exp(-((x - 0.3) ** 2) / 0.02) + 2 * torch.exp(-((x + 0.7) ** 2) / 0.02)

    low, high = -torch.ones(1), torch.ones(1)
    alone = GradientAscent(low, high, 1, population=1).plan(score, None, generator=seeded())
    many = GradientAscent(low, high, 1, population=16).plan(score, None, generator=seeded())
    assert alone.score.item() == pytest.approx(1, abs=0.01)
    assert many.score.item() == pytest.approx(2, abs=0.01)


def test_rejected_plans_move_back_to_the_allowed_side():
    """The optimum is on the edge of the allowed region, outside which there is no gradient."""

    def score(actions):
        x = actions[:, :, 0].sum(1)
        return torch.where(x > 0.5, math.nan, x)

    plan = GradientAscent(LOW, HIGH, 2, population=2).plan(score, None, generator=seeded())
    assert plan.rejected > 0
    assert 0.49 < plan.score <= 0.5


def test_a_score_without_gradient_raises_an_error():
    planner = GradientAscent(LOW, HIGH, 3)
    with pytest.raises(ValueError, match="score gives no gradient; make it differentiable"):
        planner.plan(lambda a: a.detach().sum((1, 2)), None, generator=seeded())
    with torch.no_grad():  # gradients are enabled inside, also if the caller disabled them
        planner.plan(lambda a: a.sum((1, 2)), None, generator=seeded())


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_bad_settings_are_refused_by_name(rate):
    with pytest.raises(ValueError, match="rate must be finite and > 0"):
        GradientAscent(LOW, HIGH, 5, rate=rate)


def test_ascent_continues_after_all_plans_were_rejected():
    """The best plan is on the edge of the forbidden region; the single plan overshoots it
    repeatedly, and moves half-way back each time."""

    def score(actions):
        top = -(actions - 0.6).square().sum((1, 2))
        return torch.where(actions.amax((1, 2)) > 0.5, -torch.inf, top)

    planner = GradientAscent(-torch.ones(1), torch.ones(1), 3, population=1)
    plan = planner.plan(score, None, generator=torch.Generator())
    assert plan.rejected < 40
    assert float(plan.actions.min()) > 0.49
