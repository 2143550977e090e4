"""Drive a robot by MPC through a simulator or a learned model, planning in every step or ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import safetensors.numpy
import torch
from torch import Tensor

from mbrl.agents import Controller, Controllers, Pipelined
from mbrl.agents.guide import Guide
from mbrl.dynamics import OwnModel, Simulator
from mbrl.dynamics.simulator import has_physics, physics_state
from mbrl.evaluation import motion_error
from mbrl.parts import installed
from mbrl.rng import episode_seed, generator
from mbrl.settings import DriveConfig
from mbrl.spaces import bounds, obs_size, spec_of
from mbrl.training.answers import check_frame, closing
from mbrl.training.checkpoint import write_json, written_whole
from mbrl.training.collect import Episodes, collect, play, vector
from mbrl.training.run_config import MakeEnv, versions
from mbrl.training.runs import load_run
from mbrl.types import ModelBased, Transition


class Driver(NamedTuple):
    """A robot and the controller that drives it."""

    env: gymnasium.Env
    controller: Controller
    control_step: float  # seconds
    env_repeat: int = 1  # steps of the environment for which each action is taken


class Tick(NamedTuple):
    """The state of a drive after a step, for a callback."""

    step: int  # from 1
    reward: float
    mean_reward: float  # over the steps so far
    plan_ms: float  # milliseconds of the last search
    plans: int
    realtime: float  # simulated seconds per second


class Drive(NamedTuple):
    """A recorded episode."""

    actions: np.ndarray  # (T, A)
    rewards: np.ndarray  # (T,)
    states: np.ndarray  # (T + 1, S), states of MuJoCo; (0,) for other environments
    plan_ms: np.ndarray  # (plans,), milliseconds of each search
    success: bool | None  # whether every goal was reached before it moved or the episode ended
    rejected: int  # number of candidates whose simulation diverged
    evaluated: int  # number of candidates
    late: int  # number of plans that were ready only after the step they were made for
    realtime: float  # simulated seconds per second
    seed: int  # seed that the environment was reset with
    env_repeat: int = 1  # steps of the environment for which each action was taken


def build_driver(config: DriveConfig, *, make_env: MakeEnv, seed: int) -> Driver:
    """The environment and its controller.

    An environment in which a model was learned with repeated actions repeats them here too.

    Args:
        config: the robot, the model and the planner.
        make_env: makes the environment, such as `envs.make`; its metadata must have its task. Where
            actions are repeated it must take `action_repeat`.
        seed: seed of the planner's draws and of randomised members.

    Raises:
        ValueError: an unknown environment, one without a simulator to plan through, settings
            that do not match.
        RunError: a model that is not a run, or is one of another environment.
    """
    mpc, repeat = config.mpc, 1
    simulated = config.model in ("true", "planning")
    if not simulated and config.members > 1:
        raise ValueError(
            f"--members {config.members}: only simulators can be randomised; --model "
            f"{config.model} has members of its own"
        )
    if config.device is not None and (simulated or _is_own(config.model)):
        raise ValueError(
            f"--device {config.device}: only a model learned in a run has a device; --model is "
            f"{config.model}"
        )
    if simulated:
        env = _made(config, make_env)
        task = _simulated(env, config.env)
        model: Any = Simulator(
            task,
            planning=config.model == "planning",
            members=config.members,
            randomisation=config.randomisation,
            rng=np.random.default_rng(seed),
        )

        def state_of(obs: np.ndarray) -> Tensor:
            return physics_state(env)

        settings: dict[str, Any] = {"reward": None, "terminated": None, "state_of": state_of}
        if model.noise_shape == (0,) or mpc.particles % config.members:
            mpc = replace(mpc, particles=config.members)  # without noise more would be copies
        step = model.control_step
        low, high = bounds(env.action_space)
    elif _is_own(config.model):
        env = _made(config, make_env)
        spec = spec_of(env)
        low, high = bounds(spec.action)
        own = OwnModel(config.model, config.model_settings)
        model = own.make(obs_size(spec.obs), len(low), generator=generator(seed, 2))
        settings = {"reward": spec.reward, "terminated": spec.terminated}
        if mpc.particles % model.members:
            mpc = replace(mpc, particles=model.members)
        step = _control_step(env, config)
    else:
        loaded = load_run(Path(config.model), make_env=make_env, device=config.device)
        if loaded.config.env != config.env:
            raise ValueError(
                f"--model {config.model} was learned on {loaded.config.env}, not {config.env}"
            )
        agent = loaded.agent
        if not isinstance(agent, ModelBased):
            raise ValueError(f"--model {config.model}: {loaded.config.algo} learns no model")
        if not agent.fits:
            raise ValueError(f"--model {config.model}: it is not fitted yet; train it on")
        model, repeat = agent.model, loaded.config.action_repeat
        env = _made(config, lambda _: loaded.config.made(make_env))
        settings = {"reward": agent.reward, "terminated": agent.terminated}
        if mpc.particles % model.members:
            mpc = replace(mpc, particles=model.members)
        step = repeat * _control_step(env, config)
        low, high = bounds(env.action_space, device=loaded.config.device)
    if config.learner is not None:
        settings["guide"] = _guide(config, make_env, low.device, repeat)
    arguments = (model, mpc.build(low, high), mpc)
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
    return Driver(env, controller, step, repeat)


def _guide(config: DriveConfig, make_env: MakeEnv, device: torch.device, repeat: int) -> Guide:
    """The learner of the run in `config.learner`, on the device of the plans."""
    loaded = load_run(Path(str(config.learner)), make_env=make_env, device=str(device))
    loaded.env.close()
    agent = loaded.agent
    try:
        if loaded.config.env != config.env:
            raise ValueError(f"it was trained on {loaded.config.env}, not {config.env}")
        if loaded.config.action_repeat != repeat:
            raise ValueError(
                f"it was trained with --env-repeat {loaded.config.action_repeat}, and here each "
                f"action is taken for {repeat} step{'s' * (repeat > 1)}, as in --model "
                f"{config.model}"
            )
        if not hasattr(agent, "guide"):
            raise ValueError(f"{loaded.config.algo} has no critic and policy to plan with")
        return agent.guide()
    except ValueError as error:
        raise ValueError(f"--learner {config.learner}: {error}") from None


def plan_seconds(driver: Driver, *, plans: int = 3) -> float:
    """Median seconds of `plans` searches from the first state of an episode.

    The environment is reset and not reset again.
    """
    obs, _ = driver.env.reset(seed=0)
    seconds = []
    for _ in range(plans + 1):
        began = time.perf_counter()
        driver.controller.warm_up(obs)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[1:]))  # the first one warms up


def _control_step(env: gymnasium.Env, config: DriveConfig) -> float:
    """Seconds of a control step; 1 if the environment does not define it and nothing uses it."""
    fps = env.metadata.get("render_fps")
    if fps is None and config.asynchronous:
        raise ValueError(
            f"--asynchronous: {config.env} does not say how long a step is; set "
            'metadata["render_fps"], steps a second'
        )
    return 1 / float(fps or 1)


def _simulated(env: gymnasium.Env, env_id: str) -> Any:
    """The task of an environment; raises ValueError for an environment without a simulator."""
    task = env.metadata.get("known", {}).get("task")
    if task is None:
        raise ValueError(f"{env_id}: there is no simulator of it to plan through")
    return task


def _is_own(model: str) -> bool:
    """Whether `model` is a module:Class or a model of an installed package, and not a folder."""
    return (":" in model or model in installed("model")) and not Path(model).exists()


def _made(config: DriveConfig, make_env: MakeEnv) -> gymnasium.Env:
    env = make_env(config.env)
    limit = None if env.spec is None else env.spec.max_episode_steps
    if config.delay is not None and limit is not None and config.delay > limit:
        env.close()
        raise ValueError(
            f"delay must be at most {limit}, the steps of an episode of {config.env}, "
            f"got {config.delay}"
        )
    return env


def drive(
    driver: Driver,
    *,
    seed: int,
    number: int = 0,
    steps: int | None = None,
    callback: Callable[[Tick], None] = lambda _: None,
) -> Drive:
    """One episode of at most `steps`, reset with `episode_seed(seed, number)`.

    It runs in real time if the planner is asynchronous.

    Raises:
        EnvironmentError: the environment raised an exception, such as that its physics diverged.
    """
    env, controller, control_step, repeat = driver
    task = env.metadata.get("known", {}).get("task")
    episode, records = Episodes(seed, first=number), has_physics(env)
    actions, rewards, states, reached = [], [], [], []
    began, busy = 0.0, 0.0

    class Robot(Controllers):
        """The controller; it searches once before the time of the episode is measured."""

        def reset(self, begins: np.ndarray) -> None:
            nonlocal began
            super().reset(begins)
            assert episode.obs is not None
            # the first search compiles, allocates memory and, with a budget, measures its own time
            controller.warm_up(episode.obs[0])
            if records:
                states.append(physics_state(env).numpy())
            began = time.perf_counter()

    robot = Robot(lambda: controller, generator=controller.generator)
    for step in play(robot, vector(env), episode):
        obs, reward = step.next_obs[0].numpy(), float(step.reward[0])
        busy = episode.seconds["act"] + episode.seconds["step"]
        if controller.paced:
            busy = time.perf_counter() - began
        actions.append(step.action[0].numpy())
        rewards.append(reward)
        if records:
            states.append(physics_state(env).numpy())
        count = len(rewards)
        over = bool(episode.over[0]) or count == steps
        if task is not None and task.success is not None:
            # one step early: the observation of the step that moves the goal has the new goal
            phase = (count + 1) % task.goal_steps if task.goal_steps else count
            if phase == 0 or (over and phase != 1):
                reached.append(bool(task.success(obs)))
        callback(
            Tick(
                count,
                reward,
                float(np.mean(rewards)),
                1e3 * controller.seconds[-1],
                controller.plans,
                count * control_step / busy,
            )
        )
        if controller.paced:
            time.sleep(max(0.0, began + count * control_step - time.perf_counter()))
        if over:
            break
    return Drive(
        np.array(actions),
        np.array(rewards),
        np.array(states),
        1e3 * np.array(controller.seconds),
        all(reached) if reached else None,
        controller.rejected,
        controller.evaluated,
        controller.late,
        len(rewards) * control_step / busy,
        episode_seed(seed, number),
        repeat,
    )


def row(drive: Drive, control_step: float, budget_ms: float | None = None) -> dict[str, Any]:
    """The results of one episode, with times in milliseconds.

    Args:
        drive: the episode.
        control_step: seconds of a step.
        budget_ms: milliseconds that a search may take; None: `within_budget` is None.
    """
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


def summary_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summary of the `row` of each seed: means, medians of times, sums of counts and successes."""

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


