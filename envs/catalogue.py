"""The rows of environment listings, and the names of discrete actions.

Building every environment takes seconds, so a listing reads `catalogue.json` beside this file:
`python -m envs.catalogue` writes it, and a test compares it with the environments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from envs.gymnasium_tasks import DESCRIBED
from envs.registry import TASKS, describe, library_names
from envs.suite import SUITE
from envs.worlds import WORLDS

FILE = Path(__file__).with_suffix(".json")

_FOUR = ("up", "right", "down", "left")
ACTION_NAMES: Mapping[str, tuple[str, ...]] = {
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
"""Names of the actions of each environment with discrete actions, in the order of their indices."""

CLASSICS: Mapping[str, str] = {
    "CartPole-v1": "Keep a pole upright by pushing its cart.",
    "MountainCar-v0": "Rock a weak car up a hill, each step -1.",
    "Acrobot-v1": "Swing two rods up by a motor between them, each step -1.",
}
"""Summaries of gymnasium's environments with discrete actions that serve as their own models."""


class World(NamedTuple):
    """A listing's row of an environment with discrete actions."""

    name: str
    states: int | None
    """Number of states; None if they are continuous."""
    actions: tuple[str, ...]
    discount: float | None
    """None where the environment defines none."""
    summary: str


def worlds() -> list[World]:
    """Rows of the finite worlds, then of `CLASSICS`; builds each world to count its states."""
    found = []
    for name, build in WORLDS.items():
        world, summary = build(), (build.__doc__ or "").split("\n")[0]
        found.append(World(name, world.states, ACTION_NAMES[name], world.discount, summary))
    classics = [
        World(name, None, ACTION_NAMES[name], None, what) for name, what in CLASSICS.items()
    ]
    return found + classics


def simulators() -> tuple[str, ...]:
    """Names of the tasks whose simulator planners and tree search can use."""
    return (*TASKS, *DESCRIBED, *SUITE)


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Rows of `envs` (bounded continuous actions) and of `worlds` (discrete actions).

    Builds every environment, which takes seconds.
    """
    known = simulators()
    tasks = [describe(name)._asdict() | {"simulator": name in known} for name in library_names()]
    return {"envs": tasks, "worlds": [world._asdict() for world in worlds()]}


def text() -> str:
    """The text that `catalogue.json` should have, with one row on each line."""
    tables = []
    for name, rows in catalogue().items():
        lines = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in rows)
        tables.append(f"{json.dumps(name)}: [\n{lines}\n]")
    body = ",\n".join(tables)
    return f"{{\n{body}\n}}\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
