"""Runs: agents for environments, their training, and loading them from their folders."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import torch
from gymnasium.vector import VectorEnv

from mbrl import agents
from mbrl.checks import check_state
from mbrl.nn import Diverged
from mbrl.plain import shown
from mbrl.rng import generator
from mbrl.spaces import spec_of
from mbrl.training.answers import EnvironmentError, closing
from mbrl.training.checkpoint import CONFIG, MAY_CHANGE, Run, RunError
from mbrl.training.collect import vector
from mbrl.training.files import as_run_error
from mbrl.training.metrics import SINKS, TIMINGS, MetricsLog, appended
from mbrl.training.online import Evaluation, Progress, Target, load_agent, run_agent
from mbrl.training.progress import ProgressDisplay
from mbrl.training.run_config import MakeEnv, RunConfig, changed
from mbrl.types import Agent, ModelBased, RewardFn, Spec, TerminatedFn


class Origin(NamedTuple):
    """The arguments that an agent was made with; `make` stores them as `agent.origin`."""

    algo: str
    config: Any
    seed: int
    device: str


def make(
    name: str,
    env: gymnasium.Env | VectorEnv,
    *,
    config: Any = None,
    variant: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    reward: RewardFn | None = None,
    terminated: TerminatedFn | None = None,
    **settings: Any,
) -> Any:
    """A new agent for an environment: `mbrl.make("pets", env, planner="mppi", seed=1)`.

    Args:
        name: name of the agent; see `mbrl.agents.agent`.
        env: one environment, or a vector of N.
        config: the agent's `Config`; if None, `Config.suited` of the environment.
        variant: the name of a published variant of the algorithm; see `mbrl.agents.varied`.
        seed: seed of all the agent's randomness.
        device: device of its model.
        reward, terminated: used instead of those of `env.metadata["known"]`; see `spec_of`.
        settings: fields of the config to change; see `changed`.

    Raises:
        ValueError: an unknown agent, variant or setting; settings that do not fit the environment.
    """
    module, spec = agents.agent(name), spec_of(env, reward=reward, terminated=terminated)
    config = module.Config.suited(spec) if config is None else config
    config = agents.varied(name, config, variant)
    return _made(name, spec, changed(config, **settings), seed, device)


def _made(
    algo: str, spec: Spec, config: Any, seed: int, device: str, *, saved: bool = False
) -> Any:
    """A new agent, or with `saved` one whose state is loaded next."""
    module = agents.agent(algo)
    make = getattr(module, "make_saved", module.make) if saved else module.make
    made = make(spec, config, generator=generator(seed), device=device)
    if algo not in agents.AGENTS:
        check_agent(made, algo)
    made.origin = Origin(algo, config, seed, device)
    return made


def check_agent(made: Any, name: str) -> None:
    """Check that a user's `make` returned an agent, with all methods and a state to save.

    Raises:
        ValueError: a method is missing, or the state is not a dict.
    """
    for method in ("act", "observe", "update", "player", "state_dict", "load_state_dict"):
        if not callable(getattr(made, method, None)):
            raise ValueError(
                f"agent {name!r}: make returned a {type(made).__name__}, which has no method "
                f"{method}"
            )
    state = made.state_dict()
    if not isinstance(state, dict):
        raise ValueError(
            f"agent {name!r}: state_dict must return a dict, got a {type(state).__name__}"
        )


def train(
    agent: Agent,
    env: gymnasium.Env | VectorEnv,
    run: Path | str | Run | None = None,
    *,
    steps: int,
    seed: int | None = None,
    sinks: Sequence[str] = (),
    checkpoint_every: int | None = None,
    evaluation: Evaluation | None = None,
    target: Target | None = None,
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
    callback: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Train an agent for a total of `steps` environment steps; see `run_agent`.

    Args:
        agent: a new agent, from `make`.
        env: one environment, or a vector of N.
        run: the folder of a run, new or to be continued, which the command can open too. None saves
            nothing.
        steps: total number of environment steps over all environments, including those before a
            resume.
        seed: seed of the episodes; that of the agent if None.
        sinks: names in `mbrl.training.metrics.SINKS`, to log to besides `metrics.jsonl`.
        checkpoint_every, evaluation, target: see `run_agent`.
        progress: whether to show a bar in a terminal, and elsewhere a line per episode.
        stop, callback: see `run_agent`.

    Raises:
        RunError: a folder that is not a run, or a run of another config; see also `run_agent`.
        ValueError: a folder for an agent that `make` did not make, or for an environment without
            an id; an unknown sink. Nothing is then written.
        ModuleNotFoundError: a sink that is not installed. Nothing is then written.
        EnvironmentError: the environment raised an exception, or returned a value that no agent can
            use. The run can be resumed from its last checkpoint.
        Diverged: see `run_agent`.
    """
    origin: Origin | None = getattr(agent, "origin", None)
    if seed is None:
        seed = 0 if origin is None else origin.seed
    for name in sinks:
        if name not in SINKS:
            raise ValueError(f"sink {name!r} is unknown; there are {', '.join(SINKS)}")
        SINKS[name].check()
    if isinstance(run, Path | str):
        if origin is None:
            raise ValueError("a run's folder needs an agent made by mbrl.make")
        count = env.num_envs if isinstance(env, VectorEnv) else 1
        apart: dict[str, Any] = (
            {"evaluate_every": 0}
            if evaluation is None
            else {"evaluate_every": evaluation.every, "evaluation_episodes": evaluation.episodes}
        )
        if target is not None:
            apart |= {"until_return": target.value, "until_episodes": target.episodes}
        made = RunConfig(
            origin.algo, _id_of(env), seed, steps, origin.device, origin.config, count, **apart
        )
        run = _opened(made, Path(run))
    shown = agents.name_of(getattr(agent, "config", agent))
    with ProgressDisplay(shown, steps, shows=progress) as display:

        def both(now: Progress) -> None:
            display(now)
            callback(now)

        settings: dict[str, Any] = {
            "seed": seed,
            "steps": steps,
            "evaluation": evaluation,
            "target": target,
            "stop": stop,
            "callback": both,
        }
        if run is None:
            return run_agent(agent, env, **settings)
        with run:
            began = time.perf_counter()
            log = MetricsLog(run.path, sinks=[SINKS[name](run.path) for name in sinks])
            try:
                done = run_agent(
                    agent, env, run, log=log, checkpoint_every=checkpoint_every, **settings
                )
            except EnvironmentError as error:
                said = f"the run {run.path} can be resumed from {run.goes_on_from()}"
                raise EnvironmentError(f"{error}; {said}", error.place) from error.__cause__
            except Diverged as error:
                raise type(error)(
                    f"{error}; resumed from {run.goes_on_from()}, the run {run.path} would repeat "
                    "this: begin another run with a lower learning_rate"
                ) from None
            finally:
                log.close()
            _append_timing(run.path, done, time.perf_counter() - began)
            return done