def drive_one(
    config: DriveConfig,
    *,
    make_env: MakeEnv,
    seed: int,
    start: int | None = None,
    number: int = 0,
    steps: int | None = None,
    callback: Callable[[Tick], None] = lambda _: None,
) -> tuple[Drive, float]:
    """One episode with a new environment and controller, and the control step in seconds.

    Args:
        config: the robot, the model and the planner.
        make_env: see `build_driver`.
        seed: see `build_driver`.
        start: the episode is reset with `episode_seed(start, number)`; None: `seed`.
        number: see `start`.
        steps: maximum number of steps; None: those of the environment.
        callback: called after each step.

    Raises:
        ValueError, RunError: see `build_driver`.
        EnvironmentError: see `drive`.
    """
    driver = build_driver(config, make_env=make_env, seed=seed)
    start = seed if start is None else start
    try:
        with closing(driver.env):
            driven = drive(driver, seed=start, number=number, steps=steps, callback=callback)
        return driven, driver.control_step
    finally:
        driver.controller.close()


def replay(
    env: gymnasium.Env, actions: Sequence[np.ndarray] | np.ndarray, *, seed: int
) -> Iterator[Transition]:
    """Take given actions (T, A) in the episode reset with `episode_seed(seed, 0)`.

    Yields a transition (1,) after each step, until the actions or the episode end. The environment
    can be rendered between two steps, and is not closed.
    """
    given, episode = iter(actions), Episodes(seed)

    class Given:
        """Takes the given actions one after another."""

        def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
            return np.asarray(next(given))[None]

    for step in collect(Given(), vector(env), episode, steps=len(actions)):
        yield step
        if episode.over[0]:
            return


