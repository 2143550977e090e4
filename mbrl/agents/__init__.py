"""Recipes that join models, planners and learners, one file each.

Each of `AGENTS` is a module with `Config`, a frozen dataclass whose `Config.suited(spec)` are the
settings for an environment of which nothing more is known, and `make(spec, config, *, generator,
device)`. A new agent is one such file and one line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbrl.agents.controllers import Controllers
    from mbrl.agents.mpc import KINDS, Controller, MPCConfig, Pipelined, PlannerConfig
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


_HOMES = {
    "mbrl.agents.controllers": ("Controllers",),
    "mbrl.agents.mpc": ("KINDS", "Controller", "MPCConfig", "Pipelined", "PlannerConfig"),
    "mbrl.agents.pets": ("PETS",),
    "mbrl.agents.random": ("RandomAgent",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

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


def __getattr__(name: str) -> Any:  # loaded when first used: a listing of names needs no torch
    if name not in _HOME:
        raise AttributeError(f"module 'mbrl.agents' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
