"""From a run's config to its environment and agent, and back from its folder."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pydantic
import torch
from torch import Tensor

import envs
from experiments.presets import ALGORITHMS, AgentConfig
from mbrl.agents import PETS, PETSConfig, RandomAgent
from mbrl.checkpoint import Run, RunError
from mbrl.training import Snapshots, generator
from mbrl.types import RewardFn, TerminatedFn


@dataclass(frozen=True)
class RunConfig:
    """All that a run's numbers depend on, but for the versions of what computes them."""

    algo: str
    env: str
    seed: int
    steps: int
    device: str
    agent: AgentConfig

    def to_json(self) -> dict[str, Any]:
        """What `config.json` holds: the whole resolved config, and versions."""
        return dataclasses.asdict(self) | {"versions": versions()}

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> RunConfig:
        """Read `config.json` back.

        Raises:
            RunError: it is not a run's config; the line names the first field that is wrong.
        """
        algo = config.get("algo")
        if algo not in ALGORITHMS:
            raise RunError(f"config.json: algo is {algo!r}, not one of {', '.join(ALGORITHMS)}")
        try:
            agent = pydantic.TypeAdapter(ALGORITHMS[algo]).validate_python(config.get("agent"))
            rest = pydantic.TypeAdapter(_Rest).validate_python(config)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise RunError(f"config.json: {place}: {first['msg']}") from None
        return cls(algo=algo, agent=agent, **dataclasses.asdict(rest))


@dataclass(frozen=True)
class _Rest:
    env: str
    seed: int
    steps: int
    device: str


def versions() -> dict[str, str]:
    """Versions of what a run's numbers come from."""
    names = ("rolloutlab", "torch", "mujoco", "gymnasium", "numpy")
    return {"python": platform.python_version()} | {n: metadata.version(n) for n in names}


class World(NamedTuple):
    """An environment and what is known of it."""

    env: gymnasium.Env
    low: Tensor  # (A,)
    high: Tensor  # (A,)
    obs_size: int
    reward: RewardFn | None
    terminated: TerminatedFn | None  # None where it never ends or where that is to be learned
    ends: bool  # it may terminate, and when is not known as a function
    why: str  # what is not known as a function, and why
    episode_steps: int | None
    snapshots: Snapshots | None


def build_world(env_id: str, *, device: str = "cpu", render: bool = False, **kwargs: Any) -> World:
    """The environment of that name.

    Raises:
        ValueError: an unknown name, an action space that is no bounded box, observations that
            are not a vector of numbers.
    """
    env = envs.make(env_id, render_mode="rgb_array" if render else None, **kwargs)
    box = envs.check_box(env)
    space = env.observation_space
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"{env_id}: a model needs observations that are a vector, not {space}")
    known = envs.known(env_id)
    ends = known.terminated is None
    bounds = [
        torch.as_tensor(np.array(bound), dtype=torch.float32, device=device)
        for bound in (box.low, box.high)
    ]
    return World(
        env,
        *bounds,
        obs_size=space.shape[0],
        reward=known.reward,
        terminated=None if known.terminated is envs.never else known.terminated,
        ends=ends,
        why=known.why,
        episode_steps=env.spec.max_episode_steps if env.spec else None,
        snapshots=Snapshots(envs.snapshot, envs.restore) if envs.can_snapshot(env) else None,
    )


def build_agent(config: RunConfig, world: World) -> PETS | RandomAgent:
    """The agent of a run, fresh.

    Raises:
        ValueError: settings that do not fit the environment or one another.
    """
    own = generator(config.seed)
    if not isinstance(config.agent, PETSConfig):
        return RandomAgent(world.low, world.high, generator=own)
    return PETS(
        world.obs_size,
        world.low,
        world.high,
        config.agent,
        reward=None if config.agent.model.learn_reward else world.reward,
        terminated=None if config.agent.model.learn_termination else world.terminated,
        episode_steps=world.episode_steps,
        generator=own,
    )


class Loaded(NamedTuple):
    """A run as it stands at its newest checkpoint."""

    run: Run
    config: RunConfig
    world: World
    agent: PETS | RandomAgent


def load_run(path: Path, *, render: bool = False, device: str | None = None) -> Loaded:
    """A run's agent at its newest checkpoint, and its environment.

    Raises:
        RunError: not a run, or a checkpoint that is missing, broken or another agent's.
        ValueError: an environment that does not exist here.
    """
    run = Run.open(path)
    config = RunConfig.from_json(run.config)
    if device is not None:
        config = dataclasses.replace(config, device=device)
    world = build_world(config.env, device=config.device, render=render)
    agent = build_agent(config, world)
    weights, state = run.load(device=config.device)
    try:
        agent.load_state_dict(weights, state["agent"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RunError(f"the checkpoint of {path} does not fit its config: {reason}") from None
    return Loaded(run, config, world, agent)


def find_run(name: str, root: Path) -> Path:
    """A run's folder by path, or the newest under `root` for "latest".

    Raises:
        RunError: there is none.
    """
    if name != "latest":
        return Path(name)
    found = sorted(root.glob("*/*/*/config.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RunError(f"there is no run under {root} yet; `mbrl train` makes one")
    return found[-1].parent
