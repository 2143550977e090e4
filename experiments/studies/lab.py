"""The lab of every study here: it trains the presets in the environments of `envs`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import envs
from experiments.presets import preset
from mbrl.agents import PETS
from mbrl.spaces import spec_of
from mbrl.training import RunConfig
from mbrl.training import study as library
from mbrl.training.run_config import MakeEnv, changed
from mbrl.training.runs import Loaded
from mbrl.training.study import (
    EVALUATION,
    Report,
    Study,
    interval,
    shown,
    shown_mean,
    summary,
    table,
)
from mbrl.types import Spec

__all__ = [
    "EVALUATION",
    "Lab",
    "Report",
    "Study",
    "final_returns",
    "interval",
    "preset_of",
    "shown",
    "shown_mean",
    "study",
    "summary",
    "table",
    "trained",
]


@dataclasses.dataclass
class Lab(library.Lab):
    """Where a study works, in the environments of `envs`."""

    make_env: MakeEnv = envs.make

    def pets(self, env: str, steps: int | None = None, **changes: Any) -> RunConfig:
        """The PETS run of an environment's preset, with some settings of its config changed.

        A fast study trains for two episodes, the first a random one, with a tiny net and search.
        """
        standard, agent = preset_of("pets", env)
        agent = changed(agent, **changes)
        steps = steps or standard
        if self.fast:
            steps = 2 * (_spec(env).episode_steps or 150)
            search = {"population": 8, "iterations": 1, "elites": 2}
            agent = changed(
                agent,
                random_steps=min(agent.random_steps, steps),
                model=dataclasses.replace(agent.model, hidden=(16,), epochs=5),
                planner=dataclasses.replace(agent.mpc.planner, **search),
            )
        return RunConfig("pets", env, 0, steps, "cpu", agent)


study = partial(library.study, lab=Lab)
"""`mbrl.training.study.study` with this `Lab`."""


def preset_of(algo: str, env: str, *, repeated: bool = False) -> tuple[int, Any]:
    """Environment steps and settings of an algorithm's preset for an environment."""
    return preset(algo, env, lambda: _spec(env), repeated=repeated)


def _spec(env: str) -> Spec:
    world = envs.make(env)
    spec = spec_of(world)
    world.close()
    return spec


def trained(path: Path, **changes: Any) -> tuple[Loaded, PETS]:
    """A run, and its model in an agent with some settings of its config changed."""
    return library.trained(path, make_env=envs.make, **changes)


def final_returns(path: Path, episodes: int, changes: Mapping[str, Any]) -> list[float]:
    """Returns of a trained run's agent, with settings changed, over evaluation episodes."""
    return library.final_returns(path, episodes, changes, envs.make)
