"""Versions 0.5, 1.0 and 1.5 of model-based RL at equal environment steps.

The three versions of Levine's lectures (CS 285), built from the parts of PETS (Chua et al. 2018).
0.5: random data, a model, one plan per episode. 1.0: the steps taken are added to the data. 1.5:
replan as often as the preset does. A model is accurate only where it has data, and good plans leave
the states that random actions visit: version 0.5 has no data there, version 1.0 collects it by
carrying out its plans. No open-loop plan balances a pole, so the gain of 1.0 shows on the arm,
which is stable.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.common import cells, gain, measured, tiny
from experiments.studies.lab import Lab, Report
from mbrl.agents import PlannerConfig
from mbrl.agents.pets import version
from mbrl.evaluation import mismatch
from mbrl.training import RunConfig
from mbrl.training.folders import learning
from mbrl.training.run_config import changed

ENVIRONMENTS = ("cartpole-swingup", "cartpole-swingup-noisy", "arm-reacher")
VERSIONS = ("0.5", "1.0", "1.5")

WHOLE_EPISODE = PlannerConfig(
    horizon=150, knots=50, interpolation="linear", population=200, iterations=10, elites=20
)
"""The search of the open-loop versions. They plan 150 actions at once, only once per episode, so
they have knots three steps apart and about 1,100 candidates per plan, five to ten times as many as
version 1.5."""


def versions(lab: Lab) -> Report:
    """Final returns, learning curves, and each model's error where its own plans lead."""
    episodes = 2 if lab.fast else 10
    configs = {f"{env}, {v}": config(lab, env, v) for env in ENVIRONMENTS for v in VERSIONS}
    paths = lab.train(configs)
    asked = {label: [(path, episodes) for path in paths[label]] for label in configs}
    answers = measured(lab, examine, asked)

    def scores(env: str, v: str, name: str) -> list[float]:
        return [float(np.mean(one[name])) for one in answers[f"{env}, {v}"]]

    numbers: dict[str, Any] = {"episodes": episodes}
    rows, margins = [], []
    for env in ENVIRONMENTS:
        for v in VERSIONS:
            found: dict[str, Any] = {
                name: labs.summary(scores(env, v, name))
                for name in ("return", "error_random", "error_own", "promised")
            }
            found["curves"] = [learning(path) for path in paths[f"{env}, {v}"]]
            numbers[f"{env}, {v}"] = found
            told = "-" if v == "1.5" else labs.shown(found["promised"])
            errors = cells(found["error_random"], found["error_own"], digits=2)
            rows.append([env, v, labs.shown(found["return"]), told, *errors])
        for better, worse in (("1.0", "0.5"), ("1.5", "1.0")):
            margin = gain(scores(env, better, "return"), scores(env, worse, "return"))
            numbers[f"{env}, {better} over {worse}"] = margin
            margins.append(f"- {env}: {better} returns {labs.shown(margin)} more than {worse}.")
    # Returns of arms and poles have different scales.
    poles, arms = ENVIRONMENTS[:2], ENVIRONMENTS[2:]
    parts = [
        plots.bars(
            {env: {v: scores(env, v, "return") for v in VERSIONS} for env in group},
            title="Plan once, learn from it, replan: return at equal steps",
        )
        for group in (poles, arms)
    ]
    plots.save(parts, lab.folder / "versions.png")
    for env in ENVIRONMENTS:
        steps, reached = configs[f"{env}, 0.5"].steps, numbers[f"{env}, 0.5"]["return"]
        figure = plots.learning_curve(
            {v: numbers[f"{env}, {v}"]["curves"] for v in VERSIONS[1:]},
            references={f"0.5 after {steps} random steps": round(reached["estimate"], 1)},
            title=f"Training episodes of {env}",
        )
        plots.save(figure, lab.folder / f"curves-{env}.png")
        figure = plots.bars(
            {
                "on random actions": {v: scores(env, v, "error_random") for v in VERSIONS},
                "where its own plans lead": {v: scores(env, v, "error_own") for v in VERSIONS},
            },
            title=f"Distribution mismatch: the models' one-step error, {env}",
            ylabel="error, in stds of a random step",
        )
        plots.save(figure, lab.folder / f"mismatch-{env}.png")
    head = ["environment", "version", "return", "predicted by the plan"]
    head += ["error on random data", "error on its own plans"]
    text = f"""# Versions 0.5, 1.0, 1.5

Each agent after equal environment steps, over {episodes} new episodes; interquartile mean over
{lab.seeds} seeds [95 % bootstrap interval].

{labs.table(head, rows)}

By seed:

{chr(10).join(margins)}

0.5 spends all its steps on random actions, then fits once. 0.5 and 1.0 plan a whole episode at
once with the same search ({WHOLE_EPISODE.population} candidates, {WHOLE_EPISODE.iterations}
iterations, {WHOLE_EPISODE.knots} knots); 1.5 has the preset's. The error is the root mean square
over observations of the one-step error of the ensemble's mean, in standard deviations of what one
random step changes. A plan's predicted return is its mean return under the model it was made with.
"""
    return Report(numbers, text)


def config(lab: Lab, env: str, name: Any) -> RunConfig:
    """A version's run. Both open-loop versions have the same search, with the preset's sigma."""
    run = lab.pets(env)
    agent = run.agent
    if name != "1.5":
        own = {"sigma": agent.mpc.planner.sigma, "answer": agent.mpc.planner.answer}
        search = dataclasses.replace(WHOLE_EPISODE, **own)
        agent = changed(agent, planner=tiny(search) if lab.fast else search)
    if name == "0.5":
        agent = changed(agent, random_steps=run.steps)
    return dataclasses.replace(run, agent=version(name, agent))


def examine(path: Path, episodes: int) -> dict[str, list[float]]:
    """Returns, returns predicted by the plans, and the model's errors, one number per episode."""
    loaded, agent = labs.trained(path)
    seed = labs.EVALUATION + int(path.name.rpartition("-")[2])
    found = mismatch(agent, loaded.env, episodes=episodes, seed=seed)
    return {
        "return": found.returns,
        "promised": found.promised,
        "error_random": found.error_random,
        "error_own": found.error_own,
    }
