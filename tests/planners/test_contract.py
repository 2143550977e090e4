"""`check_planner` accepts the library's planners and names each breach in one line."""

from dataclasses import dataclass

import pytest
import torch

from planners import PLANNERS, check_planner
from tests.own_parts.parts import Bees


@pytest.mark.parametrize("kind", PLANNERS.values(), ids=list(PLANNERS))
def test_the_librarys_planners_pass(kind):
    check_planner(kind)


def test_a_users_planner_passes_as_a_class_and_as_an_object():
    check_planner(Bees)
    check_planner(Bees, bees=5, rounds=2)
    check_planner(Bees(-torch.ones(3), torch.ones(3), 7))


@dataclass(frozen=True)
class Transposed(Bees):
    def plan(self, score, start, *, generator, deadline=None):
        plan = Bees.plan(self, score, None, generator=generator)
        return plan._replace(actions=plan.actions.T)


@dataclass(frozen=True)
class Outside(Bees):
    def plan(self, score, start, *, generator, deadline=None):
        plan = Bees.plan(self, score, start, generator=generator)
        return plan._replace(actions=plan.actions + 5, score=score(plan.actions[None] + 5)[0])


@dataclass(frozen=True)
class Boasts(Bees):
    def plan(self, score, start, *, generator, deadline=None):
        return Bees.plan(self, score, start, generator=generator)._replace(score=torch.tensor(9.0))


@dataclass(frozen=True)
class Global(Bees):
    def plan(self, score, start, *, generator, deadline=None):
        torch.rand(1)
        return Bees.plan(self, score, start, generator=generator)


@dataclass(frozen=True)
class Forgets(Bees):
    def plan(self, score, start, *, generator, deadline=None):
        fresh = torch.Generator()
        fresh.seed()
        return Bees.plan(self, score, start, generator=fresh)


@dataclass(frozen=True)
class Unhurried(Bees):
    def plan(self, score, start, *, generator):
        return Bees.plan(self, score, start, generator=generator)


@dataclass(frozen=True)
class Gives(Bees):
    def plan(self, score, start, *, generator, deadline=None):
        return Bees.plan(self, score, start, generator=generator).actions


@dataclass(frozen=True)
class Helpless(Bees):
    def plan(self, score, start, *, generator, deadline=None):
        plan = Bees.plan(self, score, start, generator=generator)
        lost = not bool(plan.score.isfinite())
        return plan._replace(actions=plan.actions * float("nan")) if lost else plan


class Unshifted:
    def __init__(self, low, high, horizon):
        self.low, self.high, self.horizon = low, high, horizon

    def plan(self, score, start, *, generator, deadline=None):
        return Bees(self.low, self.high, self.horizon).plan(score, start, generator=generator)


class Boxless:
    def __init__(self, box):
        self.box = box


BROKEN = [
    (Transposed, r"plan: wanted actions of shape \(5, 2\), got \(2, 5\)"),
    (Outside, "plan: actions leave the box"),
    (Boasts, "plan: says a score of 9 for actions that score"),
    (Global, "plan: draws from torch's global stream"),
    (Forgets, "plan: the same generator gives another plan"),
    (Unhurried, "plan: raised TypeError: .*deadline"),
    (Gives, "plan: wanted a planners.Plan, got a Tensor"),
    (Helpless, "plan with every candidate forbidden: actions hold a number that is not finite"),
    (Unshifted, "has no shift"),
    (Boxless, r"cannot be built from \(low, high, horizon, settings\)"),
]


@pytest.mark.parametrize(("kind", "line"), BROKEN, ids=[kind.__name__ for kind, _ in BROKEN])
def test_each_breach_of_the_contract_is_named_in_one_line(kind, line):
    with pytest.raises(ValueError, match=f"planner {kind.__name__}: {line}") as error:
        check_planner(kind)
    assert "\n" not in str(error.value)


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no setting 'wasps'; there are bees, rounds, spread"):
        check_planner(Bees, wasps=3)
