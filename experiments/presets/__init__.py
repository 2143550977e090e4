"""Tuned settings, one file for each algorithm: `PRESETS` by environment, `OTHERS` for the rest.

A file may say in `ENVS` how many environments are stepped side by side, by environment, if not one.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from mbrl.agents import agent

if TYPE_CHECKING:
    from mbrl.types import Spec

STEPS = 20_000
"""Environment steps of an algorithm that has no file of presets."""

DISCOUNTS = {
    "panda-reach": 0.97,
    "panda-push": 0.98,
    "panda-pick": 0.98,
    "cartpole-swingup": 0.98,
    "cartpole-servo": 0.98,
    "acrobot-swingup": 0.99,
    "quadruped-walk": 0.99,
    "half-cheetah": 0.99,
    "walker-run": 0.99,
}
"""γ of the library's robots for learners without a model: 1 / (1 - γ) control steps are the time in
which an action shows, 1.3 s for the arm before its ball jumps, 2 to 5 s where a pole must be swung
up or a body must run, and a third of an episode at most."""


def preset(
    algo: str,
    env: str,
    spec: Callable[[], Spec],
    *,
    known: tuple[bool, bool] | None = None,
    repeated: bool = False,
) -> tuple[int, Any]:
    """Environment steps and settings for an algorithm on an environment.

    An algorithm without presets gets `STEPS` and `Config.suited(spec())`. An environment without
    a preset gets the algorithm's `OTHERS`, with a model that learns the reward and the termination
    if they are not known as functions. A config whose `LEARNS_REWARD` is set always learns the
    reward.

    Args:
        algo: a name in `mbrl.agents.AGENTS`, or `module:NAME`.
        env: the environment's id.
        spec: returns the environment's `Spec`. Building an environment takes time, so this is
            called only if the settings depend on it.
        known: whether reward and termination are known as functions, where that can be said
            without building it.
        repeated: whether each action is taken for several steps. A reward is then a sum, which is
            no function of two observations, so a model learns it, whatever the preset says.
    """
    steps, config = _preset(algo, env, spec, known)
    model: Any = getattr(config, "model", None)
    if repeated and hasattr(model, "learn_reward"):
        config = dataclasses.replace(config, model=dataclasses.replace(model, learn_reward=True))
    return steps, config


def _preset(
    algo: str, env: str, spec: Callable[[], Spec], known: tuple[bool, bool] | None
) -> tuple[int, Any]:
    registered = _registered(env, algo)
    if registered is not None:
        return registered
    file = _file(algo)
    if file is None:
        return STEPS, agent(algo).Config.suited(spec())
    presets = importlib.import_module(file)
    if env in presets.PRESETS:
        return presets.PRESETS[env]
    steps, config = presets.OTHERS
    if hasattr(config, "model"):
        if known is None:
            suited = agent(algo).Config.suited(spec()).model
            known = not suited.learn_reward, not suited.learn_termination
        reward = getattr(config, "LEARNS_REWARD", False) or not known[0]
        learned = {"learn_reward": reward, "learn_termination": not known[1]}
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, **learned))
    return steps, config


def environments(algo: str, env: str) -> int:
    """How many environments the preset of an algorithm steps side by side."""
    file = _file(algo)
    if _registered(env, algo) is not None or file is None:
        return 1
    return getattr(importlib.import_module(file), "ENVS", {}).get(env, 1)


def _file(algo: str) -> str | None:
    """The module of an algorithm's presets; None if it has none."""
    file = f"experiments.presets.{algo.replace('-', '_')}"
    return None if ":" in algo or importlib.util.find_spec(file) is None else file


def mpc_preset(env: str) -> Any:
    """The tuned `MPCConfig` to drive a task by; None if there is none."""
    tuned = importlib.import_module("experiments.presets.mpc")
    presets = tuned.PRESETS | tuned.SUITE | tuned.ARMS
    return presets[env] if env in presets else _registered(env, "mpc")


def _registered(env: str, algo: str) -> Any:
    """The preset that `envs.register` was given; None if there is none."""
    own = ":" in env or "envs" in sys.modules or entry_points(group="mbrl.envs", name=env)
    if not own:  # nobody can have registered it, and importing `envs` takes a second
        return None
    import envs

    return envs.entry(env).presets.get(algo)