def _id_of(env: gymnasium.Env | VectorEnv) -> str:
    spec = getattr(env.unwrapped, "envs", [env])[0].spec or env.spec
    if spec is None:
        raise ValueError(
            "the environment has no id to be stored in the run's folder; register it "
            "(gymnasium.register) and make it by its id"
        )
    return spec.id


def _opened(config: RunConfig, path: Path) -> Run:
    """Open the run in a folder, or create it."""
    if not (path / CONFIG).exists():
        return Run.create(path, config.to_json())
    run = Run.open(path)
    there = RunConfig.from_json(run.config, path / CONFIG)
    if dataclasses.replace(there, **{n: getattr(config, n) for n in MAY_CHANGE}) != config:
        raise RunError(f"{path} was begun with another config; name another folder")
    if config.steps < (run.latest() or 0):
        raise RunError(f"{path} is at step {run.latest()} already, beyond {config.steps}")
    return run


def train_run(
    config: RunConfig,
    path: Path,
    *,
    make_env: MakeEnv,
    resume: bool = False,
    numbered: bool = False,
    **settings: Any,
) -> Progress:
    """Train a run of a config in the folder `path`; all checks precede the first write.

    Args:
        config: config of the run.
        path: a new folder, or with `resume` that of a run of this config.
        make_env: makes the environments.
        resume: whether to continue from the newest checkpoint (from the start if there is none).
        numbered: see `Run.create`; the result's `path` is the folder.
        settings: see `train`.

    Raises:
        RunError: the folder exists already, or with `resume` does not exist; another process
            writes to the run.
        ValueError: settings that do not fit the environment or each other.
        EnvironmentError, Diverged: see `train`.
    """
    makers = [functools.partial(config.made, make_env)] * config.num_envs
    env = _env_of(makers, path / CONFIG) if resume else vector(makers)
    with closing(env):
        spec = spec_of(env)
        if resume:
            saved = Run.open(path).latest() is not None
            agent = _agent_of(config, spec, path / CONFIG, saved=saved)
        else:
            agent = _made(config.algo, spec, config.agent, config.seed, config.device)
        for name in settings.get("sinks", ()):
            SINKS[name].check()
        if resume:
            run = Run.open(path)
        else:
            run = Run.create(path, config.to_json(), numbered=numbered)
        with closing(config.made(make_env)) if config.evaluate_every else nullcontext() as other:
            evaluation = None
            if other is not None:
                evaluation = Evaluation(other, config.evaluate_every, config.evaluation_episodes)
            settings |= {"evaluation": evaluation, "target": config.target}
            settings |= {"steps": config.steps, "seed": config.seed}
            return train(agent, env, run, **settings)


