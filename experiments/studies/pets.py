"""PETS on three tasks of its paper (Chua et al. 2018) against published curves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import envs
from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.common import means, measured
from experiments.studies.lab import Lab, Report
from mbrl.spaces import spec_of
from mbrl.training.folders import learning


class Published(NamedTuple):
    """Results that others published on a task, and how far ours can be compared with them."""

    curves: dict[str, list[tuple[float, float]]]  # source -> (environment steps, return)
    episode_steps: int
    compare: str


ORIGINAL, PORT = "PETS, original", "PETS, PyTorch port"

PUBLISHED: dict[str, Published] = {
    "cartpole-swingup": Published(
        {ORIGINAL: [(1200, 168.0)], PORT: [(800, 163.0), (1600, 181.0)]},
        200,
        "A swing-up with the same form of reward and the same rate, but heavier, with damped "
        "joints, another motor and cost of its force, a wider start, and episodes of 200 steps: "
        "the figure shows the reward per step, which can be compared only roughly.",
    ),
    "arm-reacher": Published(
        {ORIGINAL: [(2700, -48.0)], PORT: [(1200, -44.0), (3700, -36.0)]},
        150,
        "Same arm, start, cost and 150 steps in a newer MuJoCo: returns can be compared.",
    ),
    "arm-pusher": Published(
        {"PETS, original and port": [(2500, -81.0), (3000, -78.0), (12600, -67.0)]},
        150,
        "Same start, torques, cost and 150 steps, gymnasium's version of the arm: returns can be "
        "compared.",
    ),
}
"""Points read off the graphs in the repositories of PETS's authors (handful-of-trials) and of its
PyTorch port, which do not say how they average trials and seeds. The 199.6 of PETS on "Cartpole" in
POPLIN (Wang & Ba 2020) is left out: that is gym's balancing task."""


def pets(lab: Lab) -> Report:
    """Learning curves with the published points, and the returns of the final agents."""
    episodes = 1 if lab.fast else 5
    chosen = {env: PUBLISHED[env] for env in lab.chosen(PUBLISHED)}
    configs = {env: lab.pets(env) for env in chosen}
    paths = lab.train(configs)
    asked = {env: [(path, episodes, {}) for path in paths[env]] for env in chosen}
    answers = means(measured(lab, labs.final_returns, asked))
    numbers: dict[str, Any] = {"episodes": episodes}
    rows, figures = [], []
    for env, published in chosen.items():
        agent = configs[env].agent
        curves = [learning(path, after=agent.random_steps) for path in paths[env]]
        numbers[env] = {
            "curves": curves,
            "final": labs.summary(answers[env]),
            "published": published._asdict(),
        }
        others = [
            f"{value:g} at {steps:,.0f} ({source})"
            for source, points in published.curves.items()
            for steps, value in points
        ]
        steps = f"{configs[env].steps:,}"
        rows.append([env, steps, labs.shown(numbers[env]["final"]), "; ".join(others)])
        # Episodes of different lengths are compared by reward per step.
        own_steps = spec_of(envs.make(env)).episode_steps or 1
        by_step = own_steps != published.episode_steps
        unit, other_unit = (own_steps, published.episode_steps) if by_step else (1, 1)
        near = {
            source: [(at, x / other_unit) for at, x in points if at <= 1.5 * configs[env].steps]
            for source, points in published.curves.items()
        }
        figures.append(
            plots.learning_curve(
                {"ours": [(at, np.divide(returns, unit)) for at, returns in curves]},
                references={source: points for source, points in near.items() if points},
                title=env,
                ylabel="reward per step" if by_step else "return",
            )
        )
    plots.save(figures, lab.folder / "pets.png")
    notes = "\n".join(f"- {env}: {published.compare}" for env, published in chosen.items())
    text = f"""# PETS against published curves

Return of the final agent over {episodes} new episodes; interquartile mean over {lab.seeds} seeds
[95 % bootstrap interval]. The figure shows training episodes after the random ones.

{labs.table(["environment", "environment steps", "return", "published, at steps"], rows)}

How far they can be compared:

{notes}

Published points were read off the graphs in the repositories of PETS's authors and of its PyTorch
port.
"""
    return Report(numbers, text)
