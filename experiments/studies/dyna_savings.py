"""What imagined steps save: real steps to a return, by length, share and number of updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl.agents.sac import Config as SACAgentConfig
from mbrl.dynamics.configs import EnsembleConfig
from mbrl.training import RunConfig
from mbrl.training.folders import learning

LAST = 3
"""Training episodes whose mean return has to reach the threshold."""


class Task(NamedTuple):
    """An environment, the return to reach and the most real steps."""

    threshold: float
    steps: int


TASKS: Mapping[str, Task] = {
    "Pendulum-v1": Task(-250.0, 8000),
    "cartpole-swingup": Task(100.0, 12_000),
}
"""Thresholds are of training episodes, in which the policy explores."""


class Way(NamedTuple):
    """What is changed of Dyna: k, the share of real transitions and the updates a step."""

    horizon: int = 3
    real: float = 0.25
    updates: int = 5


CENTRE = Way()
VARIED: Mapping[str, Sequence[Way]] = {
    "rollout length k": [Way(horizon=k) for k in (1, 3, 5, 10)],
    "share of real transitions": [Way(real=share) for share in (0.05, 0.25, 0.5, 0.75)],
    "updates a step": [Way(updates=count) for count in (1, 5, 10, 20)],
}
"""One setting is varied at a time; the others are those of `CENTRE`."""


def dyna_savings(lab: Lab) -> Report:
    """Real steps to a return with Dyna, and with its learner alone at as many updates."""
    every = {"Pendulum-v1": Task(-1000.0, 800)} if lab.fast else TASKS
    tasks = {env: every[env] for env in lab.chosen(every)}
    varied = {"rollout length k": [Way(horizon=1), Way()]} if lab.fast else VARIED
    ways = sorted({way for row in varied.values() for way in row})
    alone = sorted({way.updates for way in ways})
    configs = {
        label: config
        for env, task in tasks.items()
        for label, config in (
            *((name(env, way), with_model(lab, env, task, way)) for way in ways),
            *((f"{env}, sac, {count} updates", without(lab, env, task, count)) for count in alone),
        )
    }
    paths = lab.train(configs)
    found: dict[str, Any] = {}
    for env, task in tasks.items():
        for label in (label for label in configs if label.startswith(f"{env}, ")):
            reached = [steps_to(*learning(path), task.threshold) for path in paths[label]]
            steps = [task.steps if one is None else one for one in reached]
            found[label] = {
                **labs.summary(steps), "reached": sum(one is not None for one in reached)
            }  # fmt: skip
    picture(found, tasks, varied, lab.folder / "dyna_savings.png")
    numbers = {
        "tasks": {env: task._asdict() for env, task in tasks.items()},
        "steps to the return": found,
    }
    return Report(numbers, page(found, tasks, ways, alone, lab.seeds))


def page(
    found: Mapping[str, Any],
    tasks: Mapping[str, Task],
    ways: Sequence[Way],
    alone: Sequence[int],
    seeds: int,
) -> str:
    """The study's page, in Markdown."""
    head = ["learner", "k", "real", "updates a step", "real steps", "seeds that reached it"]
    parts = []
    for env, task in tasks.items():
        rows: list[list[object]] = []
        for count in alone:
            own = found[f"{env}, sac, {count} updates"]
            rows.append(["sac alone", "", 1, count, labs.shown(own, 0), own["reached"]])
        for way in ways:
            own = found[name(env, way)]
            rows.append(["dyna", *way, labs.shown(own, 0), own["reached"]])
        parts.append(
            f"## {env}: a mean return of {task.threshold:g} over {LAST} training episodes\n\n"
            f"{labs.table(head, rows)}\n\nA run that does not reach it counts as "
            f"{task.steps:,} steps, where runs end."
        )
    text = "\n\n".join(parts)
    return f"""# What imagined steps save

Real steps until soft actor-critic reaches a return, with steps of a learned model and without:
interquartile mean over {seeds} seeds [95 % bootstrap interval]. "sac alone" has the same learner
and as many updates a step, so that only the imagined steps differ.

{text}
"""


def steps_to(steps: Sequence[int], returns: Sequence[float], threshold: float) -> int | None:
    """Real steps after which the last `LAST` episodes reach the threshold in the mean."""
    if len(returns) < LAST:
        return None
    means = np.convolve(returns, np.ones(LAST) / LAST, "valid")
    above = np.flatnonzero(means >= threshold)
    return int(steps[above[0] + LAST - 1]) if len(above) else None


def name(env: str, way: Way) -> str:
    """The label of a run with a model."""
    return f"{env}, dyna, k {way.horizon}, real {way.real:g}, {way.updates} updates"


def with_model(lab: Lab, env: str, task: Task, way: Way) -> RunConfig:
    """Dyna with soft actor-critic, by its preset and this way."""
    base = labs.preset_of("dyna", env)[1]
    agent = replace(base, base="sac", **way._asdict())
    if lab.fast:
        tiny = EnsembleConfig(members=2, hidden=(16,), epochs=2)
        agent = replace(agent, model=tiny, starts=50, batch=16, fit_every=200, updates=1)
    return _until(task, RunConfig("dyna", env, 0, task.steps, "cpu", agent))


def without(lab: Lab, env: str, task: Task, updates: int) -> RunConfig:
    """The same learner on real steps alone."""
    base = labs.preset_of("dyna", env)[1]
    agent = SACAgentConfig(
        learner=base.sac,
        learning_starts=base.learning_starts,
        updates=1 if lab.fast else updates,
        batch=16 if lab.fast else base.batch,
    )
    return _until(task, RunConfig("sac", env, 0, task.steps, "cpu", agent))


def _until(task: Task, run: RunConfig) -> RunConfig:
    """The run, which ends where it reaches the threshold."""
    return replace(run, until_return=task.threshold, until_episodes=LAST)


def picture(
    found: Mapping[str, Any],
    tasks: Mapping[str, Task],
    varied: Mapping[str, Sequence[Way]],
    path: Path,
) -> None:
    """Real steps by each setting, a row for each environment; sac alone beside Dyna."""
    title = "Real steps to a return, with imagined steps and without"
    figure, axes = plots.panels(title, len(tasks), len(varied), (14.0, 4.3 * len(tasks)))
    grid = np.asarray(axes).reshape(len(tasks), len(varied))
    fields = dict(zip(VARIED, Way._fields, strict=True))
    for row, env in zip(grid, tasks, strict=True):
        for ax, (what, ways) in zip(row, varied.items(), strict=True):
            x = [getattr(way, fields[what]) for way in ways]
            pairs = {
                "dyna": [found[name(env, way)] for way in ways],
                "sac alone, as many updates": [
                    found[f"{env}, sac, {way.updates} updates"] for way in ways
                ],
            }
            for (label, each), colour in zip(pairs.items(), plots.COLOURS, strict=False):
                line = plots.Curve.intervals(x, each)
                plots.draw_curve(ax, line, color=colour, marker="o", label=label)
            ax.set(xlabel=what, ylabel="real steps")
            ax.set_ylim(0, None)
            plots.note(ax, env)
            ax.legend(frameon=False, fontsize=9)
    plots.save(figure, path)
