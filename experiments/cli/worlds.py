"""Environments whose true model can be searched and planned through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import envs
from envs.gymnasium_tasks import DESCRIBED

_FOUR = ("up", "right", "down", "left")
NAMES: Mapping[str, tuple[str, ...]] = {
    "chain": ("on", "back"),
    "cliff-walk": _FOUR,
    "frozen-lake": ("left", "down", "right", "up"),
    "four-rooms": _FOUR,
    "dyna-maze": _FOUR,
    "blocking-maze": _FOUR,
    "shortcut-maze": _FOUR,
    "deep-sea": ("left", "right"),
    "windy-grid": _FOUR,
    "open-grid": _FOUR,
    "wet-chicken-grid": ("drift", "hold", "back", "right", "left"),
    "CartPole-v1": ("left", "right"),
    "MountainCar-v0": ("left", "coast", "right"),
    "Acrobot-v1": ("torque -1", "none", "torque +1"),
}
"""Of the actions of environments whose actions are indices."""

CLASSICS: Mapping[str, str] = {
    "CartPole-v1": "Keep a pole upright by pushing its cart.",
    "MountainCar-v0": "Rock a weak car up a hill, each step -1.",
    "Acrobot-v1": "Swing two rods up by a motor between them, each step -1.",
}
"""Of gymnasium's, those with index actions that are their own model, and what they are."""


class World(NamedTuple):
    """What a listing says of an environment whose actions are indices."""

    name: str
    states: int | None
    """None where they are continuous."""
    actions: tuple[str, ...]
    summary: str


def worlds() -> list[World]:
    """The finite worlds, which are built for it, then the classics."""
    found = []
    for name, build in envs.WORLDS.items():
        summary = (build.__doc__ or "").split("\n")[0]
        found.append(World(name, build().states, NAMES[name], summary))
    return found + [World(name, None, NAMES[name], what) for name, what in CLASSICS.items()]


def simulators() -> tuple[str, ...]:
    """Names of tasks whose simulator can be searched and planned through."""
    return (*envs.TASKS, *DESCRIBED)


def searchable() -> tuple[str, ...]:
    """Names of environments with a true model to search."""
    return (*envs.WORLDS, *CLASSICS, *simulators())
