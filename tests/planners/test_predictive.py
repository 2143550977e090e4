"""Predictive sampling: no worse than the last plan."""

import torch

from planners import PredictiveSampling

LOW, HIGH = torch.tensor([-1.0, -3.0]), torch.tensor([1.0, 2.0])
TARGET = torch.tensor([0.5, -1.0])


def bowl(actions):
    return -((actions - TARGET) ** 2).sum((1, 2))


def test_the_best_plan_is_scored_again_and_kept_unless_beaten():
    planner = PredictiveSampling(LOW, HIGH, 4, population=3)
    generator = torch.Generator().manual_seed(0)
    seen = []
    score = lambda a: seen.append(a) or bowl(a)  # noqa: E731
    plan = planner.plan(score, None, generator=generator)
    for _ in range(30):
        new = planner.plan(score, plan, generator=generator)
        assert torch.equal(seen[-1][-1], plan.actions)
        assert new.evaluated == 4
        assert new.score >= plan.score
        assert torch.equal(new.mean, new.actions)
        plan = new


def test_the_std_is_constant():
    planner = PredictiveSampling(LOW, HIGH, 4, population=4000, iterations=3, sigma=0.05)
    seen = []
    score = lambda a: seen.append(a.clone()) or bowl(a)  # noqa: E731
    plan = planner.plan(score, None, generator=torch.Generator().manual_seed(0))
    for candidates in seen:
        spread = (candidates - candidates[-1])[:-1].square().mean(0).sqrt() / (HIGH - LOW)
        torch.testing.assert_close(spread, torch.full((4, 2), 0.05), rtol=0.06, atol=0)
    torch.testing.assert_close(plan.std, (0.05 * (HIGH - LOW)).expand(4, 2))
