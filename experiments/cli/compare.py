"""`mbrl compare`: a table and a figure over runs, in which a label groups seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from experiments.cli import options
from experiments.cli.names import Wrong
from mbrl.plain import shown


@dataclass(frozen=True)
class Compare(options.Common):
    """Compare runs of one environment, grouped by algorithm and settings, or by --label."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], options.REQUIRED] = ()
    """Run folders."""
    label: Annotated[
        tuple[str, ...], options.unset("the algorithm, and the settings that differ")
    ] = ()
    """One label for each run; runs with the same label are seeds of the same thing."""
    last: int = 1
    """Episodes at the end of a run whose mean return is its result."""
    out: Path = Path("results/compare.png")
    """The figure, a .png file."""


def run(args: list[str]) -> int:
    """Compare runs; returns the exit status."""
    parsed = options.parse(Compare, "mbrl compare", args)
    if not parsed.runs:
        raise Wrong("compare needs one or more run folders")
    if parsed.label and len(parsed.label) != len(parsed.runs):
        raise Wrong(f"--label needs one for each of {len(parsed.runs)} runs, got {parsed.label}")
    options.check_least(parsed, last=1, threads=1)
    options.check_runs(parsed, *parsed.runs)
    options.check_writable(parsed.out)
    if parsed.out.suffix.lower() != ".png":
        raise Wrong(
            f"--out must be a file that ends in .png, which it is written as; got {parsed.out}"
        )
    options.set_threads(parsed)
    from experiments import plots
    from experiments.plots.style import as_text
    from mbrl.evaluation import compare_runs
    from mbrl.training.folders import find_run

    paths = [find_run(name, parsed.root) for name in parsed.runs]
    env, curves, numbers = compare_runs(paths, labels=parsed.label, last=parsed.last)
    drawn = {as_text(label): each for label, each in curves.items()}
    plots.save(plots.learning_curve(drawn, title=f"Return on {as_text(env)}"), parsed.out)
    options.show(parsed, _table(numbers))
    options.say(f"figure {parsed.out}")
    options.emit(parsed, numbers)
    return 0


def _table(numbers: dict[str, dict[str, Any]]) -> Table:
    table = Table("runs", "seeds", "mean", "std", "IQM", "95 % interval", "better than first")
    for label, found in numbers.items():
        one, better = found["n"] == 1, found["better_than_first"]
        table.add_row(
            shown(label),
            str(found["n"]),
            f"{found['mean']:.1f}",
            "-" if one else f"{found['std']:.1f}",
            f"{found['iqm']:.1f}",
            "-" if one else f"{found['iqm_low']:.1f} to {found['iqm_high']:.1f}",
            "" if better is None else f"{better:.2f}",
        )
    return table