class Loaded(NamedTuple):
    """A run loaded at its newest checkpoint."""

    run: Run
    config: RunConfig
    env: VectorEnv  # of one environment
    spec: Spec
    agent: Any
    env_steps: int  # of the checkpoint


def load_run(path: Path | str, *, make_env: MakeEnv, device: str | None = None) -> Loaded:
    """Load a run's agent at its newest checkpoint, and make its environment.

    Args:
        path: the run's folder.
        make_env: makes the environment.
        device: device of the agent's model; that of the run if None.

    Raises:
        RunError: `path` is not a run; a checkpoint that is missing, broken or from a different
            agent; a device that this machine does not have; a part in a module that is not imported
            (see `RunConfig.of`).
    """
    run = Run.open(Path(path))
    config = RunConfig.of(run)
    if device is not None:
        config = dataclasses.replace(config, device=device)
    check_device(
        config.device, f"the run {path} uses" if device is None else "--device asks for the"
    )
    env = _env_of([functools.partial(config.made, make_env)], run.path / CONFIG)
    try:
        spec = spec_of(env)
        agent = _agent_of(config, spec, run.path / CONFIG, saved=True)
        state = run.load(device=config.device)
        try:
            check_state(state, {"agent": {}, "episodes": {}, "log_bytes": 0})
            check_state(state["episodes"].get("steps"), 0, "episodes/steps")
            load_agent(agent, state["agent"])
        except ValueError as error:
            raise RunError(f"the checkpoint of {path} does not fit its config: {error}") from error
    except BaseException:
        env.close()
        raise
    return Loaded(run, config, env, spec, agent, state["episodes"]["steps"])


def _env_of(makers: Sequence[Callable[[], gymnasium.Env]], file: Path) -> VectorEnv:
    """A run's environments; errors name the config file."""
    try:
        return vector(makers)
    except ValueError as error:
        raise RunError(f"{file}: env: {shown(' '.join(str(error).split()))}") from error


def _agent_of(config: RunConfig, spec: Spec, file: Path, *, saved: bool) -> Any:
    try:
        return _made(config.algo, spec, config.agent, config.seed, config.device, saved=saved)
    except ValueError as error:
        raise RunError(f"{file}: agent: {shown(' '.join(str(error).split()))}") from error
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        # torch's message for a size that is too large has a stack of C++ calls
        raise RunError(
            f"{file}: agent: no agent can be made with these sizes; there is too little memory "
            "for it, or one of them is too large"
        ) from error


def with_settings(loaded: Loaded, **settings: Any) -> Any:
    """The agent of a run; with settings, a new one with its learned model and those changed.

    Raises:
        ValueError: see `changed`; settings for an agent without a model.
    """
    config = loaded.config
    if not settings:
        return loaded.agent
    if not isinstance(loaded.agent, ModelBased):
        raise ValueError(f"{config.algo} has no model that other settings could use")
    module, own = agents.agent(config.algo), changed(config.agent, **settings)
    other = module.make(loaded.spec, own, generator=generator(config.seed))
    other.model.load_state_dict(loaded.agent.model.state_dict())
    return other


def check_device(device: str, whose: str) -> None:
    """Check that a device can be used on this machine.

    Raises:
        RunError: the device is unknown, or this machine does not have it; `whose` begins the line.
    """
    try:
        torch.empty(0, device=device)
        torch.Generator(device)
    except Exception as error:  # the type depends on the device
        raise RunError(
            f"{whose} device {shown(repr(device), most=60)}, which this machine does not have; "
            "choose another with --device, such as cpu"
        ) from error


def _append_timing(path: Path, progress: Progress, seconds: float) -> None:
    """Append durations to their own file, because metrics.jsonl must be equal for equal seeds."""
    line: dict[str, Any] = {"env_steps": progress.env_steps, "seconds": round(seconds, 3)}
    line |= {name: round(value, 3) for name, value in progress.seconds.items()}
    with as_run_error(path / TIMINGS), appended(path / TIMINGS) as file:
        file.write(json.dumps(line).encode() + b"\n")
