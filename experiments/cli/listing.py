"""`mbrl list`: environments, algorithms, planners, models, studies, benchmarks and runs.

Environments, algorithms, planners and models of installed packages are listed by their entry
points: to know more of them their modules would have to be imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.table import Table

from experiments.cli import names, own
from experiments.cli.options import Common, emit, parse, show
from mbrl.parts import installed
from mbrl.plain import shown

What = Literal[
    "all", "envs", "worlds", "algorithms", "planners", "models", "studies", "benchmarks", "runs"
]


@dataclass(frozen=True)
class List(Common):
    """List environments, worlds, algorithms, planners, models, studies, benchmarks and runs."""

    what: tyro.conf.Positional[What] = "all"
    """Which of these lists; envs shows tasks and worlds."""


Listing = tuple[Table, list[Any]]
"""A table to print, and the same rows for JSON."""


def run(args: list[str]) -> int:
    """Print listings; returns the exit status."""
    parsed = parse(List, "mbrl list", args)
    listings: dict[str, Callable[[], Listing]] = {
        "envs": _tasks,
        "worlds": _worlds,
        "algorithms": lambda: _first_lines("algorithm", _all("agent", names.algorithms())),
        "planners": lambda: _first_lines("planner", _all("planner", names.planners())),
        "models": lambda: _first_lines("model", _all("model", names.models())),
        "studies": lambda: _first_lines("study", names.studies()),
        "benchmarks": lambda: _first_lines("benchmark", names.benchmarks()),
        "runs": lambda: _runs(parsed.root),
    }
    several = {"all": list(listings), "envs": ["envs", "worlds"]}
    found = {}
    for name in several.get(parsed.what, [parsed.what]):
        table, found[name] = listings[name]()
        if not parsed.json:  # which is the same rows
            show(parsed, table)
    emit(parsed, found)
    return 0


def _first_lines(title: str, said: Mapping[str, str]) -> Listing:
    table = Table(title, "what it is")
    for name, text in said.items():
        table.add_row(name, text)
    return table, list(said)


def _all(kind: str, ours: Mapping[str, str]) -> dict[str, str]:
    """Names and what they are, with those of installed packages; a name of ours stays ours."""
    theirs = {n: f"{part}, of an installed package" for n, part in installed(kind).items()}
    return {**ours, **{n: text for n, text in theirs.items() if n not in ours}}


def _tasks() -> Listing:
    table = Table("task", "obs", "act", "steps", "reward", "ends", "simulator", "what it is")
    rows = names.catalogue()["envs"]
    for row in rows:
        table.add_row(
            row["name"],
            str(row["obs_dim"]),
            str(row["action_dim"]),
            str(row["steps"]),
            "known" if row["reward_known"] else "learned",
            "known" if row["terminated_known"] else "learned",
            "yes" if row["simulator"] else "no",
            row["summary"],
        )
    known = [row["name"] for each in names.catalogue().values() for row in each]
    unknown = dict.fromkeys(rows[0])
    theirs = [
        {**unknown, "name": name, "summary": text}
        for name, text in _all("env", dict.fromkeys(known, "")).items()
        if name not in known
    ]
    for row in theirs:
        table.add_row(row["name"], *[""] * 6, row["summary"])
    table.caption = (
        f"NAME{names.PIXELS} is any of these with a MuJoCo model as seen by its camera; -84 (its "
        "size), -stack4, -grey and -distract may follow"
    )
    return table, [*rows, *theirs]


def _worlds() -> Listing:
    """What `mbrl tree` takes beside tasks with a simulator."""
    table, rows = Table("world", "states", "actions", "what it is"), names.catalogue()["worlds"]
    for row in rows:
        states = "continuous" if row["states"] is None else str(row["states"])
        table.add_row(row["name"], states, ", ".join(row["actions"]), row["summary"])
    return table, rows


LONGEST = 1_000_000
"""Characters of a config that is read."""


def _runs(root: Path) -> Listing:
    """Runs under `root`, in the order of their names; `Run` would import torch to read them."""
    table, rows = Table("run", "steps", "of", "algorithm", "environment"), []
    for path in sorted(file.parent for file in root.rglob("config.json")):
        try:
            config = json.loads((path / "config.json").read_text()[:LONGEST])
            steps, algo, env = (config[name] for name in ("steps", "algo", "env"))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # not a run's
        ours = isinstance(algo, str) and (algo in names.algorithms() or own.is_own("agent", algo))
        if path.name.startswith(".") or not ours:
            continue
        saved = [int(p.stem) for p in (path / "checkpoints").glob("*") if p.stem.isdigit()]
        rows.append({"run": str(path), "env_steps": max(saved, default=0)})
        cells = (path, rows[-1]["env_steps"], steps, algo, env)
        table.add_row(*(shown(str(cell)) for cell in cells))
    return table, rows
