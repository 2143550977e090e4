"""How much return is lost by planning through a learned model instead of the true simulator?

The robot, cost, planner and seeds are the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import envs
from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.common import cells, gain, means, measured
from experiments.studies.lab import Lab, Report
from mbrl.agents import MPCConfig
from mbrl.control import DriveConfig, drive_one
from mbrl.training.executor import stop_if_asked

ENVIRONMENTS = ("cartpole-swingup", "arm-reacher")
TRUE, LEARNED = "true simulator", "learned ensemble"


def models(lab: Lab) -> Report:
    """Return through the true model and through a learned one, and the regret between them."""
    episodes = 1 if lab.fast else 5
    steps = 10 if lab.fast else None
    configs = {env: lab.pets(env) for env in ENVIRONMENTS}
    paths = lab.train(configs)
    through: dict[tuple[str, str], list[Any]] = {}
    for env, config in configs.items():
        search = _mpc(config.agent)
        for seed, path in enumerate(paths[env]):
            for label, model in ((TRUE, "true"), (LEARNED, path)):
                work = (env, model, search, seed, episodes, steps)
                through.setdefault((env, label), []).append(work)
    answers = means(measured(lab, returns, through))
    numbers: dict[str, Any] = {"episodes": episodes}
    rows, scores = [], {}
    for env in ENVIRONMENTS:
        found = {label: answers[env, label] for label in (TRUE, LEARNED)}
        summaries = {label: labs.summary(own) for label, own in found.items()}
        numbers[env] = summaries | {"regret": gain(found[TRUE], found[LEARNED])}
        scores[env] = found
        rows.append([env, *cells(*numbers[env].values())])
    figures = [plots.bars(scores[env], title=env) for env in ENVIRONMENTS]
    plots.save(figures, lab.folder / "models.png")
    text = f"""# The true model against a learned one

Same task, cost, planner, settings, start states and seeds; {episodes} episodes for each seed;
interquartile mean over {lab.seeds} seeds [95 % bootstrap interval]. The learned model is that of a
PETS run at its end; the regret is the return through the true simulator minus that through the
model, seed by seed.

{labs.table(["robot", TRUE, LEARNED, "regret"], rows)}
"""
    return Report(numbers, text)


def returns(
    env: str, model: str | Path, mpc: MPCConfig, seed: int, episodes: int, steps: int | None
) -> list[float]:
    """Returns of episodes planned through a model."""
    found = []
    for episode in range(episodes):
        played, _ = drive_one(
            DriveConfig(env, mpc, str(model)),
            make_env=envs.make,
            seed=seed,
            start=labs.EVALUATION + seed,
            number=episode,
            steps=steps,
            callback=stop_if_asked,
        )
        found.append(float(played.rewards.sum()))
    return found


def _mpc(agent: Any) -> MPCConfig:
    """The planning settings of a run's agent, with one particle for each member."""
    return replace(agent.mpc, particles=agent.model.members)
