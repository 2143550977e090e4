"""The same robot, cost, planner and seeds through the true simulator and a learned ensemble.

How much return is lost by planning through a learned model?
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import envs
from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl.agents import MPCConfig
from mbrl.control import DriveConfig, build_driver, drive
from mbrl.training.executor import Work, stop_if_asked

ENVIRONMENTS = ("cartpole-swingup", "arm-reacher")
TRUE, LEARNED = "true simulator", "learned ensemble"


def models(lab: Lab) -> Report:
    """Return through the true model and through a learned one, and the regret between them."""
    episodes = 1 if lab.fast else 5
    steps = 10 if lab.fast else None
    configs = {env: lab.pets(env) for env in ENVIRONMENTS}
    paths = lab.train(configs)
    asked = {
        (env, label, seed): Work(
            returns,
            (env, model, _mpc(configs[env].agent), seed, episodes, steps),
            f"{env}, {label}, seed {seed}",
        )
        for env in ENVIRONMENTS
        for seed, path in enumerate(paths[env])
        for label, model in ((TRUE, "true"), (LEARNED, path))
    }
    answers = lab.answers(asked)
    numbers: dict[str, Any] = {"episodes": episodes}
    rows, scores = [], {}
    for env in ENVIRONMENTS:
        found = {label: lab.means(answers, env, label) for label in (TRUE, LEARNED)}
        regret = [a - b for a, b in zip(found[TRUE], found[LEARNED], strict=True)]
        numbers[env] = {name: labs.summary(v) for name, v in {**found, "regret": regret}.items()}
        scores[env] = found
        rows.append([env, *(labs.shown(numbers[env][name]) for name in (TRUE, LEARNED, "regret"))])
    figures = [plots.bars(scores[env], title=env) for env in ENVIRONMENTS]
    plots.save(figures, lab.folder / "models.png")
    text = f"""# The true model against a learned one

Same task, cost, planner, settings, start states and seeds; {episodes} episodes a seed;
interquartile mean over {lab.seeds} seeds [95 % bootstrap interval]. The learned model is a PETS
run's at the end of its budget; the regret is the return through the true simulator less that
through the model, seed by seed.

{labs.table(["robot", TRUE, LEARNED, "regret"], rows)}
"""
    return Report(numbers, text)


def returns(
    env: str, model: str | Path, mpc: MPCConfig, seed: int, episodes: int, steps: int | None
) -> list[float]:
    """Returns of episodes planned through a model."""
    config = DriveConfig(env, mpc, str(model))
    found = []
    for episode in range(episodes):
        driver = build_driver(config, make_env=envs.make, seed=seed)
        start = labs.EVALUATION + seed
        played = drive(driver, seed=start, number=episode, steps=steps, callback=stop_if_asked)
        found.append(float(played.rewards.sum()))
        driver.env.close()
    return found


def _mpc(agent: Any) -> MPCConfig:
    """The settings that a run's agent plans with; one particle a member."""
    return replace(agent.mpc, particles=agent.model.members)
