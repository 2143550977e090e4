"""Actions per second of an agent that plans."""

from __future__ import annotations

from experiments.bench.measure import Bench, Result, rate
from experiments.bench.parts import (
    Planning,
    fallen,
    make_search,
    never,
    run_forward,
    scorer,
    stay_upright,
)


def action(bench: Bench, *, population: int | None = None, iterations: int = 5) -> list[Result]:
    """PETS actions/s at its published budgets: CEM, TS∞, 20 particles, warm started.

    Observation sizes are those of mbrl-lib's nets: 4 for the cart-pole and 18 for the half-cheetah.
    With untrained nets every pole falls within a few steps. Ours then stops, while mbrl-lib goes
    on to the horizon; in the row "none falls" both go on.
    """
    results = []
    for work, task, obs, size, horizon, published, reward, terminated in (
        ("cart-pole", "cart-pole", 4, 1, 15, 350, stay_upright, fallen),
        ("cart-pole, none falls", "cart-pole", 4, 1, 15, 350, stay_upright, never),
        ("half-cheetah", "half-cheetah", 18, 6, 30, 500, run_forward, None),
    ):
        count = population or published
        search = make_search("cem", size, horizon, count, iterations)
        plan = Planning(search, scorer(obs, size, horizon, reward, terminated))
        request = {"task": task, "population": count, "iterations": iterations}
        peer = bench.ask(work="action", propagation="fixed_model", **request)
        results += bench.compare(
            f"CEM action, {work}", "actions/s", rate(1, plan), {"mbrl-lib": peer}, mbrl_lib="≥ 2"
        )
    return results
