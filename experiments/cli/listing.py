"""`mbrl list`: environments, algorithms, planners, studies, benchmarks and runs."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.markup import escape
from rich.table import Table

import envs
from experiments.cli.options import Common, emit, out, parse
from experiments.cli.worlds import simulators, worlds
from mbrl.agents import AGENTS
from mbrl.plain import shown


@dataclass(frozen=True)
class List(Common):
    """List environments, worlds, algorithms, planners, studies, benchmarks and runs."""

    what: tyro.conf.Positional[
        Literal["all", "envs", "worlds", "algorithms", "planners", "studies", "benchmarks", "runs"]
    ] = "all"
    """Which of these lists; envs shows tasks and worlds."""


def run(args: list[str]) -> int:
    """Print listings; returns the exit status."""
    parsed = parse(List, "mbrl list", args)
    found = {}
    for name, table, rows in listings(parsed.what, parsed.root):
        out.print(table)
        found[name] = rows
    emit(parsed, found)
    return 0


Listing = tuple[Table, list[Any]]
"""A table to print, and the same rows for JSON."""


def listings(what: str, root: Path) -> Iterator[tuple[str, Table, list[Any]]]:
    """Each listing's name, table and rows for JSON, made as they are asked for.

    `what` is a listing's name, or all; envs is tasks and worlds. `root` is where runs live.
    """
    there: dict[str, Callable[[], Listing]] = {
        "envs": _tasks,
        "worlds": _worlds,
        "algorithms": _algorithms,
        "planners": _planners,
        "studies": _studies,
        "benchmarks": _benchmarks,
        "runs": lambda: _runs(root),
    }
    several = {"all": list(there), "envs": ["envs", "worlds"]}
    for name in several.get(what, [what]):
        yield name, *there[name]()


def _algorithms() -> Listing:
    """By the docstrings of their configs, read without importing them, which would take torch."""
    said = {}
    for name, module in AGENTS.items():
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        body = ast.parse(Path(spec.origin).read_text()).body
        config = next(x for x in body if isinstance(x, ast.ClassDef) and x.name == "Config")
        said[name] = ast.get_docstring(config)
    return _first_lines("algorithm", said)


def _planners() -> Listing:
    from mbrl.agents import KINDS

    return _first_lines("planner", {name: kind.__doc__ for name, kind in KINDS.items()})


def _studies() -> Listing:
    from experiments.studies import STUDIES

    return _first_lines("study", {name: study.__doc__ for name, study in STUDIES.items()})


def _benchmarks() -> Listing:
    from experiments.bench import BENCHES

    return _first_lines("benchmark", {name: bench.__doc__ for name, bench in BENCHES.items()})


def _first_lines(title: str, docstrings: Mapping[str, str | None]) -> Listing:
    table = Table(title, "what it is")
    for name, text in docstrings.items():
        table.add_row(name, (text or "").strip().split("\n")[0])
    return table, list(docstrings)


def _tasks() -> Listing:
    table = Table("task", "obs", "act", "steps", "reward", "ends", "simulator", "what it is")
    rows = []
    for row in map(envs.describe, envs.names()):
        simulated = row.name in simulators()
        table.add_row(
            row.name,
            str(row.obs_dim),
            str(row.action_dim),
            str(row.steps),
            "known" if row.reward_known else "learned",
            "known" if row.terminated_known else "learned",
            "yes" if simulated else "no",
            row.summary,
        )
        rows.append(row._asdict() | {"simulator": simulated})
    return table, rows


def _worlds() -> Listing:
    """What `mbrl tree` takes beside tasks with a simulator."""
    table, rows = Table("world", "states", "actions", "what it is"), []
    for world in worlds():
        states = "continuous" if world.states is None else str(world.states)
        table.add_row(world.name, states, ", ".join(world.actions), world.summary)
        rows.append(world._asdict())
    return table, rows


def _runs(root: Path) -> Listing:
    from mbrl.training import Run, RunConfig, RunError
    from mbrl.training.runs import all_runs

    table, rows = Table("run", "steps", "of", "algorithm", "environment"), []
    for path in all_runs(root):
        with contextlib.suppress(RunError):
            run = Run.open(path)
            config = RunConfig.from_json(run.config)
            rows.append({"run": str(run.path), "env_steps": run.latest() or 0})
            cells = (run.path, run.latest() or 0, config.steps, config.algo, config.env)
            table.add_row(*(escape(shown(cell)) for cell in cells))
    return table, rows
