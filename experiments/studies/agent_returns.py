"""Returns of agents beside published ones, and how long they take: what such studies share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import plots
from experiments.presets import environments
from experiments.studies import lab as labs
from experiments.studies.common import means, measured
from experiments.studies.lab import Lab, Report
from mbrl.training import RunConfig
from mbrl.training.folders import learning
from mbrl.training.metrics import TIMINGS


class Row(NamedTuple):
    """A learner on an environment."""

    algo: str
    env: str
    steps: int
    """Numbers of actions."""
    action_repeat: int = 1


class Published(NamedTuple):
    """A point of a published learning curve."""

    source: str
    steps: int
    """Numbers of actions."""
    value: float
    minutes: float | None = None
    """Wall time on a GPU, where it is known."""

    def __str__(self) -> str:
        time = "" if self.minutes is None else f" in {self.minutes:g} minutes on a GPU"
        return f"{self.source} {self.value:g}{time}"


def agent_returns(
    lab: Lab,
    rows: Sequence[Row],
    published: Mapping[str, Sequence[Published]],
    *,
    title: str,
    small: Callable[[Any], Any],
    episodes: Mapping[str, int] | None = None,
) -> Report:
    """Learning curves of agents, returns of their policies, and their time.

    Args:
        lab: the study.
        rows: agents and environments.
        published: points of published learning curves, by environment.
        title: of the page.
        small: settings of an agent made small, for the fast version.
        episodes: evaluation episodes by environment, where not 10.
    """
    episodes = episodes or {}
    named = {f"{row.algo} {row.env}": row for row in rows}
    rows = tuple(named[name] for name in lab.chosen(named))
    configs = {f"{row.algo} {row.env}": config(row, small if lab.fast else None) for row in rows}
    paths = lab.train(configs)
    asked = {
        label: [(path, 2 if lab.fast else episodes.get(row.env, 10), {}) for path in paths[label]]
        for label, row in zip(configs, rows, strict=True)
    }
    answers = means(measured(lab, labs.final_returns, asked))
    numbers: dict[str, Any] = {}
    cells: list[list[object]] = []
    for (label, own), row in zip(configs.items(), rows, strict=True):
        minutes = [seconds(path) / 60 for path in paths[label]]
        there = [point for point in published.get(row.env, ()) if point.steps == row.steps]
        numbers[label] = {
            "curves": [learning(path) for path in paths[label]],
            "final": labs.summary(answers[label]),
            "minutes": labs.summary(minutes),
            "published": [point._asdict() for point in there],
        }
        known = "; ".join(map(str, there))
        final, time = (numbers[label][what] for what in ("final", "minutes"))
        cells.append(
            [row.algo, row.env, f"{own.steps:,}", labs.shown(final), known, labs.shown(time)]
        )
    for env in dict.fromkeys(row.env for row in rows):
        points: dict[str, list[tuple[float, float]]] = {}
        for point in published.get(env, ()):
            points.setdefault(f"published, {point.source}", []).append((point.steps, point.value))
        figure = plots.learning_curve(
            {row.algo: numbers[f"{row.algo} {env}"]["curves"] for row in rows if row.env == env},
            references=points,
            title=env,
        )
        plots.save(figure, lab.folder / f"{env}.png")
    head = ["agent", "environment", "actions", "return", "published", "minutes a run"]
    text = f"""# {title}

Return of the final policy, without exploration, over new episodes: interquartile mean over
{lab.seeds} seeds [95 % bootstrap interval]. The figures show training episodes.

{labs.table(head, cells)}

Published numbers are those of as many actions; the figures have further points of the curves. The
minutes are wall time of all processes that worked on a run, on a machine that may have done other
work beside it.
"""
    return Report(numbers, text)


def config(row: Row, small: Callable[[Any], Any] | None) -> RunConfig:
    """The run of a row: the preset of its algorithm, made small if a function is given."""
    _, agent = labs.preset_of(row.algo, row.env, repeated=row.action_repeat > 1)
    agent = small(agent) if small else agent
    count = environments(row.algo, row.env)
    return RunConfig(row.algo, row.env, 0, row.steps, "cpu", agent, count, row.action_repeat)


def seconds(path: Path) -> float:
    """Wall time of all processes that worked on a run."""
    lines = (path / TIMINGS).read_text(encoding="utf-8").splitlines()
    return sum(float(json.loads(line)["seconds"]) for line in lines)
