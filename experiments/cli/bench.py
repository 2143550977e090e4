"""`mbrl bench`: speed, as ratios measured in one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.cli import names
from experiments.cli.options import (
    Common,
    check_folder,
    check_least,
    console,
    emit,
    parse,
    set_threads,
    unset,
)


@dataclass(frozen=True)
class Measure(Common):
    """Measure speed as ratios within one run; run nothing else meanwhile."""

    names: tyro.conf.Positional[tuple[str, ...]] = ("all",)
    """Some of `mbrl list benchmarks`, or all."""
    repeats: int = 7
    """Timed repeats of each measurement."""
    out: Annotated[Path | None, unset("nothing is written")] = None
    """Folder for the numbers, as one JSON file for each benchmark."""


def run(args: list[str]) -> int:
    """Measure; returns the exit status."""
    parsed = parse(Measure, "mbrl bench", args)
    there = list(names.benchmarks())
    asked = there if "all" in parsed.names else list(parsed.names)
    for name in asked:
        names.check_name("benchmark", name, there)
    check_least(parsed, repeats=1, threads=1)
    if parsed.out is not None:
        check_folder(parsed.out)
    set_threads(parsed)
    from experiments.bench import bench

    settings = {"threads": parsed.threads, "repeats": parsed.repeats, "out": parsed.out}
    emit(parsed, {"results": bench(asked, console=console(), **settings)})
    return 0
