"""Returns of model-free learners beside published ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import plots
from experiments.presets import environments
from experiments.studies import lab as labs
from experiments.studies.common import means, measured
from experiments.studies.lab import Lab, Report
from mbrl.agents import varied
from mbrl.training import RunConfig
from mbrl.training.folders import learning

ZOO = "rl-baselines3-zoo"
MPC = "MPC through the simulator"


class Row(NamedTuple):
    """A learner on an environment, and what others reached there."""

    algo: str
    env: str
    steps: int
    published: float | None
    source: str
    variant: str | None = None
    action_repeat: int = 1
    learner: Mapping[str, Any] = {}
    """Settings of the learner that differ from the preset's."""

    @property
    def label(self) -> str:
        """The algorithm, or its variant."""
        return self.variant or self.algo


ROWS = (
    Row("dqn", "CartPole-v1", 50_000, 500.0, ZOO),
    Row("ppo", "CartPole-v1", 100_000, 500.0, ZOO),
    Row("trpo", "CartPole-v1", 100_000, 500.0, ZOO),
    Row("a2c", "CartPole-v1", 500_000, 500.0, ZOO),
    Row("reinforce", "CartPole-v1", 500_000, 500.0, "the greatest possible"),
    Row("dqn", "CartPole-v1", 50_000, 500.0, ZOO, variant="qr-dqn"),
    Row(
        "dqn", "CartPole-v1", 50_000, None, "", variant="c51",
        learner={"value_range": (0.0, 100.0)},  # 1 / (1 - γ) is the greatest discounted return
    ),
    Row("sac", "CartPole-v1", 20_000, None, ""),
    Row("actor-critic", "CartPole-v1", 200_000, None, ""),
    Row("off-policy-actor-critic", "CartPole-v1", 50_000, None, ""),
    Row("dqn", "Acrobot-v1", 100_000, -77.0, ZOO),
    Row("dqn", "Acrobot-v1", 100_000, -69.0, ZOO, variant="qr-dqn"),
    Row("sac", "Pendulum-v1", 5_000, -155.0, f"{ZOO}: -157 at 20,000"),
    Row("td3", "Pendulum-v1", 20_000, -155.0, f"{ZOO}: -152"),
    Row("ddpg", "Pendulum-v1", 20_000, -155.0, f"{ZOO}: -152 by TD3"),
    Row("ppo", "Pendulum-v1", 100_000, -172.0, ZOO),
    Row("trpo", "Pendulum-v1", 100_000, -175.0, ZOO),
    Row("a2c", "Pendulum-v1", 1_000_000, -163.0, ZOO),
    Row("dqn", "LunarLander-v3", 100_000, 154.0, f"{ZOO}: version 2 of the task"),
    Row("sac", "HalfCheetah-v5", 50_000, 5733.0, "SAC of DHMBPO's authors", "crossq-512"),
    Row("sac", "Hopper-v5", 50_000, 1125.0, "SAC of DHMBPO's authors", "crossq-512"),
    Row("sac", "dmc-cartpole-swingup", 50_000, 800.0, "at 100k frames", None, 2),
    Row("sac", "dmc-cartpole-swingup", 50_000, 800.0, "at 100k frames", "crossq-512", 2),
    Row("sac", "dmc-ball-in-cup-catch", 50_000, 900.0, "at 100k frames", "crossq-512", 2),
    Row("sac", "cartpole-swingup", 15_000, 128.1, MPC),
    Row("sac", "panda-reach", 30_000, 121.8, MPC),
    Row("sac", "quadruped-walk", 100_000, 264.6, MPC),
)  # fmt: skip
"""Steps are numbers of actions."""

FAMILY = {"CartPole-v1": "discrete actions", "Pendulum-v1": "a box of actions"}
"""The panels of the figure of all learners."""

COLOURS: Mapping[str, str] = dict(
    zip(
        (
            "dqn", "qr-dqn", "c51", "sac", "ppo", "trpo", "a2c",
            "reinforce", "actor-critic", "off-policy-actor-critic", "ddpg", "td3",
        ),
        (*plots.COLOURS, plots.INK, "#9A6324", "#8C8C00", "#A8A8A8", "#F032E6"),
        strict=True,
    )
)  # fmt: skip
"""A learner's colour in this figure."""

BINS = 40
"""Points of a curve in it, evenly spaced in the logarithm of steps."""

EXTRAS = {"LunarLander-v3": ("box2d", "Box2D")}
"""Environment -> the extra with its physics, and the module that the extra brings."""

EPISODES = {
    "HalfCheetah-v5": 10,
    "Hopper-v5": 10,
    "cartpole-swingup": 20,
    "panda-reach": 20,
    "quadruped-walk": 10,
}
"""Evaluation episodes, where not 100: those of the suite, of MuJoCo and of robots take longer."""


