"""`mbrl compare`: a table and a figure over runs, in which a label groups seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.markup import escape
from rich.table import Table

from experiments import plots
from experiments.cli.options import (
    Common,
    Wrong,
    check_least,
    check_writable,
    emit,
    out,
    parse,
    say,
)
from experiments.plots.style import as_text
from mbrl.plain import shown
from mbrl.statistics import probability_of_improvement, summarise
from mbrl.training import RunConfig
from mbrl.training.checkpoint import Run
from mbrl.training.runs import find_run, learning
from mbrl.training.runs import labels as run_labels


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
    check_least(parsed, last=1)
    check_writable(parsed.out)
    paths = [find_run(name, parsed.root) for name in parsed.runs]
    table, numbers = compare_runs(
        paths, labels=parsed.label or None, last=parsed.last, out=parsed.out
    )
    out.print(table)
    say(f"figure {parsed.out}")
    emit(parsed, numbers)
    return 0


def compare_runs(
    paths: Sequence[Path], *, labels: Sequence[str] | None, last: int, out: Path
) -> tuple[Table, dict[str, Any]]:
    """A table and a learning-curve figure over runs; those with the same label are seeds.

    Runs are labelled by algorithm, and by the settings in which runs of it differ.

    Raises:
        RunError: not a run, or no finished episode.
        ValueError: runs of different environments.
    """
    configs = [RunConfig.of(Run.open(path)) for path in paths]
    if len({config.env for config in configs}) > 1:
        found = ", ".join(sorted({config.env for config in configs}))
        raise ValueError(f"runs of different environments do not compare: {found}")
    labels = labels or run_labels(configs)
    curves: dict[str, list[Any]] = {}
    for path, label in zip(paths, labels, strict=True):
        curves.setdefault(label, []).append(learning(path))
    results = {
        label: [float(np.mean(returns[-last:])) for _, returns in runs]
        for label, runs in curves.items()
    }
    drawn = {as_text(label): runs for label, runs in curves.items()}
    title = f"Return on {as_text(configs[0].env)}"
    plots.save(plots.learning_curve(drawn, title=title), out)
    table = Table("runs", "seeds", "mean", "std", "IQM", "95 % interval", "better than first")
    numbers: dict[str, Any] = {}
    baseline = next(iter(results.values()))
    for label, values in results.items():
        rng = np.random.default_rng(0)
        numbers[label] = found = {"returns": values} | summarise(values, rng=rng)
        better = probability_of_improvement(values, baseline, rng=rng)
        one = len(values) == 1
        interval = "-" if one else f"{found['iqm_low']:.1f} to {found['iqm_high']:.1f}"
        chance = "" if values is baseline else f"{better.estimate:.2f}"
        table.add_row(
            escape(shown(label)),
            str(len(values)),
            f"{found['mean']:.1f}",
            "-" if one else f"{found['std']:.1f}",
            f"{found['iqm']:.1f}",
            interval,
            chance,
        )
    return table, numbers
