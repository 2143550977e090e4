"""Drives a robot by MPC: through its true simulator, or through a model learned of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import safetensors.numpy
import torch

import envs
from envs.mujoco_env import get_state
from envs.video import VideoError, film
from experiments import plots
from experiments.build import build_world, load_run, versions
from mbrl.agents import PETS, Controller, MPCConfig, Pipelined
from mbrl.checkpoint import written_whole
from mbrl.dynamics import Randomisation, Simulator
from mbrl.training import episode_seed, generator


@dataclass(frozen=True)
class DriveConfig:
    """All that a drive's numbers depend on, but for the clock."""

    env: str
    mpc: MPCConfig
    model: str = "planning"
    """true: the task's own simulator. planning: its cheaper planning model, where it has one.
    Anything else: the folder of a run whose learned model is planned through."""
    members: int = 1
    """Simulators planned through at once; those after the first have parameters drawn anew."""
    randomisation: Randomisation = field(default_factory=Randomisation)
    """How far their parameters lie apart."""
    asynchronous: bool = False
    """Plan in a worker, in real time, while the robot carries out the last plan."""
    delay: int | None = None
    """Steps after which a plan takes over; without `asynchronous`, planned in place."""


class Driver(NamedTuple):
    """A robot and what drives it."""

    env: gymnasium.Env
    task: envs.Task | None
    controller: Controller
    control_step: float  # seconds


class Tick(NamedTuple):
    """What can be watched after each step."""

    episode: int
    step: int
    reward: float
    score: float  # mean reward so far
    plan_ms: float  # of the last search
    plans: int
    realtime: float  # simulated seconds a second


class Drive(NamedTuple):
    """One episode, recorded."""

    actions: np.ndarray  # (T, A)
    rewards: np.ndarray  # (T,)
    states: np.ndarray  # (T + 1, S) MuJoCo's; (0,) for environments that are not
    plan_ms: np.ndarray  # (plans,)
    success: bool | None  # every goal was reached when it moved, and the last at the end
    rejected: int  # candidates that blew up
    evaluated: int
    late: int  # plans that came after the step they were made for
    realtime: float
    seed: int


def build_driver(config: DriveConfig, *, seed: int) -> Driver:
    """The environment and its controller.

    Raises:
        ValueError: an unknown environment, one without a simulator to plan through, settings
            that do not fit.
        RunError: a model that is no run, or of another environment.
    """
    mpc = config.mpc
    if config.model in ("true", "planning"):
        task = envs.simulated(config.env)
        world = build_world(config.env)
        model: Any = Simulator(
            task,
            planning=config.model == "planning",
            members=config.members,
            randomisation=config.randomisation,
            rng=np.random.default_rng(seed),
        )
        inner: Any = world.env.unwrapped
        settings: dict[str, Any] = {
            "reward": None,
            "terminated": None,
            "state_of": lambda _: torch.from_numpy(get_state(inner.model, inner.data)),
        }
        if model.noise_shape == (0,) or mpc.particles % config.members:
            mpc = replace(mpc, particles=config.members)  # without noise more would be copies
        step = model.control_step
    else:
        loaded = load_run(Path(config.model))
        if loaded.config.env != config.env:
            raise ValueError(
                f"--model {config.model} was learned on {loaded.config.env}, not {config.env}"
            )
        agent = loaded.agent
        if not isinstance(agent, PETS):
            raise ValueError(f"--model {config.model}: {loaded.config.algo} learns no model")
        model, world, task = agent.model, loaded.world, envs.TASKS.get(config.env)
        settings = {"reward": agent.reward, "terminated": agent.terminated}
        if mpc.particles % model.members:
            mpc = replace(mpc, particles=model.members)
        step = 1 / float(world.env.metadata["render_fps"])
    arguments = (model, mpc.build(world.low, world.high), mpc)
    settings["generator"] = generator(seed, 1)
    if config.asynchronous or config.delay is not None:
        controller: Controller = Pipelined(
            *arguments,
            control_step=step,
            delay=config.delay,
            worker=config.asynchronous,
            **settings,
        )
    else:
        controller = Controller(*arguments, **settings)
    return Driver(world.env, task, controller, step)


def drive(
    driver: Driver,
    *,
    seed: int,
    episode: int = 0,
    steps: int | None = None,
    watch: Callable[[Tick], None] = lambda _: None,
) -> Drive:
    """One episode of at most `steps`; in real time where the planner is asynchronous.

    Raises:
        SimulationDiverged: the robot itself blew up.
    """
    env, task, controller, control_step = driver
    inner: Any = env.unwrapped
    paced = isinstance(controller, Pipelined) and controller.worker
    obs, _ = env.reset(seed=seed)
    controller.reset()
    # The first search compiles, allocates and, with a budget, times itself: not the robot's time.
    controller.warm_up(obs)

    actions, rewards, states, reached = [], [], [], []
    record = envs.can_snapshot(env)
    if record:
        states.append(get_state(inner.model, inner.data))
    busy, began, over = 0.0, time.perf_counter(), False  # busy: planning and stepping
    while not over and (steps is None or len(rewards) < steps):
        tick = time.perf_counter()
        action = controller.act(obs)
        obs, reward, terminated, truncated, _ = env.step(action)
        busy = time.perf_counter() - began if paced else busy + time.perf_counter() - tick
        over = terminated or truncated
        actions.append(action)
        rewards.append(float(reward))
        if record:
            states.append(get_state(inner.model, inner.data))
        count = len(rewards)
        if task is not None and task.success is not None:
            # asked a step before the goal moves: the observation of that step has the next goal
            phase = (count + 1) % task.goal_steps if task.goal_steps else count
            if phase == 0 or ((over or count == steps) and phase != 1):
                reached.append(bool(task.success(obs)))
        watch(
            Tick(
                episode,
                count,
                float(reward),
                float(np.mean(rewards)),
                1e3 * controller.seconds[-1],
                controller.plans,
                count * control_step / busy,
            )
        )
        if paced:
            time.sleep(max(0.0, began + count * control_step - time.perf_counter()))
    return Drive(
        np.array(actions),
        np.array(rewards),
        np.array(states),
        1e3 * np.array(controller.seconds),
        all(reached) if reached else None,
        controller.rejected,
        controller.evaluated,
        getattr(controller, "late", 0),
        len(rewards) * control_step / busy,
        seed,
    )


