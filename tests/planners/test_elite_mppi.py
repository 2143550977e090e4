"""MPPI of the best candidates: its refit, its draws, and plans given to it."""

import math

import numpy as np
import pytest
import torch

from planners import MPC, EliteMPPI, MPCState, Plan, lqr
from tests.planners.bowl import HIGH, LOW, TARGET, bowl, seeded

BOX = torch.tensor([-1.0]), torch.tensor([1.0])


def one(**settings):
    """A planner of one action in [-1, 1]."""
    return EliteMPPI(*BOX, 1, **settings)


def test_the_refit_is_the_weighted_mean_and_std_of_the_elites():
    """Scores 3, 1 and λ = 2: weights 1 and e^-1, normalised."""
    planner = one(elites=2, population=3, temperature=2.0, floor=0.0)
    knots = torch.tensor([[[0.6]], [[-0.9]], [[0.2]]])
    scores = torch.tensor([3.0, -7.0, 1.0])
    elites = knots[[0, 2]]
    mean, std = planner.refit(torch.zeros(1, 1), torch.ones(1, 1), knots, scores, elites)
    first = 1 / (1 + math.exp(-1))
    centre = 0.6 * first + 0.2 * (1 - first)
    assert mean.item() == pytest.approx(centre)
    spread = math.sqrt(first * (0.6 - centre) ** 2 + (1 - first) * (0.2 - centre) ** 2)
    assert std.item() == pytest.approx(spread)


@pytest.mark.parametrize(("floor", "sigma", "least"), [(0.1, 1.0, 0.2), (0.1, 0.02, 0.04)])
def test_the_std_stays_between_its_floor_and_sigma(floor, sigma, least):
    planner = one(elites=2, population=4, floor=floor, sigma=sigma)
    alike = torch.full((2, 1, 1), 0.5)
    _, std = planner.refit(torch.zeros(1, 1), torch.ones(1, 1), alike, torch.zeros(2), alike)
    assert std.item() == pytest.approx(least)
    apart = torch.tensor([[[1.0]], [[-1.0]]])
    _, std = planner.refit(torch.zeros(1, 1), torch.ones(1, 1), apart, torch.zeros(2), apart)
    assert std.item() == pytest.approx(min(1.0, 2 * sigma))


def test_a_relative_temperature_does_not_depend_on_the_scale_of_the_score():
    """A factor of eight is exact in binary, so plans are equal to the bit."""
    for relative in (True, False):
        planner = EliteMPPI(LOW, HIGH, 4, relative=relative, temperature=0.2)
        plan = planner.plan(bowl, None, generator=seeded())
        scaled = planner.plan(lambda a: 8 * bowl(a), None, generator=seeded())
        assert torch.equal(plan.actions, scaled.actions) == relative


def test_the_answer_is_drawn_with_the_weights_of_the_elites():
    planner = one(temperature=1.0)
    elites, scores = torch.tensor([[[0.1]], [[0.2]], [[0.3]]]), torch.tensor([2.0, 1.0, 0.0])
    draw, count = seeded(), 4000
    drawn = [planner.draw(elites, scores, generator=draw) for _ in range(count)]
    actions = torch.stack([knots for knots, _ in drawn]).flatten()
    weights = scores.softmax(0)
    for action, score, weight in zip(elites.flatten(), scores, weights, strict=True):
        share = (actions == action).double().mean().item()
        error = math.sqrt(weight * (1 - weight) / count)
        assert share == pytest.approx(weight.item(), abs=4 * error)
        assert {s.item() for knots, s in drawn if knots.item() == action} == {score.item()}


def test_the_plan_that_is_returned_is_one_of_the_last_elites_with_its_score():
    plan = EliteMPPI(LOW, HIGH, 4).plan(bowl, None, generator=seeded())
    assert any(torch.equal(plan.actions, elite) for elite in plan.elites)
    assert plan.score == bowl(plan.actions[None])[0]
    assert plan.evaluated == 6 * 512  # the mean itself is not scored


