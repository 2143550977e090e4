"""Objectives for planning under uncertainty, on a path beside a cliff.

A point goes from the origin to a goal, past a cliff just below the straight line. Gusts are noise
of known variance. In a strip along the edge there is a cross wind of unknown strength and
direction, on which the members disagree. A detour around the strip takes time and avoids cliff and
wind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.common import cells, measured
from experiments.studies.lab import Lab, Report
from mbrl.dynamics import Analytic
from mbrl.imagination import objective, rollout, score_fn
from planners import ICEM

WINDS = (-0.06, -0.03, 0.0, 0.03, 0.06)  # displacement per step along y in the strip, by member
SPEED, GUSTS = 0.15, 0.03  # per step: largest movement of the point, and std of the noise
GOAL = (2.0, 0.0)
CLIFF = (0.4, 1.6, -0.1)  # x from, x to, below y
STRIP = 0.6  # height of the windy strip over the edge
FALL = -5.0
HORIZON = 25
TAIL = 0.1

OBJECTIVES: dict[str, tuple[str, float]] = {
    "optimism": ("mean+std:1", 0.0),
    "mean": ("mean", 0.0),
    "caution": ("mean-std:1", 0.0),
    f"CVaR {TAIL:g}": (f"cvar:{TAIL}", 0.0),
    "worst": ("worst", 0.0),
    "penalty": ("mean", 10.0),
}
"""Objective and epistemic penalty of `mbrl.imagination.score_fn`."""


class Budget(NamedTuple):
    """The size of the search for a plan, and how often the plan is carried out."""

    population: int
    iterations: int
    particles: int
    draws: int  # times that the plan is carried out


def objectives(lab: Lab) -> Report:
    """Mean and worst tenth of the true return of each objective's plan."""
    budget = Budget(60, 3, 20, 500) if lab.fast else Budget(300, 10, 100, 20_000)
    asked = {
        name: [(*setting, seed, budget) for seed in range(lab.seeds)]
        for name, setting in OBJECTIVES.items()
    }
    answers = measured(lab, outcome, asked)
    kinds = ("mean", "worst tenth", "falls", "clearance")
    scores = {
        what: {name: [one[what] for one in own] for name, own in answers.items()} for what in kinds
    }
    numbers: dict[str, Any] = {
        "settings": {
            "winds": WINDS, "speed": SPEED, "gusts": GUSTS, "goal": GOAL, "cliff": CLIFF,
            "strip": STRIP, "fall": FALL, "horizon": HORIZON, "objectives": OBJECTIVES,
            **budget._asdict(),
        },
        "outcomes": {
            what: {name: labs.summary(own) for name, own in by_name.items()}
            for what, by_name in scores.items()
        },
    }  # fmt: skip
    figure = plots.bars(
        {name: {what: scores[what][name] for what in kinds[:2]} for name in OBJECTIVES},
        title="Beside a cliff: return of each objective's plan",
    )
    plots.save(figure, lab.folder / "objectives.png")
    outcomes = numbers["outcomes"].values()
    rows = [[name, *cells(*(one[name] for one in outcomes), digits=2)] for name in OBJECTIVES]
    text = f"""# Objectives beside a cliff

The best plan found under each objective ({budget.population} candidates in {budget.iterations}
iterations, {budget.particles} particles), carried out {budget.draws} times open loop; each time the
wind is drawn anew from the members' values. Interquartile mean over {lab.seeds} seeds [95 %
bootstrap interval]: return, mean return of the worst tenth, share of falls, and the least distance
of the mean path from the edge above the cliff.

{labs.table(["objective", *kinds], rows)}
"""
    return Report(numbers, text)


def reward(_: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Minus a tenth of the distance to the goal, plus `FALL` for a fall."""
    distance = (next_obs - next_obs.new_tensor(GOAL)).norm(dim=-1)
    return FALL * fallen(next_obs) - 0.1 * distance


def fallen(obs: Tensor) -> Tensor:
    """Whether the point is over the cliff."""
    x, y = obs.unbind(-1)
    return (x > CLIFF[0]) & (x < CLIFF[1]) & (y < CLIFF[2])


def moved(state: Tensor, action: Tensor, wind: Tensor) -> Tensor:
    """The mean next position (..., 2)."""
    x, y = (state + SPEED * action).unbind(-1)
    in_strip = (x > CLIFF[0]) & (x < CLIFF[1]) & (y < CLIFF[2] + STRIP)
    return torch.stack((x, y + wind * in_strip), -1)


def outcome(goal: str, penalty: float, seed: int, budget: Budget) -> dict[str, float]:
    """The true outcome of the plan that is best under an objective and a penalty."""
    generator = torch.Generator().manual_seed(seed)
    model = Analytic(moved, torch.tensor([GUSTS, GUSTS]), torch.tensor(WINDS))
    start = torch.zeros(2)
    known: dict[str, Any] = {"reward": reward, "terminated": fallen, "generator": generator}
    risk: dict[str, Any] = {"objective": goal, "penalty": penalty}
    score = score_fn(model, start, horizon=HORIZON, particles=budget.particles, **risk, **known)
    box = torch.ones(2)
    planner = ICEM(
        -box, box, HORIZON, knots=8, interpolation="linear",
        population=budget.population, iterations=budget.iterations, elites=budget.population // 10,
    )  # fmt: skip
    plan = planner.plan(score, None, generator=generator)
    real = rollout(model, start, plan.actions.unsqueeze(0), particles=budget.draws, **known)
    returns = real.returns()
    path = real.state[:, 0].mean(0)
    beside = path[(path[:, 0] > CLIFF[0]) & (path[:, 0] < CLIFF[1]), 1]
    return {
        "mean": float(returns.mean()),
        "worst tenth": float(objective(f"cvar:{TAIL}")(returns)),
        "falls": float(real.terminated.any(-1).float().mean()),
        "clearance": float(np.min([*beside.tolist(), 10.0])) - CLIFF[2],
    }