def film(
    env: gymnasium.Env, actions: Sequence[np.ndarray] | np.ndarray, *, seed: int
) -> tuple[list[np.ndarray], list[float]]:
    """`replay` with a frame after each step, and the return up to it, for `envs.video.write_film`.

    The environment must render frames (h, w, 3) of uint8, as with `render_mode="rgb_array"`. Raises
    EnvironmentError for anything else.
    """
    frames, returns, total = [], [], 0.0
    for step in replay(env, actions, seed=seed):
        total += float(step.reward[0])
        frames.append(check_frame(env.render()))
        returns.append(total)
    return frames, returns


def planning_error(
    config: DriveConfig,
    *,
    make_env: MakeEnv,
    seed: int,
    start: int,
    seconds: float,
    steps: int = 60,
) -> float | None:
    """`motion_error` of the cheaper simulator that a task has for planning; None without one.

    It is measured from every sixth state of an episode of `steps` steps, over motions of `seconds`.
    The episode is planned with the seed `seed` and reset with `episode_seed(start, 0)`.

    Raises:
        ValueError: see `build_driver`.
        EnvironmentError: see `drive`.
    """
    env = make_env(config.env)
    task = _simulated(env, config.env)
    env.close()
    if task.planning is None:
        return None
    driven, _ = drive_one(config, make_env=make_env, seed=seed, start=start, steps=steps)
    true, cheap = Simulator(task), Simulator(task, planning=True)
    states, rng = driven.states[::6], np.random.default_rng(0)
    return motion_error(true, cheap, states, seconds=seconds, rng=rng)


