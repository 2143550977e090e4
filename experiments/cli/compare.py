"""`mbrl compare`: a table and a figure over runs, in which a label groups seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from experiments.cli.options import (
    Common,
    Wrong,
    check_least,
    check_runs,
    emit,
    parse,
    say,
    set_threads,
    show,
)


@dataclass(frozen=True)
class Compare(Common):
    """Compare runs of one environment, grouped by algorithm and settings, or by --label."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """Run folders."""
    label: tuple[str, ...] = ()
    """One label for each run; runs with the same label are seeds of the same thing."""
    last: int = 1
    """Episodes at the end of a run whose mean return is its result."""
    out: Path = Path("results/compare.png")
    """The figure."""


def run(args: list[str]) -> int:
    """Compare runs; returns the exit status."""
    parsed = parse(Compare, "mbrl compare", args)
    if not parsed.runs:
        raise Wrong("compare needs one or more run folders")
    if parsed.label and len(parsed.label) != len(parsed.runs):
        raise Wrong(f"--label needs one for each of {len(parsed.runs)} runs, got {parsed.label}")
    check_least(parsed, last=1, threads=1)
    check_runs(parsed, *parsed.runs)
    set_threads(parsed)
    from experiments import plots
    from mbrl.evaluation import compare_runs
    from mbrl.training.runs import find_run

    paths = [find_run(name, parsed.root) for name in parsed.runs]
    env, curves, numbers = compare_runs(paths, labels=parsed.label, last=parsed.last)
    plots.save(plots.learning_curve(curves, title=f"Return on {env}"), parsed.out)
    show(parsed, _table(numbers))
    say(f"figure {parsed.out}")
    emit(parsed, numbers)
    return 0


def _table(numbers: dict[str, dict[str, Any]]) -> Table:
    table = Table("runs", "seeds", "mean", "std", "IQM", "95 % interval", "better than first")
    for label, found in numbers.items():
        one, better = found["n"] == 1, found["better_than_first"]
        table.add_row(
            label,
            str(found["n"]),
            f"{found['mean']:.1f}",
            "-" if one else f"{found['std']:.1f}",
            f"{found['iqm']:.1f}",
            "-" if one else f"{found['iqm_low']:.1f} to {found['iqm_high']:.1f}",
            "" if better is None else f"{better:.2f}",
        )
    return table
