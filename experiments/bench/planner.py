"""The planner's own share of the time that a plan takes."""

from __future__ import annotations

from experiments.bench.measure import Bench, Result, rate
from experiments.bench.parts import Planning, fallen, make_search, scorer, stay_upright


def planner(bench: Bench, *, population: int = 350) -> list[Result]:
    """Plans/s with a model, over plans/s with a trivial score: the planner's share of the time."""
    score = scorer(4, 1, 15, stay_upright, fallen)
    results = []
    for name in ("cem", "icem", "mppi"):
        search = make_search(name, 1, 15, population, 5)
        free = Planning(search, lambda: lambda actions: actions.sum((1, 2)))
        full = Planning(search, score)
        results += bench.compare(name, "plans/s", rate(1, full), {"planner alone": rate(1, free)})
    return results
