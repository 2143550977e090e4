"""`mbrl study`: a whole experiment, its numbers, its figures and its page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.cli.options import Common, check_least, check_name, emit, parse, say, set_threads
from experiments.studies import STUDIES
from mbrl.training.cluster import EXECUTORS, executor_of


@dataclass(frozen=True)
class Study(Common):
    """Run a study: all its runs, their numbers and its figure, in results/NAME."""

    name: tyro.conf.Positional[str] = ""
    """One of `mbrl list studies`."""
    seeds: int | None = None
    """How many seeds; the study's own number if unset."""
    workers: int | None = None
    """Processes side by side; all cores if unset."""
    out: Path = Path("results")
    """Where results go."""
    fast: bool = False
    """A small version that only shows that everything runs."""
    executor: str = "processes"
    """Where the work is done: processes (this machine) or ray (a cluster, extra `cluster`)."""
    address: str | None = None
    """Of the Ray cluster: HOST:PORT, or auto for the one that this machine is in; auto if unset."""


def run(args: list[str]) -> int:
    """Run a study; returns the exit status."""
    parsed = parse(Study, "mbrl study", args)
    set_threads(parsed)
    check_name("study", parsed.name, STUDIES)
    check_least(parsed, seeds=1, workers=1)
    check_name("executor", parsed.executor, EXECUTORS)
    settings = {"seeds": parsed.seeds, "workers": parsed.workers, "fast": parsed.fast, "say": say}
    executor = executor_of(parsed.executor, parsed.address)
    folder = STUDIES[parsed.name](parsed.out, **settings, executor=executor)
    emit(parsed, json.loads((folder / "results.json").read_text()))
    return 0
