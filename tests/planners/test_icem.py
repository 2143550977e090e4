"""iCEM: its population, its kept elites and its last candidate."""

import math

import pytest
import torch

from planners import CEM, ICEM
from planners.search import refit_to_elites
from tests.planners.bowl import HIGH, LOW, bowl, seeded


class Recorder:
    """A score that records its arguments."""

    def __init__(self):
        self.seen = []

    def __call__(self, actions):
        self.seen.append(actions.clone())
        return bowl(actions)


def test_population_decays_to_twice_the_elites():
    """120 / 2^i, but never fewer than 2 · 10."""
    planner = ICEM(LOW, HIGH, 4, population=120, elites=10, iterations=5, decay=2.0)
    assert planner.sizes() == [120, 60, 30, 20, 20]


def test_kept_elites_and_in_the_last_iteration_the_mean_are_scored_again():
    score = Recorder()
    planner = ICEM(LOW, HIGH, 4, population=60, elites=10, iterations=3, decay=1.5)
    planner.plan(score, None, generator=seeded())
    assert [len(a) for a in score.seen] == [60, 40 + 3, 26 + 3 + 1]
    mean = ((LOW + HIGH) / 2).expand(4, 2)
    std = (0.25 * (HIGH - LOW)).expand(4, 2)
    for before, after in zip(score.seen, score.seen[1:], strict=False):
        best = bowl(before).topk(10)[1]
        fresh = len(after) - 3 - (len(after) == 30)
        assert torch.equal(after[fresh : fresh + 3], before[best[:3]])
        mean, std = refit_to_elites(mean, std, before[best], 0.1)
    torch.testing.assert_close(score.seen[-1][-1], mean)


def test_shifted_elites_are_scored_in_the_next_call():
    planner = ICEM(LOW, HIGH, 4, population=60, elites=10, iterations=2)
    start = planner.shift(planner.plan(bowl, None, generator=seeded()), 1)
    score = Recorder()
    planner.plan(score, start, generator=seeded(1))
    assert torch.equal(score.seen[0][60:], start.elites[:3])


def test_the_answer_is_the_best_candidate_seen():
    score = Recorder()
    plan = ICEM(LOW, HIGH, 4).plan(score, None, generator=seeded())
    assert plan.score == bowl(torch.cat(score.seen)).max()
    assert torch.equal(plan.elites[0], plan.actions)


def test_without_noise_colour_memory_and_decay_icem_is_clipped_cem():
    """With white noise, no kept elites and no decay it is CEM plus the mean as last candidate."""
    common = {"population": 80, "elites": 8, "answer": "best"}
    icem = ICEM(LOW, HIGH, 3, beta=0.0, keep=0.0, decay=1.0, iterations=4, **common)
    cem = CEM(LOW, HIGH, 3, sampling="clipped", iterations=4, **common)
    ours, theirs = Recorder(), Recorder()
    icem.plan(ours, None, generator=seeded())
    cem.plan(theirs, None, generator=seeded())
    assert len(ours.seen[-1]) == len(theirs.seen[-1]) + 1
    torch.testing.assert_close(torch.cat(ours.seen)[:-1], torch.cat(theirs.seen))


def test_coloured_noise_moves_a_mass_further():
    """As in the paper: correlated forces move a double integrator far, white ones cancel.

    Position after H unit steps is sum_t (H - t - 1/2) u_t, whose spread over first-iteration
    draws has a closed form for white noise.
    """
    horizon = 30
    ends = {}
    for beta in (0.0, 3.0):
        score = Recorder()
        ICEM(-torch.ones(2), torch.ones(2), horizon, population=4000, iterations=1, beta=beta,
             sigma=0.1).plan(score, None, generator=seeded())  # fmt: skip
        weight = horizon - torch.arange(horizon) - 0.5
        ends[beta] = torch.einsum("h,nha->na", weight, score.seen[0][:-1]).std().item()
    white = 0.2 * math.sqrt(sum((horizon - t - 0.5) ** 2 for t in range(horizon)))
    assert ends[0.0] == pytest.approx(white, rel=0.05)
    assert ends[3.0] > 2.5 * ends[0.0]


def test_icem_finds_the_minimum_of_rosenbrocks_function():
    def score(actions):
        x, y = actions[:, 0].unbind(-1)
        return -((1 - x) ** 2 + 10 * (y - x**2) ** 2)

    planner = ICEM(LOW, HIGH, 1, population=350, elites=35, iterations=40, momentum=0.5)
    for seed in range(5):
        plan = planner.plan(score, None, generator=seeded(seed))
        torch.testing.assert_close(plan.actions, torch.ones(1, 2), atol=0.01, rtol=0)


def test_icem_finds_an_optimum_on_the_bounds():
    target = torch.tensor([3.0, -4.0])
    plan = ICEM(LOW, HIGH, 3, population=350, elites=35, iterations=10).plan(
        lambda a: -((a - target) ** 2).sum((1, 2)), None, generator=seeded()
    )
    corner = torch.tensor([2.0, -1.0]).expand(3, 2)
    assert ((plan.actions - corner).abs() / (HIGH - LOW)).max() < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elites": 101}, "elites must be an integer of at most population = 100, got 101"),
        ({"beta": -1.0}, "beta must be finite and >= 0, got -1.0"),
        ({"beta": math.nan}, "beta must be finite and >= 0, got nan"),
        ({"decay": 0.9}, "decay must be finite and >= 1, got 0.9"),
        ({"keep": 1.5}, r"keep must be in \[0, 1\], got 1.5"),
        ({"momentum": -0.1}, r"momentum must be in \[0, 1\), got -0.1"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        ICEM(LOW, HIGH, 5, **change)
