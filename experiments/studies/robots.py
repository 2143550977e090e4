"""Every robot driven by MPC through its simulator: a picture, a random and a planned return.

Drives run one after another on all cores and are timed, so nothing else should run meanwhile.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

import envs
from experiments.plots.film import film_or_tell
from experiments.presets.mpc import PRESETS
from experiments.studies import lab as labs
from experiments.studies.common import measured
from experiments.studies.lab import Lab, Report
from mbrl.agents import MPCConfig
from mbrl.control import DriveConfig, drive_one, planning_error, replay, row
from mbrl.parallel import cores
from mbrl.training.executor import Work, stop_if_asked

MOTION_SECONDS = 0.2
"""How far ahead the planning model's motion is compared with the true one's."""


def robots(lab: Lab) -> Report:
    """A section for each task: picture, random and planned return, success and speed."""
    names = list(PRESETS)[:2] if lab.fast else list(PRESETS)
    steps = 5 if lab.fast else None
    alone = dataclasses.replace(lab, workers=1)
    asked = {
        name: [(name, PRESETS[name], seed, steps) for seed in range(lab.seeds)] for name in names
    }
    answers = measured(alone, driven, asked)
    errors = alone.answers(
        {name: Work(preset_error, (name, PRESETS[name]), f"error {name}") for name in names}
    )
    numbers: dict[str, Any] = {"cores": cores()}
    rows, pages = [], []
    for name in names:
        own, task = answers[name], envs.TASKS[name]
        found = {
            "random": float(np.mean([answer["random"] for answer in own])),
            "planned": float(np.mean([answer["planned"] for answer in own])),
            "planned each": [answer["planned"] for answer in own],
            "succeeded": None if task.success is None else sum(answer["success"] for answer in own),
            "realtime": float(np.median([answer["realtime"] for answer in own])),
            "plan_hz": own[0]["plan_hz"],
            "plan_ms": float(np.median([answer["plan_ms"] for answer in own])),
            "rejected": sum(answer["rejected"] for answer in own),
            "motion error": errors[name],
        }
        numbers[name] = found
        film = lab.folder / f"{name}.mp4"
        actions = np.array(own[0]["actions"], np.float32)
        earned = own[0]["planned"]
        film_or_tell(name, actions, film, seed=own[0]["start"], earned=earned, tell=lab.say)
        done = "" if task.success is None else f"{found['succeeded']} of {lab.seeds}"
        returns = [f"{found[key]:.1f}" for key in ("random", "planned")]
        speed = [f"{found['plan_ms']:.1f}", f"{found['plan_hz']:.3g}", f"{found['realtime']:.2f}"]
        rows.append([f"[{name}](#{name})", *returns, done, *speed])
        pages.append(_page(task, found, done))
    head = ["task", "random", "planned", "success", "ms per plan", "plans/s", "real time x"]
    text = f"""# The robots

Returns and successes of {lab.seeds} episodes each, planned through the simulator with the settings
of `mbrl mpc --env NAME`, on {cores()} cores. "plans/s" is plans per simulated second; "real time x"
is simulated seconds per second, with planning and physics.

{labs.table(head, rows)}

{"".join(pages)}"""
    return Report(numbers, text)


def driven(name: str, mpc: MPCConfig, seed: int, steps: int | None) -> dict[str, Any]:
    """A planned and a random episode from the same start."""
    torch.set_num_threads(cores())
    start = labs.EVALUATION + seed
    config = DriveConfig(name, mpc)
    played, control_step = drive_one(
        config, make_env=envs.make, seed=seed, start=start, steps=steps, callback=stop_if_asked
    )
    env, rng = envs.make(name), np.random.default_rng(seed)
    box = envs.check_box(env)
    uniform = rng.uniform(box.low, box.high, (len(played.rewards), *box.shape))
    random = sum(float(step.reward[0]) for step in replay(env, uniform, seed=start))
    env.close()
    found = row(played, control_step)
    kept = ("success", "realtime", "plan_ms", "plan_hz", "rejected")
    return {
        "planned": found["return"],
        "random": random,
        **{name: found[name] for name in kept},
        "actions": played.actions.tolist(),
        "start": start,
    }


def preset_error(name: str, mpc: MPCConfig) -> float | None:
    """`planning_error` of the task with its preset."""
    return planning_error(
        DriveConfig(name, mpc),
        make_env=envs.make,
        seed=0,
        start=labs.EVALUATION,
        seconds=MOTION_SECONDS,
    )


def _page(task: envs.Task, found: dict[str, Any], done: str) -> str:
    error = found["motion error"]
    planning = (
        "Planned through the true simulator."
        if error is None
        else f"Planned through a cheaper simulator, whose motion is off by {error:.1%} after "
        f"{MOTION_SECONDS:g} s (median over states and constant random controls)."
    )
    success = f" Success in {done} episodes." if done else ""
    return f"""## {task.name}

{task.summary[:1].upper()}{task.summary[1:]}.

![{task.name}]({task.name}.png)

Random {found["random"]:.1f}, planned {found["planned"]:.1f} in {task.episode_steps} steps.{success}
{planning} {found["plan_ms"]:.1f} ms per plan, {found["plan_hz"]:.3g} plans per second, real time x
{found["realtime"]:.2f}.

"""
