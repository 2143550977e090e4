"""Open loop against closed loop: the same model, with plans carried out for longer or shorter.

A plan cannot react to noise, and the model's errors add up along it; replanning corrects both. So
the advantage of a closed loop should grow with noise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.common import cells, gain, means, measured, tiny
from experiments.studies.lab import Lab, Report
from experiments.studies.versions import WHOLE_EPISODE
from mbrl.agents import PlannerConfig

ENVIRONMENTS = ("cartpole-swingup", "cartpole-swingup-noisy")

_OFTEN = PlannerConfig(horizon=50, population=80, iterations=3, elites=8)
_SELDOM = replace(_OFTEN, population=200, iterations=10, elites=20)

LOOPS: dict[str, tuple[int, PlannerConfig]] = {
    "open loop": (0, WHOLE_EPISODE),
    "every 25": (25, _SELDOM),
    "every 5": (5, _OFTEN),
    "every step": (1, _OFTEN),
}
"""Steps between plans (0: one plan for the episode) and the search. Those that plan seldom search
longer, so that the comparison is about feedback and not about the quality of the search."""


def loops(lab: Lab) -> Report:
    """Evaluation returns by how often the agent replans, without and with noise."""
    episodes = 1 if lab.fast else 5
    paths = lab.train({env: lab.pets(env) for env in ENVIRONMENTS})
    searches = {name: planner for name, (_, planner) in LOOPS.items()}
    if lab.fast:
        searches = {name: tiny(planner) for name, planner in searches.items()}
    asked = {
        (env, name): [
            (path, episodes, {"replan_every": every, "planner": searches[name]})
            for path in paths[env]
        ]
        for env in ENVIRONMENTS
        for name, (every, _) in LOOPS.items()
    }
    answers = means(measured(lab, labs.final_returns, asked))
    numbers: dict[str, Any] = {"episodes": episodes, "returns": {}, "margin": {}}
    rows, margins = [], []
    scores = {env: {name: answers[env, name] for name in LOOPS} for env in ENVIRONMENTS}
    for env, by_loop in scores.items():
        found = {name: labs.summary(own) for name, own in by_loop.items()}
        rows.append([env, *cells(*found.values())])
        numbers["returns"][env] = found
        numbers["margin"][env] = gain(by_loop["every step"], by_loop["open loop"])
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

One model for each seed, learned by PETS 1.5, over {episodes} new episodes for each way of using it;
interquartile mean over {lab.seeds} seeds [95 % bootstrap interval].

{labs.table(["environment", *LOOPS], rows)}

{chr(10).join(margins)}

The open loop plans all 150 steps, the others {_OFTEN.horizon}. Those that replan at every 25 steps
or never search {_SELDOM.population} candidates in {_SELDOM.iterations} iterations, the others
{_OFTEN.population} in {_OFTEN.iterations}.
"""
    return Report(numbers, text)
