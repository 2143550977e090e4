"""judo 0.1.0 at work, timed: a script for the virtual environment that has it.

Reads one JSON request a line on stdin and answers each with one JSON line on stdout, as
`mbrl_lib.py` does. A request names a `work`, a `task` ("cartpole" or "cylinder_push"), an
`optimizer` ("ps", "cem" or "mppi") and any other option of the work; a request that cannot be met
is answered by {"error": "one line"}. Candidates, horizon, knots and noise are its shipped
overrides for the task: 32 candidates over a second.

`info`     versions.
`plan`     `Controller.update_action`, `repeats` times, each from the last plan: `seconds` each.
`rollout`  as many candidates over as many steps by `mujoco.rollout` alone, `repeats` times on
           `threads` threads: `seconds` each.
`drive`    its closed loop from each of `starts`, [qpos, qvel] each, for `length` s: a plan is made
           when `1 / hz` s have passed since the last was due, in no simulated time, and followed
           step by step. `cost` and `cost_last_second` a start: the mean of its own one-step cost.
`cost`     its one-step costs of `states`, qpos and qvel each, under `controls`: `cost` each.

Constructing any of its tasks downloads all its meshes, unless their folder is there. These two
tasks have none, so an empty folder does.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import mujoco
import mujoco.rollout
import numpy as np

VERSION = "0.1.0"
SEED = 0
TASKS = ("cartpole", "cylinder_push")
OPTIMIZERS = ("ps", "cem", "mppi")


def peer(module: str) -> Any:
    """A module of judo."""
    return import_module(f"judo.{module}")


def controller(task: str, optimizer: str) -> Any:
    """Its controller of a task with its shipped settings, before any plan."""
    (import_module("judo").MODEL_PATH / "meshes").mkdir(exist_ok=True)
    build, _ = peer("tasks").get_registered_tasks()[accepted("task", task, TASKS)]
    search, settings = peer("optimizers").get_registered_optimizers()[
        accepted("optimizer", optimizer, OPTIMIZERS)
    ]
    np.random.seed(SEED)  # it draws from the global stream
    robot, config, loop = build(), settings(), peer("controller").ControllerConfig()
    config.set_override(task)
    loop.set_override(task)
    return peer("controller").Controller(loop, robot, search(config, robot.nu))


def plan(task: str, optimizer: str = "ps", repeats: int = 1) -> dict[str, Any]:
    """Times whole plans."""
    one = controller(task, optimizer)
    one.update_action()
    return {"seconds": timed(one.update_action, repeats), **size(one)}


def rollout(task: str, repeats: int = 1, threads: int = 2) -> dict[str, Any]:
    """Times the rollouts of a plan and nothing else."""
    one = controller(task, "ps")
    one.update_action()
    model, controls = one.model, np.ascontiguousarray(one.rollout_controls)
    start = np.tile(np.concatenate([[0.0], one.current_state]), (len(controls), 1))
    data = [mujoco.MjData(model) for _ in range(threads)]
    with mujoco.rollout.Rollout(nthread=threads) as bare:

        def run() -> None:
            bare.rollout(model, data, start, controls)

        run()
        return {"seconds": timed(run, repeats), "threads": threads, **size(one)}


def drive(
    task: str,
    starts: Sequence[tuple[Sequence[float], Sequence[float]]],
    optimizer: str = "ps",
    length: float = 10.0,
    hz: float = 20.0,
) -> dict[str, Any]:
    """Drives the task and counts what it costs."""
    found = [episode(controller(task, optimizer), start, length, hz) for start in starts]
    return {
        "cost": [float(costs.mean()) for costs, _ in found],
        "cost_last_second": [float(costs[-second:].mean()) for costs, second in found],
    }


def episode(
    one: Any, start: tuple[Sequence[float], Sequence[float]], length: float, hz: float
) -> tuple[np.ndarray, int]:
    """One-step costs, and how many a second has."""
    model, robot = one.model, one.task
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = start
    states, controls, due = [], [], 0.0
    for _ in range(round(length / robot.dt)):
        if data.time >= due - 1e-9:
            one.time, one.current_state = data.time, np.concatenate([data.qpos, data.qvel])
            one.update_action()
            due += 1 / hz
        data.ctrl[:] = one.action(data.time)
        mujoco.mj_step(model, data)
        states.append(np.concatenate([data.qpos, data.qvel]))
        controls.append(data.ctrl.copy())
    return step_costs(robot, np.array(states), np.array(controls)), round(1 / robot.dt)


def cost(
    task: str, states: Sequence[Sequence[float]], controls: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """What its task charges."""
    robot = controller(task, "ps").task
    return {"cost": step_costs(robot, np.array(states), np.array(controls)).tolist()}


def step_costs(robot: Any, states: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """(T,) of states (T, nq + nv) reached under controls (T, nu)."""
    # Each as a trajectory of one step, since its reward is the sum over a trajectory.
    return -robot.reward(states[:, None], np.empty((len(states), 1, 0)), controls[:, None])


WORKS: dict[str, Callable[..., dict[str, Any]]] = {
    "plan": plan,
    "rollout": rollout,
    "drive": drive,
    "cost": cost,
}


def timed(work: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def size(one: Any) -> dict[str, int]:
    """Of what a plan tries."""
    return {"candidates": one.optimizer_cfg.num_rollouts, "steps": int(one.num_timesteps)}


def accepted(option: str, value: object, choices: Any) -> Any:
    """The value, if it is among the choices."""
    if value not in choices:
        raise ValueError(f"{option} {value!r} is not one of {', '.join(map(str, choices))}")
    return value


def answer(work: str = "info", **options: Any) -> dict[str, Any]:
    """Does what one request asks for."""
    accepted("work", work, ("info", *WORKS))
    if work == "info":
        versions = {name: version(name) for name in ("judo-rai", "mujoco", "numpy", "scipy")}
        return {"versions": versions, "python": platform.python_version()}
    return WORKS[work](**options)


def main() -> None:
    """Answers requests until stdin ends."""
    try:
        found = version("judo-rai")
    except PackageNotFoundError:
        found = None
    if found != VERSION:
        sys.exit(f"this Python has no judo-rai {VERSION}: {sys.executable}")
    # The peer prints: what it says goes to stderr, so that stdout holds answers only.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        try:
            reply = answer(**json.loads(line))
        except (ValueError, TypeError, RuntimeError) as error:
            reply = {"error": " ".join(str(error).split())}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
