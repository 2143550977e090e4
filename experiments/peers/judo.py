"""judo 0.1.0, timed: a script for the virtual environment that has it.

Reads one JSON request a line on stdin and answers each with one JSON line on stdout, as
`mbrl_lib.py` does. A request names a `work`, a `task` ("cartpole" or "cylinder_push"), an
`optimizer` ("ps", "cem" or "mppi") and any other option of the work; a request that cannot be met
is answered by {"error": "one line"}. Candidates, horizon, knots and noise are judo's shipped
overrides for the task: 32 candidates with a horizon of one second.

`info`     versions.
`plan`     `Controller.update_action`, `repeats` times, each from the last plan: `seconds` each.
`rollout`  as many candidates over as many steps by `mujoco.rollout` alone, `repeats` times on
           `threads` threads: `seconds` each.
`drive`    judo's closed loop from each of `starts`, [qpos, qvel] each, for `length` s: a plan is
           made when `1 / hz` s have passed since the last one was due, takes no simulated time, and
           is followed step by step. `cost` and `cost_last_second`, one number for each start: the
           mean of judo's one-step cost.
`cost`     judo's one-step costs of `states`, qpos and qvel each, under `controls`: `cost` each.

Constructing any of judo's tasks downloads all its meshes, unless their folder exists. These two
tasks have no meshes, so an empty folder is enough.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import mujoco
import mujoco.rollout
import numpy as np

VERSION = "0.1.0"
SEED = 0
TASKS = ("cartpole", "cylinder_push")
OPTIMIZERS = ("ps", "cem", "mppi")

_SERVING = runpy.run_path(str(Path(__file__).with_name("serving.py")))
accepted, timed, info, installed, serve = (
    _SERVING[name] for name in ("accepted", "timed", "info", "installed", "serve")
)


def peer(module: str) -> Any:
    """A module of judo."""
    return import_module(f"judo.{module}")


def controller(task: str, optimizer: str) -> Any:
    """judo's controller of a task with its shipped settings, before any plan."""
    (import_module("judo").MODEL_PATH / "meshes").mkdir(exist_ok=True)
    build, _ = peer("tasks").get_registered_tasks()[accepted("task", task, TASKS)]
    search, settings = peer("optimizers").get_registered_optimizers()[
        accepted("optimizer", optimizer, OPTIMIZERS)
    ]
    np.random.seed(SEED)  # judo draws from the global stream
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
    """Drives the task and returns its mean costs from each start."""
    found = [episode(controller(task, optimizer), start, length, hz) for start in starts]
    return {
        "cost": [float(costs.mean()) for costs, _ in found],
        "cost_last_second": [float(costs[-second:].mean()) for costs, second in found],
    }


def episode(
    one: Any, start: tuple[Sequence[float], Sequence[float]], length: float, hz: float
) -> tuple[np.ndarray, int]:
    """One-step costs (T,), and the number of steps in a second."""
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
    """One-step costs of judo's task."""
    robot = controller(task, "ps").task
    return {"cost": step_costs(robot, np.array(states), np.array(controls)).tolist()}


def step_costs(robot: Any, states: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """One-step costs (T,) of states (T, nq + nv) reached under controls (T, nu)."""
    # judo's reward is a sum over a trajectory, so each step is a trajectory of its own.
    return -robot.reward(states[:, None], np.empty((len(states), 1, 0)), controls[:, None])


WORKS: dict[str, Callable[..., dict[str, Any]]] = {
    "plan": plan,
    "rollout": rollout,
    "drive": drive,
    "cost": cost,
}


def size(one: Any) -> dict[str, int]:
    """Number of candidates of a plan, and of their steps."""
    return {"candidates": one.optimizer_cfg.num_rollouts, "steps": int(one.num_timesteps)}


def answer(work: str = "info", **options: Any) -> dict[str, Any]:
    """Does what one request asks for."""
    accepted("work", work, ("info", *WORKS))
    if work == "info":
        return info(("judo-rai", "mujoco", "numpy", "scipy"))
    return WORKS[work](**options)


def main() -> None:
    """Answers requests until stdin ends."""
    if installed("judo-rai") != VERSION:
        sys.exit(f"this Python has no judo-rai {VERSION}: {sys.executable}")
    serve(answer)


if __name__ == "__main__":
    main()
