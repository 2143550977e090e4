"""Every robot driven through its true simulator: a picture, a random and a planned return.

Drives run one after another with all cores, since they are timed: nothing else should run beside.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

import envs
from experiments.plots.film import film
from experiments.presets.mpc import PRESETS
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl.agents import MPCConfig
from mbrl.control import DriveConfig, build_driver, drive
from mbrl.dynamics import Simulator
from mbrl.parallel import cores
from mbrl.training import Episodes, collect, vector
from mbrl.training.executor import Work, stop_if_asked

MOTION_SECONDS = 0.2
"""How far ahead the planning model's motion is compared with the true one's."""


def robots(lab: Lab) -> Report:
    """A page a task: its picture, its random and its planned return, success and speed."""
    names = list(PRESETS)[:2] if lab.fast else list(PRESETS)
    steps = 5 if lab.fast else None
    alone = dataclasses.replace(lab, workers=1)
    questions = {
        (name, seed): Work(driven, (name, PRESETS[name], seed, steps), f"drive {name}, seed {seed}")
        for name in names
        for seed in range(lab.seeds)
    }
    answers = alone.answers(questions)
    errors = alone.answers(
        {name: Work(motion_error, (name, PRESETS[name]), f"error {name}") for name in names}
    )
    numbers: dict[str, Any] = {"cores": cores()}
    rows, pages = [], []
    for name in names:
        own = [answers[name, seed] for seed in range(lab.seeds)]
        task = envs.TASKS[name]
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
        picture = f"{name}.png"
        try:
            actions = np.array(own[0]["actions"], np.float32)
            film(name, actions, lab.folder / f"{name}.mp4", seed=own[0]["start"])
        except envs.RenderingUnavailable as error:
            lab.say(f"no picture of {name}: {error}")
        done = "" if task.success is None else f"{found['succeeded']} of {lab.seeds}"
        rows.append(
            [
                f"[{name}](#{name})",
                f"{found['random']:.1f}",
                f"{found['planned']:.1f}",
                done,
                f"{found['plan_ms']:.1f}",
                f"{found['plan_hz']:.3g}",
                f"{found['realtime']:.2f}",
            ]
        )
        pages.append(_page(task, found, picture, done))
    head = ["task", "random", "planned", "success", "ms a plan", "plans/s", "real time x"]
    text = f"""# The robots

Returns and successes of {lab.seeds} episodes each, planned through the true simulator with the
settings of `mbrl mpc --env NAME`, on {cores()} cores; plans/s are plans in a simulated second,
real time x is simulated seconds a second, planning and physics together.

{labs.table(head, rows)}

{"".join(pages)}"""
    return Report(numbers, text)


def driven(name: str, mpc: MPCConfig, seed: int, steps: int | None) -> dict[str, Any]:
    """A planned and a random episode from the same start."""
    torch.set_num_threads(cores())
    start = labs.EVALUATION + seed
    driver = build_driver(DriveConfig(name, mpc), make_env=envs.make, seed=seed)
    played = drive(driver, seed=start, steps=steps, callback=stop_if_asked)
    random, uniform = Episodes(start), _Uniform(driver.env, seed)
    for _ in collect(uniform, vector(driver.env), random, steps=len(played.rewards)):
        if random.over[0]:
            break
    driver.env.close()
    return {
        "planned": float(played.rewards.sum()),
        "random": float(random.returns[0]),
        "success": played.success,
        "realtime": played.realtime,
        "plan_ms": float(np.median(played.plan_ms)),
        "plan_hz": len(played.plan_ms) / (len(played.rewards) * driver.control_step),
        "rejected": played.rejected,
        "actions": played.actions.tolist(),
        "start": start,
    }


class _Uniform:
    """Uniform actions in double precision."""

    def __init__(self, env: Any, seed: int) -> None:
        self.box, self.rng = envs.check_box(env), np.random.default_rng(seed)

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        return self.rng.uniform(self.box.low, self.box.high)[None]


def motion_error(name: str, mpc: MPCConfig) -> float | None:
    """The planning model's error as a share of the true motion, from states of a planned episode.

    The median over starts, each under random controls held, of
    |q_planning - q_true| / |q_true - q_start| after `MOTION_SECONDS`, over positions. None for a
    task without a planning model.
    """
    task = envs.TASKS[name]
    if task.planning is None:
        return None
    true, cheap = Simulator(task), Simulator(task, planning=True)
    driver = build_driver(DriveConfig(name, mpc), make_env=envs.make, seed=0)
    played = drive(driver, seed=labs.EVALUATION, steps=60)
    driver.env.close()
    ahead = max(1, round(MOTION_SECONDS / true.control_step))
    rng, errors = np.random.default_rng(0), []
    for state in played.states[::6]:
        start = torch.from_numpy(np.array(state))
        ends = []
        held = torch.from_numpy(rng.uniform(-1, 1, (1, 1, true.model.nu)))
        for sim in (true, cheap):
            at = start[None, None]
            for _ in range(ahead):
                at = sim.step(at, held, noise=None).state
            ends.append(at[0, 0, 1 : 1 + sim.model.nq])
        moved = (ends[0] - start[1 : 1 + true.model.nq]).norm()
        errors.append(float((ends[1] - ends[0]).norm() / moved))
    return float(np.nanmedian(errors))


def _page(task: envs.Task, found: dict[str, Any], picture: str, done: str) -> str:
    error = found["motion error"]
    planning = (
        "Planned through its own model."
        if error is None
        else f"Planned through a cheaper model; its motion errs by {error:.1%} after "
        f"{MOTION_SECONDS:g} s (median over states and held random controls)."
    )
    success = f" Success in {done} episodes." if done else ""
    return f"""## {task.name}

{task.summary[:1].upper()}{task.summary[1:]}.

![{task.name}]({picture})

Random {found["random"]:.1f}, planned {found["planned"]:.1f} in {task.episode_steps} steps.{success}
{planning} {found["plan_ms"]:.1f} ms a plan, {found["plan_hz"]:.3g} plans a second, real time x
{found["realtime"]:.2f}.

"""