def learners_returns(lab: Lab) -> Report:
    """Learning curves of every learner, and the returns of the final policies."""
    wanted = [row for row in ROWS if _quick(row)] if lab.fast else ROWS
    missing = left_out([row.env for row in ROWS])
    for line in missing.values():
        lab.say(line)
    named = {f"{row.label} {row.env}": row for row in wanted if row.env not in missing}
    rows = [named[name] for name in lab.chosen(named)]
    configs = {f"{row.label} {row.env}": config(lab, row) for row in rows}
    paths = lab.train(configs)
    asked = {
        name: [(path, _episodes(lab, row.env), {}) for path in paths[name]]
        for name, row in zip(configs, rows, strict=True)
    }
    answers = means(measured(lab, labs.final_returns, asked))
    numbers: dict[str, Any] = {}
    cells = []
    for (name, own), row in zip(configs.items(), rows, strict=True):
        numbers[name] = {
            "curves": [learning(path) for path in paths[name]],
            "final": labs.summary(answers[name]),
            "published": row.published,
        }
        final = labs.shown(numbers[name]["final"])
        published = "" if row.published is None else f"{row.published:g}"
        cells.append([row.label, row.env, f"{own.steps:,}", final, published, row.source])
    for env in dict.fromkeys(row.env for row in rows):
        here = {row.label: f"{row.label} {row.env}" for row in rows if row.env == env}
        figure = plots.learning_curve(
            {label: numbers[name]["curves"] for label, name in here.items()},
            references={
                "MPC" if row.source == MPC else f"published, {row.label}": [
                    (row.steps, row.published)
                ]
                for row in rows
                if row.env == env and row.published is not None
            },
            title=env,
        )
        plots.save(figure, lab.folder / f"{env}.png")
    family = {
        env: {row.label: numbers[f"{row.label} {env}"]["curves"] for row in rows if row.env == env}
        for env in FAMILY
        if any(row.env == env for row in rows)
    }
    if family:
        picture(family, lab.folder / "family.png")
    text = f"""# Returns of model-free learners

Return of the final policy, without exploration, over new episodes: interquartile mean over
{lab.seeds} seeds [95 % bootstrap interval]. The figures show training episodes.

{labs.table(["learner", "environment", "actions", "return", "published", "source"], cells)}

Published numbers are those of one trained agent each ({ZOO}), or means over seeds; for our robots
it is the return of MPC through the simulator, which `mbrl study robots` measures.
"""
    if family:
        text += "\n![Returns while learning, on a task of each kind](family.png)\n"
    if missing:
        text += "\n" + "\n\n".join(missing.values()) + "\n"
    return Report(numbers, text)


def left_out(names: Sequence[str]) -> dict[str, str]:
    """By environment that cannot be made here, one line that names it and the missing extra."""
    return {
        env: f"{env} is left out, because the extra {extra} is not installed: "
        f"pip install 'rolloutlab[{extra}]'"
        for env, (extra, module) in EXTRAS.items()
        if env in names and importlib.util.find_spec(module) is None
    }


def smoothed(
    runs: Sequence[tuple[Sequence[int], Sequence[float]]],
) -> tuple[np.ndarray, np.ndarray]:
    """Steps (X,) and mean returns (X,) of the episodes that ended in each bin of steps.

    Bins are evenly spaced in the logarithm of steps, and empty ones are left out. A bin's steps
    are its end; each run counts alike.
    """
    ends = np.geomspace(100, max(steps[-1] for steps, _ in runs), BINS + 1)[1:]
    each = np.full((len(runs), BINS), np.nan)
    for k, (steps, returns) in enumerate(runs):
        place = np.minimum(np.searchsorted(ends, steps), BINS - 1)
        counts, sums = (np.bincount(place, x, BINS) for x in (np.ones(len(place)), returns))
        each[k, counts > 0] = sums[counts > 0] / counts[counts > 0]
    full = ~np.isnan(each).all(0)
    return ends[full], np.nanmean(each[:, full], axis=0)


def picture(family: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Return while learning, a panel for each environment and a curve for each learner."""
    figure, axes = plots.panels("Every learner, while it learns", 1, len(family), (14, 6.0))
    lines = {}
    for ax, (env, each) in zip(axes, family.items(), strict=True):
        for label, runs in each.items():
            (lines[label],) = ax.plot(*smoothed(runs), color=COLOURS[label], lw=2.4, label=label)
        ax.set(xscale="log", xlabel="environment steps (log scale)", ylabel="return of episodes")
        plots.note(ax, f"{env}: {FAMILY[env]}; means over seeds")
    plots.legend_below(figure, {label: lines[label] for label in COLOURS if label in lines})
    plots.save(figure, path)


def config(lab: Lab, row: Row) -> RunConfig:
    """The run of a row: the preset of its algorithm, and of its variant."""
    _, agent = labs.preset_of(row.algo, row.env)
    agent = varied(row.algo, agent, row.variant)
    if row.learner:
        agent = replace(agent, learner=replace(agent.learner, **row.learner))
    steps = 1100 if lab.fast else row.steps
    count = environments(row.algo, row.env)
    return RunConfig(row.algo, row.env, 0, steps, "cpu", agent, count, row.action_repeat)


def _quick(row: Row) -> bool:
    """Whether the fast version has the row."""
    published = row.published is not None and row.variant is None
    return row.env in FAMILY and published and row.steps <= 500_000


def _episodes(lab: Lab, env: str) -> int:
    return 2 if lab.fast else 10 if env.startswith("dmc-") else EPISODES.get(env, 100)
