"""Our planner against judo's, on two of its tasks, with its number of candidates and horizon."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import envs
from experiments import plots
from experiments.peers import Judo, PeerError
from experiments.presets.mpc import PRESETS
from experiments.studies import lab as labs
from experiments.studies.common import measured
from experiments.studies.lab import Lab, Report
from mbrl.agents import MPCConfig
from mbrl.control import DriveConfig, build_driver, drive, row
from mbrl.training.executor import Work, stop_if_asked

TASKS = {"cartpole-servo": "cartpole", "cylinder-push": "cylinder_push"}
"""Our task -> judo's."""

OPTIMIZERS = {"ps": "predictive sampling", "cem": "CEM", "mppi": "MPPI"}
OURS = "ours"


def judo(lab: Lab) -> Report:
    """Mean one-step costs, over all and over the last second, from the same starts as judo's."""
    if not Judo.python().exists():
        raise PeerError(Judo.how_to_install())
    length = 1.0 if lab.fast else 10.0
    own = measured(
        lab,
        costs,
        {
            task: [(task, PRESETS[task], s, labs.EVALUATION + s, length) for s in range(lab.seeds)]
            for task in TASKS
        },
    )
    asked = {}
    for task, peer_task in TASKS.items():
        starts = [one["start"] for one in own[task]]
        for name in OPTIMIZERS:
            work = (peer_task, name, starts, length)
            asked[task, name] = Work(driven_by_judo, work, f"{task}, judo's {name}")
    theirs = lab.answers(asked)
    numbers: dict[str, Any] = {"seconds": length}
    rows, figures = [], []
    for task in TASKS:
        found = {OURS: {kind: [one[kind] for one in own[task]] for kind in KINDS}}
        for name, text in OPTIMIZERS.items():
            found[f"judo, {text}"] = {kind: theirs[task, name][kind] for kind in KINDS}
        numbers[task] = found
        for label, kinds in found.items():
            mean, last = (float(np.mean(kinds[kind])) for kind in KINDS)
            worst = max(kinds["cost"])
            rows.append([task, label, f"{mean:.3f}", f"{worst:.3f}", f"{last:.4f}"])
        figures.append(
            plots.bars(
                {label: kinds["cost"] for label, kinds in found.items()},
                title=task,
                ylabel="mean one-step cost",
            )
        )
    plots.save(figures, lab.folder / "judo.png")
    head = ["task", "planner", "mean one-step cost", "worst seed", "in the last second"]
    text = f"""# Beside judo 0.1.0

Its cart-pole and its cylinder push, {length:g} s from {lab.seeds} starts, the same for all; 32
candidates with a horizon of one second. judo has its shipped settings at 20 plans per second, ours
plans at each control step (25 per second); planning takes no simulated time. Means over starts.

{labs.table(head, rows)}
"""
    return Report(numbers, text)


KINDS = ("cost", "cost_last_second")


def costs(task: str, mpc: MPCConfig, seed: int, start: int, length: float) -> dict[str, Any]:
    """Mean one-step costs of our planner, and the qpos and qvel that it started from."""
    torch.set_num_threads(1)
    driver = build_driver(DriveConfig(task, mpc), make_env=envs.make, seed=seed)
    steps = round(length / driver.control_step)
    played = drive(driver, seed=start, steps=steps, callback=stop_if_asked)
    found = row(played, driver.control_step)
    inner: Any = driver.env.unwrapped
    nq, nv = inner.model.nq, inner.model.nv
    first = played.states[0]
    driver.env.close()
    return {
        "cost": -found["reward"],
        "cost_last_second": -found["reward_last_second"],
        "start": [first[1 : 1 + nq].tolist(), first[1 + nq : 1 + nq + nv].tolist()],
    }


def driven_by_judo(
    task: str, optimizer: str, starts: list[list[list[float]]], length: float
) -> dict[str, Any]:
    """Mean one-step costs of judo's planner from the same starts."""
    with Judo() as peer:
        return peer.ask(work="drive", task=task, optimizer=optimizer, starts=starts, length=length)
