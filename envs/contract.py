"""Checks of a task, for the task's author to call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import mujoco
import numpy as np
from array_api_compat import is_torch_array

from envs.task import Physics, RewardFn, Task, TerminatedFn, sensor_views

LEADS = ((3,), (2, 3), ())
"""Leading dimensions that every function of a task is called with."""

_TRACED = ("sensor", "site", "geom", "body")


def check_task(task: Task) -> None:
    """Check all that the environment, the simulator and the planners assume of a task.

    The model and the planning model compile; the camera and the traces exist in the model;
    `initial` and `goal` return arrays of the model's shapes; the functions take numpy and torch
    arrays with any leading dimensions, return arrays with the same leading dimensions, and give
    each row what it gets alone.

    Raises:
        ValueError: one of these does not hold; one line names the task, the function, and the
            wanted and the returned shape.
    """
    try:
        for problem in _problems(task):
            raise ValueError(f"task {task.name}: {problem}")
    except _Raised as error:
        raise ValueError(f"task {task.name}: {error}") from error.__cause__


def check_functions(
    env: gymnasium.Env,
    reward: RewardFn | None,
    terminated: TerminatedFn | None,
    name: str,
    *,
    steps: int = 20,
) -> None:
    """Check that functions of observations give an environment's rewards and terminations.

    Args:
        env: the environment; reset with seed 0, given random actions.
        reward: as in `Task`; None is not checked.
        terminated: as in `Task`; None is not checked.
        name: the environment's name, for the message.
        steps: number of steps.

    Raises:
        ValueError: a function raises, returns another shape, or gives a value that differs from the
            environment's by more than a thousandth, absolute plus relative.
    """
    obs, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for step in range(1, steps + 1):
        action = env.action_space.sample()
        next_obs, real_reward, real_end, truncated, _ = env.step(action)
        calls: list[tuple[str, Callable[..., Any] | None, tuple[Any, ...], Any]] = [
            ("reward", reward, (obs, action, next_obs), real_reward),
            ("terminated", terminated, (next_obs,), real_end),
        ]
        for what, function, arguments, wanted in calls:
            if function is None:
                continue
            rows = tuple(np.stack([np.asarray(x)] * 2) for x in arguments)
            try:
                found = _call(what, function, *rows)
            except _Raised as error:
                raise ValueError(f"{name}: {error}") from error.__cause__
            if np.shape(found) != (2,):
                raise ValueError(
                    f"{name}: {what}: wanted shape (2,) for 2 rows, got {_shown(found)}"
                )
            if not np.isclose(float(found[0]), float(wanted), rtol=1e-3, atol=1e-3):
                raise ValueError(
                    f"{name}: {what}: gives {float(found[0]):g} at step {step} where the "
                    f"environment gave {float(wanted):g}; if intended, give the reason as why="
                )
        obs = env.reset()[0] if real_end or truncated else next_obs


class _Raised(Exception):
    """A function of the task raised an exception; the message names both."""


def _problems(task: Task) -> Iterator[str]:
    least_of = {"frame_skip": 1, "episode_steps": 1, "goal_steps": 0, "settle": 0}
    for name, least in least_of.items():
        value = getattr(task, name)
        if not isinstance(value, int) or value < least:
            yield f"{name} must be an integer of at least {least}, got {value!r}"
    model = task.compile()
    yield from _names(task, model)
    yield from _planning(task, model)
    if not task.gymnasium:  # gymnasium steps and observes those itself
        data = mujoco.MjData(model)
        yield from _start(task, model, data)
        yield from _functions(task, model, data)


def _names(task: Task, model: mujoco.MjModel) -> Iterator[str]:
    cameras = [model.camera(i).name for i in range(model.ncam)]
    if isinstance(task.camera, str):
        if task.camera not in cameras:
            yield f"camera {task.camera!r} is not in the model; {_listed('cameras', cameras)}"
    elif not -1 <= task.camera < model.ncam:
        yield f"camera {task.camera} is not in the model; {_listed('cameras', cameras)}"
    for trace in task.traces:
        if not any(_has(model, kind, trace) for kind in _TRACED):
            yield f"trace {trace!r} is no position sensor, site, geom or body of the model"


def _has(model: mujoco.MjModel, kind: str, name: str) -> bool:
    try:
        getattr(model, kind)(name)
    except KeyError:
        return False
    return True


def _listed(what: str, names: list[str]) -> str:
    return f"its {what} are {', '.join(names)}" if names else f"it has no {what}"


def _planning(task: Task, model: mujoco.MjModel) -> Iterator[str]:
    if task.planning is None:
        return
    cheap = task.compile(planning=True)
    for name in ("nq", "nv", "na", "nu", "nmocap", "nsensordata"):
        own, other = getattr(model, name), getattr(cheap, name)
        if own != other:
            yield f"planning changes {name} of the model from {own} to {other}"
    step = model.opt.timestep * task.frame_skip
    other = cheap.opt.timestep * task.planning.frame_skip
    if not np.isclose(step, other, rtol=1e-9):
        yield f"planning: its control step is {other:g} s, the task's is {step:g} s"


def _start(task: Task, model: mujoco.MjModel, data: mujoco.MjData) -> Iterator[str]:
    drawn = _call("initial", task.initial, np.random.default_rng(0))
    if not isinstance(drawn, tuple) or len(drawn) not in (2, 3):
        yield f"initial: wanted (qpos, qvel), got {_shown(drawn)}"
        return
    shapes = {"qpos": (model.nq,), "qvel": (model.nv,), "mocap_pos": (model.nmocap, 3)}
    for (name, shape), value in zip(shapes.items(), drawn, strict=False):
        if np.shape(value) != shape:
            yield f"initial: wanted {name} of shape {shape}, got {_shown(value)}"
        elif not np.isfinite(value).all():
            yield f"initial: {name} holds a number that is not finite"
    again = _call("initial", task.initial, np.random.default_rng(0))
    if any(not np.array_equal(a, b) for a, b in zip(drawn, again, strict=True)):
        yield "initial: the same generator gives another state; use only the given one"
    for name, value in zip(shapes, drawn, strict=False):
        getattr(data, name)[:] = value
    if len(drawn) == 2 and task.goal is not None:
        goal = _call("goal", task.goal, np.random.default_rng(0))
        if np.shape(goal) not in ((model.nmocap, 3), (model.nmocap, 7)):
            yield f"goal: wanted shape ({model.nmocap}, 3), got {_shown(goal)}"
            return
        data.mocap_pos[:] = goal[:, :3]
    mujoco.mj_forward(model, data)


def _functions(task: Task, model: mujoco.MjModel, data: mujoco.MjData) -> Iterator[str]:
    import torch  # not above: environments work without torch

    def as_torch(values: np.ndarray) -> Any:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32)

    physics = Physics(
        data.qpos, data.qvel, sensor_views(model, data.sensordata), np.asarray(data.act)
    )
    one = _call("observation", task.observation, physics)
    if np.ndim(one) != 1:
        yield f"observation: wanted shape (O,), got {_shown(one)}"
        return
    if not np.isfinite(one).all():
        yield "observation: holds a number that is not finite in the first state"
        return
    size, extra = len(one), 0
    if task.features is not None:
        found = _call("features", task.features, physics)
        if np.ndim(found) != 1:
            yield f"features: wanted shape (F,), got {_shown(found)}"
            return
        extra = len(found)
        one = np.concatenate([one, found])
    functions: dict[str, tuple[Callable[..., Any], int, bool]] = {
        "reward": (task.reward, 3, False),
        "terminated": (task.terminated, 1, True),
    }
    if task.success is not None:
        functions["success"] = (task.success, 1, True)
    rng = np.random.default_rng(0)
    for lead in LEADS:
        for kind, take in (("numpy", _as_numpy), ("torch", as_torch)):
            rows = Physics(
                take(_jittered(data.qpos, lead, rng)),
                take(_jittered(data.qvel, lead, rng)),
                {n: take(_jittered(view, lead, rng)) for n, view in physics.sensors.items()},
                take(_jittered(physics.act, lead, rng)),
            )
            obs = _call("observation", task.observation, rows, kind=kind)
            yield from _mismatches("observation", obs, (*lead, size), kind, boolean=False)
            if task.features is not None:
                found = _call("features", task.features, rows, kind=kind)
                yield from _mismatches("features", found, (*lead, extra), kind, boolean=False)
            inputs = [take(_jittered(one, lead, rng)) for _ in range(2)]
            action = take(rng.uniform(-1, 1, (*lead, model.nu)))
            arguments = {3: (inputs[0], action, inputs[1]), 1: (inputs[1][..., :size],)}
            for name, (function, takes, boolean) in functions.items():
                found = _call(name, function, *arguments[takes], kind=kind)
                yield from _mismatches(name, found, lead, kind, boolean=boolean)
                if lead == (3,):
                    row = function(*(x[1] for x in arguments[takes]))
                    if not np.allclose(np.asarray(found[1]), np.asarray(row), atol=1e-5):
                        yield f"{name}: a row among others gives {found[1]}, alone {row}"


def _call(name: str, function: Callable[..., Any], *arguments: Any, kind: str = "") -> Any:
    """What the function returns; raises _Raised, which names the kind of arrays if it is given."""
    try:
        return function(*arguments)
    except Exception as error:  # a user's function may raise anything
        said = " ".join(str(error).split()) or "no message"
        on = f" for {kind} arrays" if kind else ""
        raise _Raised(f"{name}: raised {type(error).__name__}{on}: {said}") from error


def _mismatches(
    name: str, found: Any, shape: tuple[int, ...], kind: str, *, boolean: bool
) -> Iterator[str]:
    if tuple(np.shape(found)) != shape:
        yield f"{name}: wanted shape {shape} for {kind} arrays, got {_shown(found)}"
        return
    if kind == "torch" and not is_torch_array(found):
        yield f"{name}: wanted a torch tensor for torch arrays, got a {type(found).__name__}"
        return
    dtype = np.asarray(found).dtype
    if not np.issubdtype(dtype, np.bool_ if boolean else np.number):
        yield f"{name}: wanted {'booleans' if boolean else 'numbers'}, got {dtype}"


def _jittered(values: np.ndarray, lead: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Rows (*lead, ...) near these values."""
    return values + 0.01 * rng.standard_normal((*lead, *np.shape(values)))


def _as_numpy(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def _shown(value: Any) -> str:
    """What a function returned, for a message: a plain value, a shape or a type."""
    if value is None or isinstance(value, str | bool | int | float):
        return f"{value!r}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    shape = getattr(value, "shape", None)
    return f"{tuple(shape)}" if shape is not None else f"a {type(value).__name__}"
