"""`mbrl study`: a whole experiment, its numbers, its figures and its page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.cli import names, options


@dataclass(frozen=True)
class Study(options.Common):
    """Run a study: all its runs, their numbers and its figure, in results/NAME."""

    name: Annotated[tyro.conf.Positional[str], options.REQUIRED] = ""
    """One of `mbrl list studies`."""
    seeds: Annotated[
        int | None, options.unset("that of the study, which mbrl study NAME --help shows")
    ] = None
    """How many seeds."""
    workers: Annotated[int | None, options.unset("all cores")] = None
    """Processes side by side."""
    out: Path = Path("results")
    """Where results go."""
    fast: bool = False
    """A small version that only shows that everything runs."""
    only: Annotated[tuple[str, ...] | None, options.unset("all runs")] = None
    """Of a study of many separate runs, such as dyna-returns or regression: those with one of these
    in their name, such as Pendulum-v1, 'dhmbpo Hopper' or 'swag yacht'; whole words, where there
    are runs that have them."""
    data: Annotated[Path | None, options.unset("a table made from a seed")] = None
    """Of regression: folder of tables, each a file NAME.npz."""
    executor: Literal["processes", "ray"] = "processes"
    """Where the work is done: processes (this machine) or ray (a cluster, extra `cluster`)."""
    address: Annotated[str | None, options.unset("auto with --executor ray")] = None
    """Address of the Ray cluster: HOST:PORT, or auto for the one that this machine is in."""


def run(args: list[str]) -> int:
    """Run a study; returns the exit status."""
    there = names.studies()
    fast = "--fast" in args
    named = next((arg for arg in args if arg in there), None)
    said = {} if named is None else {"seeds": f"{names.study_seeds(named, fast=fast)}"}
    parsed = options.parse(Study, "mbrl study", args, meanings=said)
    names.check_name("study", parsed.name, there)
    options.check_least(parsed, seeds=1, workers=1, threads=1)
    options.check_folder(parsed.out / parsed.name)
    options.set_threads(parsed)
    from experiments.studies import STUDIES
    from mbrl.training.cluster import executor_of

    settings = {
        "seeds": parsed.seeds,
        "workers": parsed.workers,
        "fast": parsed.fast,
        "only": parsed.only or (),
        "data": parsed.data,
        "say": options.say,
    }
    executor = executor_of(parsed.executor, parsed.address)
    folder = STUDIES[parsed.name](parsed.out, **settings, executor=executor)
    options.emit(parsed, json.loads((folder / "results.json").read_text()))
    return 0