def drive_all(
    config: DriveConfig,
    path: Path,
    *,
    seeds: Sequence[int],
    steps: int | None = None,
    video: bool = False,
    watch: Callable[[Tick], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """An episode a seed; numbers, recorded controls and a figure in the folder `path`.

    `drive.json` has the config, a row a seed and the summary; `drives.safetensors` each seed's
    actions, rewards, physics states and plan times. Without OpenGL a film is skipped, and said
    to be.

    Raises:
        ValueError: settings that do not fit; an existing `path`.
        RunError: see `build_driver`.
    """
    if path.exists():
        raise ValueError(f"{path} exists already")
    drives: list[Drive] = []
    control_step, budget = 0.0, config.mpc.budget_ms
    for place, seed in enumerate(seeds):
        driver = build_driver(config, seed=seed)
        try:
            drives.append(
                drive(driver, seed=episode_seed(seed, 0), episode=place, steps=steps, watch=watch)
            )
        finally:
            driver.env.close()
            driver.controller.close()
        control_step = driver.control_step
        tell(_line(place, seed, drives[-1]))
    rows = [_row(drive, control_step, budget) for drive in drives]
    summary = _summary(rows)
    if summary["rejected"]:
        tell(f"warning: {summary['rejected']} candidates blew up in the simulation and lost")
    arrays = {
        f"{seed}/{name}": np.ascontiguousarray(getattr(drive, name))
        for seed, drive in zip(seeds, drives, strict=True)
        for name in ("actions", "rewards", "states", "plan_ms")
    }
    with written_whole(path / "drives.safetensors") as temporary:
        safetensors.numpy.save_file(arrays, temporary)
    figure = plots.drives(
        [drive.rewards for drive in drives],
        [drive.plan_ms for drive in drives],
        control_step=control_step,
        budget_ms=budget,
        title=f"{config.env} driven by {config.mpc.planner.name}",
    )
    plots.save(figure, path / "plots" / "drive.png")
    if video:
        try:
            first = drives[0]
            film(
                config.env,
                first.actions,
                path / "videos" / f"{config.env.replace('/', '-')}.mp4",
                seed=first.seed,
            )
            tell(f"video {path / 'videos'}")
        except (envs.RenderingUnavailable, gymnasium.error.Error, VideoError) as error:
            tell(f"video skipped: {error}")
    result = {
        "config": asdict(config),
        "versions": versions(),
        "seeds": dict(zip(map(str, seeds), rows, strict=True)),
        "summary": summary,
    }
    with written_whole(path / "drive.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    return {"path": str(path), **summary}


def _row(drive: Drive, control_step: float, budget_ms: float | None) -> dict[str, Any]:
    last = max(1, round(1 / control_step))
    return {
        "return": float(drive.rewards.sum()),
        "reward": float(drive.rewards.mean()),
        "reward_last_second": float(drive.rewards[-last:].mean()),
        "steps": len(drive.rewards),
        "success": drive.success,
        "plan_ms": float(np.median(drive.plan_ms)),
        "plan_ms_best": float(drive.plan_ms.min()),
        "plan_ms_p99": float(np.quantile(drive.plan_ms, 0.99)),
        "plans": len(drive.plan_ms),
        "plan_hz": len(drive.plan_ms) / (len(drive.rewards) * control_step),
        "within_budget": None if budget_ms is None else float((drive.plan_ms <= budget_ms).mean()),
        "realtime": drive.realtime,
        "evaluated": drive.evaluated,
        "rejected": drive.rejected,
        "late": drive.late,
    }


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; the median of times, sums of counts, and how many succeeded."""

    def column(name: str) -> list[Any]:
        return [row[name] for row in rows if row[name] is not None]

    summary: dict[str, Any] = {"episodes": len(rows)}
    for name in ("return", "reward", "reward_last_second", "plan_hz"):
        summary[name] = float(np.mean(column(name)))
    summary["reward_worst"] = min(column("reward"))
    summary["succeeded"] = sum(column("success")) if column("success") else None
    for name in ("plan_ms", "plan_ms_p99", "realtime"):
        summary[name] = float(np.median(column(name)))
    summary["plan_ms_best"] = min(column("plan_ms_best"))
    within = column("within_budget")
    summary["within_budget"] = float(np.mean(within)) if within else None
    for name in ("evaluated", "rejected", "late"):
        summary[name] = sum(column(name))
    return summary


def _line(place: int, seed: int, drive: Drive) -> str:
    said = "" if drive.success is None else "  success" if drive.success else "  no success"
    return (
        f"episode {place + 1:3}  seed {seed:3}  return {drive.rewards.sum():8.2f}  "
        f"reward {drive.rewards.mean():7.4f}{said}  plan {np.median(drive.plan_ms):6.2f} ms  "
        f"real time x {drive.realtime:.2f}"
    )