def test_the_mean_comes_near_the_optimum_of_a_bowl():
    planner = EliteMPPI(LOW, HIGH, 3, iterations=12, answer="mean", floor=0.001)
    plan = planner.plan(bowl, None, generator=seeded())
    assert ((plan.actions - TARGET).abs() / (HIGH - LOW)).max() < 0.001


def test_given_plans_are_scored_in_every_round_among_the_population():
    planner, seen = one(population=8, elites=2, iterations=3), []
    given = torch.tensor([[[0.123]], [[-0.456]]])
    start = Plan(
        torch.zeros(1, 1), torch.tensor(0.0), torch.zeros(1, 1), torch.ones(1, 1), given, 0, 0
    )

    def score(actions):
        seen.append(actions)
        return -actions.flatten().square()

    planner.plan(score, start, generator=seeded())
    assert [len(actions) for actions in seen] == [8, 8, 8]
    assert all(torch.equal(actions[:2], given) for actions in seen)
    assert not torch.equal(seen[0][2:], seen[1][2:])


def test_given_plans_are_at_most_half_of_the_population():
    planner, seen = one(population=8, elites=2, iterations=1), []
    start = Plan(
        torch.zeros(1, 1), torch.tensor(0.0), torch.zeros(1, 1), torch.ones(1, 1),
        torch.full((7, 1, 1), 0.5), 0, 0,
    )  # fmt: skip
    planner.plan(lambda a: seen.append(a) or a.flatten(), start, generator=seeded())
    assert (seen[0] == 0.5).sum() == 4 and len(seen[0]) == 8


def test_mpc_keeps_the_mean_of_the_last_plan_and_hands_on_the_guesses():
    """A guess with a far better score than all else does not become the mean."""
    means = []

    class Watched(EliteMPPI):
        def sample(self, mean, std, count, *, generator):
            means.append(mean.clone())
            return super().sample(mean, std, count, generator=generator)

    watched = Watched(*BOX, 1, population=8, elites=1, iterations=1, sigma=1e-4)
    last = Plan(
        torch.zeros(1, 1), torch.tensor(0.0), torch.tensor([[0.25]]), torch.ones(1, 1),
        torch.empty(0, 1, 1), 0, 0,
    )  # fmt: skip
    mpc = MPC(watched)
    guesses = torch.full((3, 1, 1), 0.9)
    action, state = mpc.act(
        lambda: lambda a: a.flatten(), MPCState(last, 1), guesses=lambda: guesses,
        generator=seeded(),
    )  # fmt: skip
    assert means[0].item() == 0.25
    assert action.item() == pytest.approx(0.9) and state.plan is not None


def test_all_rejected_candidates_leave_the_first_mean():
    plan = one().plan(lambda a: torch.full((len(a),), math.nan), None, generator=seeded())
    assert plan.actions.item() == 0 and plan.score == -math.inf


def test_receding_plans_come_near_the_riccati_controller():
    """s' = 1.2 s + u, reward -s² - u²/2 over six steps, the first action of the exact solution."""
    a, b, r, steps, start = 1.2, 1.0, 0.5, 6, 0.6
    exact = lqr(
        np.array([[a]]), np.array([[b]]), np.array([[2.0]]), np.array([[2 * r]]), horizon=steps
    )

    def score(actions):
        state, total = torch.full((len(actions),), start), torch.zeros(len(actions))
        for u in actions[..., 0].unbind(1):
            total = total - state.square() - r * u.square()
            state = a * state + b * u
        return total - state.square()

    planner = EliteMPPI(*BOX, steps, iterations=20, floor=0.001, answer="mean")
    plan = planner.plan(score, None, generator=seeded())
    want = float(exact.gain[0, 0, 0] * start)
    assert plan.actions[0].item() == pytest.approx(want, abs=0.01)
    assert abs(want) > 0.4  # far from the mean that the search begins with
