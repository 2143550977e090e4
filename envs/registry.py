"""Environments by name: our tasks, and any id registered with gymnasium."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from envs import (
    acrobot,
    cartpole,
    cartpole_servo,
    cylinder_push,
    half_cheetah,
    panda_pick,
    panda_push,
    panda_reach,
    pendulum,
    pusher,
    quadruped_standup,
    quadruped_walk,
    reacher,
    walker,
)
from envs.gymnasium_tasks import DESCRIBED, KNOWN
from envs.mujoco_env import MujocoEnv
from envs.task import Known, Task, never
from envs.worlds import WetChicken

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        cartpole.TASK,
        cartpole.NOISY,
        cartpole_servo.TASK,
        cylinder_push.TASK,
        acrobot.TASK,
        pendulum.TASK,
        reacher.TASK,
        pusher.TASK,
        half_cheetah.TASK,
        panda_reach.TASK,
        panda_push.TASK,
        panda_pick.TASK,
        quadruped_walk.TASK,
        quadruped_standup.TASK,
        walker.TASK,
    )
}
"""Our own tasks by name."""

_WORLDS: Mapping[str, Known] = {"wet-chicken": Known(WetChicken.reward, WetChicken.terminated, "")}

_SUMMARIES = {
    "Ant-v5": "run forward on four legs",
    "HalfCheetah-v5": "run forward on two legs in a plane",
    "Hopper-v5": "hop forward on one leg without falling",
    "Humanoid-v5": "walk forward on two legs without falling",
    "HumanoidStandup-v5": "stand up from lying",
    "InvertedDoublePendulum-v5": "balance two poles on a cart",
    "InvertedPendulum-v5": "balance a pole on a cart",
    "Pendulum-v1": "swing a rod up with a weak motor",
    "Pusher-v5": "push a cylinder to a goal with a 7-joint arm",
    "Reacher-v5": "reach for a point with a 2-joint arm",
    "Swimmer-v5": "swim forward with three links",
    "wet-chicken": "paddle close to a waterfall without going over; stochastic",
    "Walker2d-v5": "walk forward on two legs in a plane without falling",
}


class UnknownEnvironment(ValueError):
    """No environment has this name; the message names similar ones."""


class Description(NamedTuple):
    """The line of an environment in a listing."""

    name: str
    obs_dim: int
    action_dim: int
    steps: int
    reward_known: bool
    terminated_known: bool
    summary: str


def task_env(name: str, **kwargs: Any) -> MujocoEnv:
    """The bare environment of one of our tasks: the entry point gymnasium calls."""
    env = MujocoEnv(TASKS[name], **kwargs)
    _tell_known(env, name)
    return env


for _task in TASKS.values():
    if _task.name not in gymnasium.registry:
        gymnasium.register(
            _task.name,
            entry_point="envs.registry:task_env",
            max_episode_steps=_task.episode_steps,
            kwargs={"name": _task.name},
        )


def make(id: str, *, render_mode: str | None = None, **kwargs: Any) -> gymnasium.Env:
    """The environment with this name, with its time limit.

    `kwargs` go to `gymnasium.make`: for our tasks `width`, `height` and `max_episode_steps`. The
    environment's `metadata["known"]` has its reward and termination as functions, if they are known
    (see `known`). Raises UnknownEnvironment for a name that is neither a task nor registered.
    """
    _registered(id)
    # passed only if it is set, because a constructor may lack the argument
    rendering = {} if render_mode is None else {"render_mode": render_mode}
    env = gymnasium.make(id, **rendering, **kwargs)
    _tell_known(env, id)
    return env


def _tell_known(env: gymnasium.Env, id: str) -> None:
    """Set `env.metadata["known"]`: reward and termination as functions, and the task.

    For an environment that is not in our tables, entries that it has there itself are kept.
    """
    name, own = _registered(id), env.metadata.get("known")
    if own is not None and not any(name in table for table in (TASKS, KNOWN, _WORLDS)):
        env.unwrapped.metadata = {**env.metadata, "known": {"why": "", "task": None, **own}}
        return
    reward, terminated, why = known(id)
    told = {
        "reward": reward,
        "terminated": None if terminated is never else terminated,
        "ends": terminated is None,  # it may terminate, and when is not known as a function
        "why": why,
        "task": TASKS.get(name) or DESCRIBED.get(name),  # its physics, for a simulator of it
    }
    env.unwrapped.metadata = {**env.metadata, "known": told}


def known(id: str) -> Known:
    """Reward and termination of an environment as functions, for its default arguments.

    Raises UnknownEnvironment for a name that is neither a task nor registered.
    """
    name = _registered(id)
    if name in TASKS:
        return Known(TASKS[name].reward, TASKS[name].terminated, "")
    for table in (KNOWN, _WORLDS):
        if name in table:
            return table[name]
    return Known(None, None, f"nobody has written reward and termination of {id} as functions yet")


def simulated(id: str) -> Task:
    """The task of an environment, for a simulator of its physics.

    Raises UnknownEnvironment for a name that is neither a task nor registered, ValueError if the
    physics, or one of the functions, is not known.
    """
    name = _registered(id)
    task = TASKS.get(name) or DESCRIBED.get(name)
    if task is None:
        raise ValueError(
            f"{id}: no simulator to plan through; there is one of {', '.join(TASKS)}, "
            f"{', '.join(DESCRIBED)}"
        )
    return task


def names() -> tuple[str, ...]:
    """Our tasks, then the gymnasium ids in `known`; `make` takes every registered id."""
    return (*TASKS, *_WORLDS, *KNOWN)


def describe(id: str) -> Description:
    """The line of an environment in a listing; builds the environment to read its spaces."""
    env = make(id)
    box = check_box(env)
    limit = env.spec.max_episode_steps if env.spec is not None else None
    reward, terminated, _ = known(id)
    summary = TASKS[id].summary if id in TASKS else _SUMMARIES.get(id, "")
    obs_dim = int(np.prod(env.observation_space.shape or ()))
    env.close()
    return Description(
        name=id,
        obs_dim=obs_dim,
        action_dim=box.shape[0],
        steps=limit or 0,
        reward_known=reward is not None,
        terminated_known=terminated is not None,
        summary=summary,
    )


def check_box(env: gymnasium.Env) -> Box:
    """The environment's action space, if a planner can search it.

    Raises ValueError unless it is a Box (A,) with finite bounds.
    """
    space = env.action_space
    name = env.spec.id if env.spec is not None else str(env)
    if not isinstance(space, Box):
        raise ValueError(f"{name}: a planner needs a bounded box of actions, not {space}")
    if not space.is_bounded():
        raise ValueError(f"{name}: a planner needs a bounded box of actions; {space} is unbounded")
    if len(space.shape) != 1:
        raise ValueError(f"{name}: a planner needs actions of shape (A,), not {space.shape}")
    return space


def _registered(id: str) -> str:
    module, _, name = id.rpartition(":")
    if module:  # gymnasium's "module:name", where importing the module registers the name
        importlib.import_module(module)
    if name in gymnasium.registry:
        return name
    candidates = {known_name.lower(): known_name for known_name in gymnasium.registry}
    near = [candidates[n] for n in difflib.get_close_matches(name.lower(), candidates, 4, 0.5)]
    hint = f"did you mean {', '.join(near)}?" if near else f"ours are {', '.join(TASKS)}"
    raise UnknownEnvironment(f"unknown environment {id!r}; {hint}")
