"""CEM: the refit by hand, PETS's truncation, and known optima."""

import math

import pytest
import torch

from planners import CEM
from planners.search import refit_to_elites

LOW, HIGH = torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 5.0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_refit_equals_hand_computed_values():
    """Elites 1 and 3, old N(0, 2²), momentum 1/4: mean 3/4 · 2, variance 1/4 · 4 + 3/4 · 1."""
    mean, std = refit_to_elites(
        torch.zeros(1, 1),
        torch.full((1, 1), 2.0),
        torch.tensor([[[1.0]], [[3.0]]]),
        momentum=0.25,
    )
    assert mean.item() == pytest.approx(1.5)
    assert std.item() == pytest.approx(math.sqrt(1.75))


def test_the_refit_uses_only_accepted_elites():
    """Of a hundred candidates two are accepted, fewer than the elites; momentum 0."""
    seen = []

    def score(actions):
        seen.append(actions.clone())
        scores = torch.full((len(actions),), math.nan)
        scores[[7, 50]] = torch.tensor([5.0, 4.0])
        return scores

    planner = CEM(LOW, HIGH, 1, population=100, elites=10, iterations=1, momentum=0.0,
                  answer="best")  # fmt: skip
    plan = planner.plan(score, None, generator=seeded())
    torch.testing.assert_close(plan.mean, seen[0][[7, 50]].mean(0))
    torch.testing.assert_close(plan.elites, seen[0][[7, 50]])
    spread = seen[0][[7, 50]].var(0, correction=0).sqrt()
    torch.testing.assert_close(plan.std, spread)
    assert plan.rejected == 98


def test_truncated_draws_follow_pets():
    """std = min(std, half the distance to the nearer bound), cut at two of it."""
    planner = CEM(torch.tensor([0.0]), torch.tensor([1.0]), 1)
    for middle, std, expected in [(0.5, 0.1, 0.1), (0.9, 0.5, 0.05), (0.1, 0.5, 0.05)]:
        mean = torch.full((1, 1), middle)
        draws = planner.sample(mean, torch.full((1, 1), std), 20_000, generator=seeded())
        assert (draws - middle).abs().max() <= 2 * expected * 1.0001
        assert draws.std().item() == pytest.approx(0.8796 * expected, rel=0.02)
        assert draws.mean().item() == pytest.approx(middle, abs=0.05 * expected)


@pytest.mark.parametrize("sampling", ["truncated", "clipped"])
def test_cem_finds_the_minimum_of_a_bowl(sampling):
    target = torch.tensor([[0.7, 4.0], [-1.2, 0.0], [0.1, 1.0]])
    planner = CEM(LOW, HIGH, 3, iterations=12, sampling=sampling)
    plan = planner.plan(lambda a: -((a - target) ** 2).sum((1, 2)), None, generator=seeded())
    assert (plan.actions - target).abs().max() < 0.02
    assert (plan.std < 0.05 * (HIGH - LOW)).all()


@pytest.mark.parametrize(
    ("sampling", "within"),
    [("truncated", 0.2), ("clipped", 0.01)],
)
def test_clipped_draws_find_an_optimum_on_the_bounds(sampling, within):
    """The minimum is beyond a corner; PETS's truncation does not reach bounds."""
    target = torch.tensor([3.0, -4.0])
    planner = CEM(LOW, HIGH, 3, iterations=10, sampling=sampling)
    plan = planner.plan(lambda a: -((a - target) ** 2).sum((1, 2)), None, generator=seeded())
    corner = torch.tensor([2.0, -1.0]).expand(3, 2)
    assert ((plan.actions - corner).abs() / (HIGH - LOW)).max() < within


def test_cem_finds_the_minimum_of_rosenbrocks_function():
    """A bent valley with its minimum at (1, 1), from the middle (0, 2) of the box."""

    def score(actions):
        x, y = actions[:, 0].unbind(-1)
        return -((1 - x) ** 2 + 10 * (y - x**2) ** 2)

    planner = CEM(LOW, HIGH, 1, iterations=40, momentum=0.5)
    for seed in range(5):
        plan = planner.plan(score, None, generator=seeded(seed))
        torch.testing.assert_close(plan.actions, torch.ones(1, 2), atol=1e-3, rtol=0)


def test_cem_finds_the_higher_of_two_hills():
    """A broad hill of height 1 at -1 and a narrower one of height 2 at +1."""

    def score(actions):
        x = actions[:, 0, 0]
        return torch.exp(-(((x + 1) / 0.5) ** 2)) + 2 * torch.exp(-(((x - 1) / 0.2) ** 2))

    planner = CEM(torch.tensor([-2.0]), torch.tensor([2.0]), 1, iterations=10)
    for seed in range(10):
        plan = planner.plan(score, None, generator=seeded(seed))
        assert plan.actions.item() == pytest.approx(1.0, abs=0.01)


def test_the_answer_is_the_best_candidate_or_the_final_mean():
    """`best` is the best candidate scored, `mean` the final mean, scored once more."""
    score = lambda a: -(a**4).sum((1, 2))  # noqa: E731
    scored = []
    recording = lambda a: scored.append(score(a)) or scored[-1]  # noqa: E731
    best = CEM(LOW, HIGH, 2, answer="best").plan(recording, None, generator=seeded())
    assert best.score == torch.cat(scored).max()
    assert best.evaluated == 5 * 350
    mean = CEM(LOW, HIGH, 2, answer="mean").plan(score, None, generator=seeded())
    torch.testing.assert_close(mean.actions, mean.mean)
    assert mean.evaluated == 5 * 350 + 1
    torch.testing.assert_close(mean.mean, best.mean)


def test_a_rejected_mean_is_replaced_by_the_best_candidate():
    """The mean of good plans on both sides of a forbidden strip is inside it."""
    low, high = -torch.ones(1), torch.ones(1)

    def score(actions):
        x = actions[:, 0, 0]
        return torch.where(x.abs() < 0.3, -math.inf, -((x.abs() - 0.5) ** 2))

    plan = CEM(low, high, 1, iterations=1).plan(score, None, generator=seeded())
    assert plan.mean.abs() < 0.3
    assert plan.actions.abs() >= 0.3
    assert plan.score.isfinite()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elites": 400}, "elites must be an integer of at most population = 350, got 400"),
        ({"elites": 0}, "elites must be an integer of at least 1, got 0"),
        ({"iterations": 0}, "iterations must be an integer in 1..1000000, got 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": math.nan}, r"momentum must be in \[0, 1\), got nan"),
        ({"sigma": 0.0}, "sigma must be finite and > 0, got 0.0"),
        ({"sigma": math.nan}, "sigma must be finite and > 0, got nan"),
        ({"sampling": "beta"}, "sampling must be one of truncated, clipped, got 'beta'"),
        ({"answer": "median"}, "answer must be one of best, mean, got 'median'"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        CEM(LOW, HIGH, 5, **change)
