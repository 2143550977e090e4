"""Planning while acting: does a search through the model, on top of the policy, save real steps?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl.training import RunConfig
from mbrl.training.metrics import METRICS, read_metrics

AGENTS = ("dyna", "mve", "mbpo", "svg", "dhmbpo")
ENVIRONMENT = "Pendulum-v1"
STEPS, EVERY, EPISODES = 1200, 200, 5
KINDS: Mapping[str, bool] = {"policy": False, "planning": True}


def acting(lab: Lab) -> Report:
    """Returns of evaluation episodes by real steps, with a planner on top and without."""
    agents = AGENTS[:1] if lab.fast else AGENTS
    cases = [(algo, kind) for algo in agents for kind in KINDS]
    configs = {f"{algo}, {kind}": config(lab, algo, planning=KINDS[kind]) for algo, kind in cases}
    names = lab.chosen(configs)
    paths = lab.train({name: configs[name] for name in names})
    found = {name: by_steps([evaluations(path) for path in own]) for name, own in paths.items()}
    lines: dict[str, dict[str, plots.Curve]] = {}
    for algo, kind in cases:
        if own := found.get(f"{algo}, {kind}"):
            curve = plots.Curve.intervals(list(own), list(own.values()))
            lines.setdefault(algo, {})[kind] = curve
    figure = plots.curves(
        lines,
        title=f"Acting by the policy, and by planning on top of it, {ENVIRONMENT}",
        xlabel="environment steps",
        ylabel="return of evaluation episodes",
        size=(max(3.1 * len(lines), 6.0), 4.4),
    )
    lowest = min(one["low"] for own in found.values() for one in own.values())
    for ax in figure.axes:
        ax.set_ylim(1.05 * lowest, 0)
    plots.save(figure, lab.folder / "acting.png")
    steps = sorted({step for own in found.values() for step in own})
    rows = [
        [name, *(labs.shown(own[step], 0) if step in own else "" for step in steps)]
        for name, own in found.items()
    ]
    text = f"""# Planning while acting

The presets of agents with a model and an actor-critic on {ENVIRONMENT}, acting by their policy or,
once there is a model, by a search through it: plans of a few steps that end with the critic's value
and begin from the policy's proposals. Return of {EPISODES} episodes without exploration, after so
many environment steps; interquartile mean over {lab.seeds} seeds [95 % bootstrap interval].

{labs.table(["", *(f"{step:,} steps" for step in steps)], rows)}
"""
    numbers = {
        "episodes": EPISODES,
        "returns": {n: {str(s): one for s, one in own.items()} for n, own in found.items()},
    }
    return Report(numbers, text)


def config(lab: Lab, algo: str, *, planning: bool) -> RunConfig:
    """A run of an algorithm's preset, with a planner on top of the policy or without."""
    agent = replace(labs.preset_of(algo, ENVIRONMENT)[1], planning=planning)
    steps, every, episodes = STEPS, EVERY, EPISODES
    if lab.fast:
        steps, every, episodes = 240, 120, 1
        model = replace(agent.model, hidden=(8,), epochs=2)
        agent = replace(agent, model=model, learning_starts=100, updates=1)
    return RunConfig(
        algo,
        ENVIRONMENT,
        0,
        steps,
        "cpu",
        agent,
        evaluate_every=every,
        evaluation_episodes=episodes,
    )


def evaluations(path: Path) -> dict[int, float]:
    """Mean returns of a run's evaluations, by environment steps."""
    lines = read_metrics(path / METRICS, "evaluation", numbers=["return"])
    return {line["env_steps"]: line["return"] for line in lines}


def by_steps(seeds: list[dict[int, float]]) -> dict[int, dict[str, Any]]:
    """The summary over seeds of the returns at each number of steps."""
    return {step: labs.summary([own[step] for own in seeds]) for step in seeds[0]}
