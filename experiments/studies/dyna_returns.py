"""Returns of learners that imagine beside published ones, and how long they take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from experiments import plots
from experiments.presets import environments
from experiments.studies import lab as labs
from experiments.studies.common import means, measured
from experiments.studies.lab import Lab, Report
from mbrl.agents import AGENTS
from mbrl.dynamics.configs import EnsembleConfig
from mbrl.training import RunConfig
from mbrl.training.folders import learning
from mbrl.training.metrics import TIMINGS
from mbrl.training.run_config import changed


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


ROWS = (
    Row("mbpo", "InvertedPendulum-v5", 3000),
    Row("mbpo", "HalfCheetah-v5", 10_000),
    Row("dhmbpo", "HalfCheetah-v5", 20_000),
    Row("dhmbpo", "Hopper-v5", 30_000),
    Row("dhmbpo", "dmc-cartpole-swingup", 10_000, 2),
    Row("dhmbpo", "dmc-ball-in-cup-catch", 10_000, 2),
    *(
        Row(algo, env, steps)
        for env, steps in (("Pendulum-v1", 2000), ("cartpole-swingup", 3000), ("panda-reach", 6000))
        for algo in ("sac", "mbpo", "dhmbpo")
    ),
)

PUBLISHED: dict[str, tuple[Published, ...]] = {
    "InvertedPendulum-v5": (Published("MBPO", 3000, 1000.0),),
    "HalfCheetah-v5": (
        Published("DHMBPO", 10_000, 4138.0),
        Published("DHMBPO, long rollouts of 10", 20_000, 6192.0),
        Published("MBPO", 10_000, 1720.0),
        Published("MBPO", 20_000, 4236.0),
        Published("SAC", 10_000, 536.0),
        Published("SAC", 20_000, 4047.0),
    ),
    "Hopper-v5": (
        Published("DHMBPO", 20_000, 2101.0),
        Published("DHMBPO", 30_000, 3171.0),
        Published("MBPO", 20_000, 530.0),
        Published("MBPO", 30_000, 697.0),
        Published("SAC", 20_000, 301.0),
        Published("SAC", 30_000, 484.0),
    ),
    "dmc-cartpole-swingup": (
        Published("DHMBPO", 10_000, 795.0),
        Published("SAC", 10_000, 276.0),
    ),
    "dmc-ball-in-cup-catch": (
        Published("DHMBPO", 10_000, 802.0),
        Published("SAC", 10_000, 496.0),
    ),
}
"""Means over seeds, from the curves that DHMBPO's authors give with their code, MBPO and SAC
included; InvertedPendulum from the log of a port of MBPO. In the suite 20,000 frames are 10,000
actions."""

FAST: tuple[Row, ...] = tuple(Row(algo, "Pendulum-v1", 800) for algo in ("sac", "mbpo", "dyna"))

EPISODES = {"Pendulum-v1": 100, "cartpole-swingup": 20, "panda-reach": 20}
"""Evaluation episodes, where not 10."""


def dyna_returns(lab: Lab) -> Report:
    """Learning curves of agents that imagine, returns of their policies, and their time."""
    rows = FAST if lab.fast else tuple(row for row in ROWS if row.algo in AGENTS)
    named = {f"{row.algo} {row.env}": row for row in rows}
    rows = tuple(named[name] for name in lab.chosen(named))
    configs = {f"{row.algo} {row.env}": config(lab, row) for row in rows}
    paths = lab.train(configs)
    asked = {
        label: [(path, 2 if lab.fast else EPISODES.get(row.env, 10), {}) for path in paths[label]]
        for label, row in zip(configs, rows, strict=True)
    }
    answers = means(measured(lab, labs.final_returns, asked))
    numbers: dict[str, Any] = {}
    cells: list[list[object]] = []
    for (label, own), row in zip(configs.items(), rows, strict=True):
        minutes = [seconds(path) / 60 for path in paths[label]]
        there = [point for point in PUBLISHED.get(row.env, ()) if point.steps == row.steps]
        numbers[label] = {
            "curves": [learning(path) for path in paths[label]],
            "final": labs.summary(answers[label]),
            "minutes": labs.summary(minutes),
            "published": [point._asdict() for point in there],
        }
        known = "; ".join(f"{point.source} {point.value:g}" for point in there)
        final, time = (numbers[label][what] for what in ("final", "minutes"))
        cells.append(
            [row.algo, row.env, f"{own.steps:,}", labs.shown(final), known, labs.shown(time)]
        )
    for env in dict.fromkeys(row.env for row in rows):
        points: dict[str, list[tuple[float, float]]] = {}
        for point in PUBLISHED.get(env, ()):
            points.setdefault(f"published, {point.source}", []).append((point.steps, point.value))
        figure = plots.learning_curve(
            {row.algo: numbers[f"{row.algo} {env}"]["curves"] for row in rows if row.env == env},
            references=points,
            title=env,
        )
        plots.save(figure, lab.folder / f"{env}.png")
    head = ["agent", "environment", "actions", "return", "published", "minutes a run"]
    text = f"""# Returns of agents that imagine

Return of the final policy, without exploration, over new episodes: interquartile mean over
{lab.seeds} seeds [95 % bootstrap interval]. The figures show training episodes.

{labs.table(head, cells)}

Published numbers are those of as many actions; the figures have further points of the curves. The
minutes are wall time of all processes that worked on a run, on a machine that may have done other
work beside it.
"""
    return Report(numbers, text)


def config(lab: Lab, row: Row) -> RunConfig:
    """The run of a row: the preset of its algorithm."""
    _, agent = labs.preset_of(row.algo, row.env)
    if lab.fast and hasattr(agent, "model"):
        model = EnsembleConfig(members=2, hidden=(16,), epochs=2)
        agent = changed(agent, model=model, starts=50, batch=16, updates=1, fit_every=200)
    count = environments(row.algo, row.env)
    return RunConfig(row.algo, row.env, 0, row.steps, "cpu", agent, count, row.action_repeat)


def seconds(path: Path) -> float:
    """Wall time of all processes that worked on a run."""
    lines = (path / TIMINGS).read_text(encoding="utf-8").splitlines()
    return sum(float(json.loads(line)["seconds"]) for line in lines)
