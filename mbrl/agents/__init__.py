"""Recipes that join models, planners and learners, one file each.

Each of `AGENTS` is a module with `Config`, a frozen dataclass whose `Config.suited(spec)` are the
settings for an environment of which nothing more is known, and `make(spec, config, *, generator,
device)`. A new agent is one such file and one line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mbrl.lazy import lazy

if TYPE_CHECKING:
    from mbrl.agents.controllers import KINDS, Controller, Controllers, Pipelined
    from mbrl.agents.mpc import MPCConfig, PlannerConfig
    from mbrl.agents.pets import PETS
    from mbrl.agents.random import RandomAgent

AGENTS: Mapping[str, str] = {
    "pets": "mbrl.agents.pets",
    "random": "mbrl.agents.random",
}
"""Module of each agent, by name."""


def agent(name: str) -> Any:
    """The module of an agent: `Config` and `make`.

    Raises:
        ValueError: no agent has that name.
    """
    if name not in AGENTS:
        raise ValueError(f"agent {name!r} is unknown; there are {', '.join(AGENTS)}")
    return importlib.import_module(AGENTS[name])


def name_of(config: object) -> str:
    """The name of a config's agent, or the module of its class if it is none of `AGENTS`."""
    module = type(config).__module__
    return next((name for name, path in AGENTS.items() if path == module), module)


__all__ = [
    "AGENTS",
    "KINDS",
    "PETS",
    "Controller",
    "Controllers",
    "MPCConfig",
    "Pipelined",
    "PlannerConfig",
    "RandomAgent",
    "agent",
    "name_of",
]


__getattr__ = lazy(  # a listing of names needs no torch
    __name__,
    {
        "mbrl.agents.controllers": ("KINDS", "Controller", "Controllers", "Pipelined"),
        "mbrl.agents.mpc": ("MPCConfig", "PlannerConfig"),
        "mbrl.agents.pets": ("PETS",),
        "mbrl.agents.random": ("RandomAgent",),
    },
)
