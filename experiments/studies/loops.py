"""Open loop against closed loop: the same model, plans carried out for longer or shorter.

A plan is made for the noise that a model expects, not for the noise that comes, and its errors add
up; replanning corrects both. So the margin of a closed loop should grow with noise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from experiments.studies.versions import WHOLE_EPISODE
from mbrl.agents import PlannerConfig
from mbrl.training.executor import Work

ENVIRONMENTS = ("cartpole-swingup", "cartpole-swingup-noisy")

_OFTEN = PlannerConfig(horizon=50, population=80, iterations=3, elites=8)
_SELDOM = replace(_OFTEN, population=200, iterations=10, elites=20)

LOOPS: dict[str, tuple[int, PlannerConfig]] = {
    "open loop": (0, WHOLE_EPISODE),
    "every 25": (25, _SELDOM),
    "every 5": (5, _OFTEN),
    "every step": (1, _OFTEN),
}
"""How often each replans, and its search: who plans seldom may search longer, so that what is
compared is feedback and not luck in searching."""


def loops(lab: Lab) -> Report:
    """Evaluation returns by how often the agent replans, without and with noise."""
    episodes = 1 if lab.fast else 5
    paths = lab.train({env: lab.pets(env) for env in ENVIRONMENTS})
    asked = {}
    for env in ENVIRONMENTS:
        for name, (every, planner) in LOOPS.items():
            if lab.fast:
                planner = replace(planner, population=8, iterations=1, elites=2)
            changes = {"replan_every": every, "planner": planner}
            for seed, path in enumerate(paths[env]):
                work = (path, episodes, changes)
                label = f"{env}, {name}, seed {seed}"
                asked[env, name, seed] = Work(labs.final_returns, work, label)
    answers = lab.answers(asked)

    numbers: dict[str, Any] = {"episodes": episodes, "returns": {}, "margin": {}}
    rows, margins = [], []
    scores = {env: {name: lab.means(answers, env, name) for name in LOOPS} for env in ENVIRONMENTS}
    for env, by_loop in scores.items():
        found = {name: labs.summary(own) for name, own in by_loop.items()}
        rows.append([env, *(labs.shown(one) for one in found.values())])
        gain = np.subtract(by_loop["every step"], by_loop["open loop"]).tolist()
        numbers["returns"][env] = found
        numbers["margin"][env] = labs.summary(gain)
        margins.append(
            f"On {env}, replanning at every step returns "
            f"{labs.shown(numbers['margin'][env])} more than the open loop (by seed, same model)."
        )
    figure = plots.bars(
        {
            name: {
                ("noisy" if env.endswith("noisy") else "no noise"): scores[env][name]
                for env in ENVIRONMENTS
            }
            for name in LOOPS
        },
        title="Open loop against closed loop, the same model",
    )
    plots.save(figure, lab.folder / "loops.png")
    text = f"""# Open loop against closed loop

One model a seed, learned by PETS 1.5, over {episodes} fresh episodes for each way of using it;
interquartile mean over {lab.seeds} seeds [95 % bootstrap interval].

{labs.table(["environment", *LOOPS], rows)}

{chr(10).join(margins)}

The open loop plans all 150 steps, the others {_OFTEN.horizon}; those who plan seldom search
{_SELDOM.population} candidates in {_SELDOM.iterations} iterations, the others
{_OFTEN.population} in {_OFTEN.iterations}.
"""
    return Report(numbers, text)
