"""Return against milliseconds per action: how much search does a trained model need?

One model for each seed; only the planner and the number of particles change. Returns are measured
in worker processes on all cores; times in this process with no other running, one action after
another, with the settings in turn.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.common import means, measured
from experiments.studies.lab import Lab, Report
from mbrl.agents import PlannerConfig
from mbrl.evaluation import act_milliseconds
from mbrl.training import Episodes, play

ENVIRONMENT = "cartpole-swingup"
WARM = 2  # untimed actions first: the preset replans at every second action


def _icem(population: int, iterations: int) -> PlannerConfig:
    elites = max(3, population // 8)
    return PlannerConfig(horizon=25, population=population, iterations=iterations, elites=elites)


_CEM = PlannerConfig("cem", population=350, iterations=5, elites=35)

SETTINGS: dict[str, dict[str, tuple[PlannerConfig, int]]] = {
    "CEM, published budget": {
        f"horizon {horizon}": (replace(_CEM, horizon=horizon), 20) for horizon in (15, 25)
    },
    **{
        f"iCEM, {particles} particles": {
            f"{population} x {iterations}": (_icem(population, iterations), particles)
            for population, iterations in ((20, 1), (20, 2), (40, 2), (40, 3), (70, 3), (100, 4))
        }
        for particles in (5, 10, 20)
    },
    "MPPI, 5 particles": {
        f"{population} x {iterations}": (
            PlannerConfig("mppi", 25, population, iterations, beta=2.0), 5
        )
        for population, iterations in ((40, 2), (100, 3), (200, 4))
    },
}  # fmt: skip
"""Planner and particles, by label and setting; the first label is the reference."""


def frontier(lab: Lab) -> Report:
    """Return and mean milliseconds of each setting, and the fastest one of equal return."""
    episodes, actions = (1, 4) if lab.fast else (2, 20)
    paths = lab.train({ENVIRONMENT: lab.pets(ENVIRONMENT)})[ENVIRONMENT]
    settings = {
        (label, name): {"planner": planner, "particles": particles}
        for label, by_name in SETTINGS.items()
        for name, (planner, particles) in by_name.items()
    }
    if lab.fast:
        tiny = {key: settings[key] for key in settings if key[1] in ("horizon 15", "40 x 2")}
        settings = {}
        for key, change in tiny.items():
            planner = change["planner"]
            small = replace(planner, population=20, elites=planner.elites and 4)
            settings[key] = change | {"planner": small}
    asked = {key: [(path, episodes, change) for path in paths] for key, change in settings.items()}
    scores = means(measured(lab, labs.final_returns, asked))
    lab.say(f"timing {len(settings)} settings, {actions} actions each")
    milliseconds = timed(paths[0], settings, actions)
    found = {key: {"ms": milliseconds[key], **labs.summary(scores[key])} for key in settings}
    published = max(
        (key for key in found if key[0] == next(iter(SETTINGS))),
        key=lambda key: found[key]["estimate"],
    )
    reference = found[published]
    equal = [key for key in found if found[key]["estimate"] >= reference["low"]]
    best = min(equal, key=lambda key: found[key]["ms"])
    ratio = reference["ms"] / found[best]["ms"]
    figure = plots.frontier(
        {
            label: [
                (point["ms"], point["estimate"], point["low"], point["high"])
                for key, point in found.items()
                if key[0] == label
            ]
            for label in SETTINGS
        },
        title=f"Return for the time spent on an action, {ENVIRONMENT}",
    )
    plots.save(figure, lab.folder / "frontier.png")
    numbers: dict[str, Any] = {
        "episodes": episodes,
        "actions timed": actions,
        "torch threads": torch.get_num_threads(),
        "settings": {", ".join(key): point for key, point in found.items()},
        "published": ", ".join(published),
        "fastest at equal return": ", ".join(best),
        "ratio": ratio,
    }
    rows = [[*key, f"{p['ms']:.1f}", labs.shown(p)] for key, p in found.items()]
    text = f"""# Return against milliseconds per action

One PETS model for each seed on {ENVIRONMENT}, {episodes} new episodes for each setting (candidates
x iterations); interquartile mean over {lab.seeds} seeds [95 % bootstrap interval]. Milliseconds are
means over {actions} actions of the first seed's agent, alone on the machine, with
{torch.get_num_threads()} threads.

{labs.table(["planner", "setting", "ms per action", "return"], rows)}

The fastest setting whose return lies within or above the interval of {", ".join(published)}
({reference["ms"]:.1f} ms) is {", ".join(best)} ({found[best]["ms"]:.1f} ms), {ratio:.1f} times as
fast.
"""
    return Report(numbers, text)


def timed(
    path: Path, settings: dict[tuple[str, str], dict[str, Any]], actions: int
) -> dict[tuple[str, str], float]:
    """Mean milliseconds per action of each setting along one episode of the run's own agent."""
    loaded, agent = labs.trained(path)
    own = agent.player(generator=torch.Generator().manual_seed(0))
    steps = play(own, loaded.env, Episodes(labs.EVALUATION))
    episode = [step.obs[0].numpy() for step, _ in zip(steps, range(actions + WARM), strict=False)]
    players = {
        key: labs.trained(path, **change)[1].controller(generator=torch.Generator().manual_seed(0))
        for key, change in settings.items()
    }
    return act_milliseconds(players, episode)