class Drives(NamedTuple):
    """Recorded episodes, one for each seed, and their results."""

    each: list[Drive]
    control_step: float
    """Seconds of a step."""
    rows: list[dict[str, Any]]
    """See `row`."""
    summary: dict[str, Any]
    """See `summary_of`."""


def drive_seeds(
    config: DriveConfig,
    *,
    make_env: MakeEnv,
    seeds: Sequence[int],
    steps: int | None = None,
    callback: Callable[[int, Tick], None] = lambda episode, tick: None,
    done: Callable[[int, Drive], None] = lambda episode, drive: None,
) -> Drives:
    """One episode for each seed, each with a new environment and controller.

    Args:
        config: the robot, the model and the planner.
        make_env: see `build_driver`.
        seeds: seeds of the episodes, at least one.
        steps: maximum number of steps of an episode; None: those of the environment.
        callback: called after each step with the index of the episode and a `Tick`.
        done: called after each episode with its index and its record.

    Raises:
        ValueError, RunError: see `build_driver`.
        EnvironmentError: see `drive`.
    """
    drives: list[Drive] = []
    control_step = 0.0
    for index, seed in enumerate(seeds):
        driven, control_step = drive_one(
            config,
            make_env=make_env,
            seed=seed,
            steps=steps,
            callback=lambda tick, index=index: callback(index, tick),
        )
        drives.append(driven)
        done(index, driven)
    rows = [row(drive, control_step, config.mpc.budget_ms) for drive in drives]
    return Drives(drives, control_step, rows, summary_of(rows))


def save_drives(path: Path, config: DriveConfig, drives: Drives, *, seeds: Sequence[int]) -> None:
    """Write `drive.json` and `drives.safetensors` into the folder `path`.

    `drive.json` contains the config, one row for each seed and the summary; `drives.safetensors`
    the actions, rewards, physics states and planning times of each seed.
    """
    arrays = {
        f"{seed}/{name}": np.ascontiguousarray(getattr(drive, name))
        for seed, drive in zip(seeds, drives.each, strict=True)
        for name in ("actions", "rewards", "states", "plan_ms")
    }
    with written_whole(path / "drives.safetensors") as temporary:
        temporary.write_bytes(safetensors.numpy.save(arrays))
    result = {
        "config": asdict(config),
        "versions": versions(),
        "seeds": dict(zip(map(str, seeds), drives.rows, strict=True)),
        "summary": drives.summary,
    }
    write_json(path / "drive.json", result)
