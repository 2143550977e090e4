"""`mbrl plot`: draw runs: returns, and for an agent with a model or codes what these are worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.cli import options


@dataclass(frozen=True)
class Plot(options.Common):
    """Draw runs: returns, and for a model its errors, calibration and spreads, for codes what they
    tell."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ("latest",)
    """Run folders, or latest."""
    episodes: int = 3
    """Fresh episodes played to measure the model or the codes on."""
    seed: int = 2000
    """Seed of these episodes."""
    device: Annotated[str | None, options.unset("that of each run")] = None
    """Device of the model."""


def run(args: list[str]) -> int:
    """Draw runs; returns the exit status."""
    parsed = options.parse(Plot, "mbrl plot", args)
    options.check_least(parsed, episodes=1, seed=0, threads=1)
    options.check_runs(parsed, *parsed.runs)
    options.set_threads(parsed)
    from experiments.plots.runs import plot_runs
    from mbrl.training.folders import find_run

    paths = [find_run(name, parsed.root) for name in parsed.runs]
    for path in paths:
        options.check_writable(path / "plots" / "numbers.json")
    numbers = plot_runs(
        paths,
        episodes=parsed.episodes,
        seed=parsed.seed,
        device=parsed.device,
        tell=options.say,
    )
    options.emit(parsed, numbers)
    return 0
