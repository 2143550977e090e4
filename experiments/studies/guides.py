"""Planning with a learner's critic and policy: what is it worth, by horizon?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import envs
from experiments import plots
from experiments.plots.lines import Curve
from experiments.presets import mpc_preset
from experiments.studies import lab as labs
from experiments.studies.common import means, measured
from experiments.studies.lab import EVALUATION, Lab, Report
from mbrl.agents.sac import Config
from mbrl.control import drive_seeds
from mbrl.learners.configs import SACConfig
from mbrl.settings import DriveConfig
from mbrl.training import RunConfig

ENVIRONMENT = "cartpole-swingup"
HORIZONS = (2, 5, 10, 25)
KINDS: dict[str, dict[str, Any] | None] = {
    "planner alone": None,
    "and policy's plans": {"terminal_value": False},
    "and critic's value": {"proposals": 0},
    "and both": {},
}
"""Settings of MPC with the learner; None: without it."""


def guides(lab: Lab) -> Report:
    """Returns of MPC through the true simulator by horizon, without and with a learner."""
    steps = 400 if lab.fast else 30_000
    horizons = HORIZONS[:2] if lab.fast else HORIZONS
    small = SACConfig(hidden=(64, 64), learning_rate=1e-3)
    config = Config(batch=128, learning_starts=200 if lab.fast else 1000, learner=small)
    run = RunConfig("sac", ENVIRONMENT, 0, steps, "cpu", config)
    paths = lab.train({"sac": run})["sac"]
    episodes, length = (1, 20) if lab.fast else (3, 150)
    asked = {
        (kind, str(horizon)): [
            (path, kind, horizon, episodes, length, seed) for seed, path in enumerate(paths)
        ]
        for kind in KINDS
        for horizon in horizons
    }
    scores = means(measured(lab, guided_returns, asked))
    alone = means(
        measured(lab, labs.final_returns, {"policy": [(path, episodes, {}) for path in paths]})
    )["policy"]
    found = {key: labs.summary(own) for key, own in scores.items()}
    policy = labs.summary(alone)
    lines = {
        kind: Curve.intervals(horizons, [found[kind, str(horizon)] for horizon in horizons])
        for kind in KINDS
    }
    lines["policy alone"] = Curve.intervals(horizons, [policy] * len(horizons))
    figure = plots.curves(
        {f"after {steps:,} steps of the learner": lines},
        title=f"MPC with a learner, {ENVIRONMENT}",
        xlabel="horizon, actions",
        ylabel="return",
        size=(9.6, 5.2),
    )
    plots.save(figure, lab.folder / "guides.png")
    rows = [
        [kind, *(labs.shown(found[kind, str(horizon)]) for horizon in horizons)] for kind in KINDS
    ]
    numbers: dict[str, Any] = {
        "environment steps": steps,
        "episodes": episodes,
        "policy alone": policy,
        "returns": {", ".join(key): own for key, own in found.items()},
    }
    text = f"""# Planning with a learner's critic and policy

One soft actor-critic for each seed, after {steps:,} steps in {ENVIRONMENT}; then iCEM through the
true simulator, with the preset's settings and plans of other horizons. Return of {episodes} new
episodes; interquartile mean over {lab.seeds} seeds [95 % bootstrap interval]. The policy alone:
{labs.shown(policy)}.

{labs.table(["", *(f"horizon {horizon}" for horizon in horizons)], rows)}
"""
    return Report(numbers, text)


def guided_returns(
    path: Path, kind: str, horizon: int, episodes: int, steps: int, seed: int
) -> list[float]:
    """Returns of episodes driven by MPC, with the learner of a run or without it."""
    settings = KINDS[kind]
    mpc = mpc_preset(ENVIRONMENT)
    mpc = replace(mpc, planner=replace(mpc.planner, horizon=horizon, knots=None))
    mpc = replace(mpc, replan_every=min(mpc.replan_every, horizon), **(settings or {}))
    config = DriveConfig(
        env=ENVIRONMENT, mpc=mpc, model="true", learner=None if settings is None else str(path)
    )
    seeds = range(seed + EVALUATION, seed + EVALUATION + episodes)
    drives = drive_seeds(config, make_env=envs.make, seeds=seeds, steps=steps)
    return [float(drive.rewards.sum()) for drive in drives.each]
