"""Returns while learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import ArrayLike

from experiments.plots.lines import Curve, draw_curve
from experiments.plots.style import GREY, HALO, INK, coloured, legend_below, note, panel
from mbrl import statistics
from mbrl.statistics import finite

GRID_POINTS = 400  # of a curve; more could not be told apart in a picture


def learning_curve(
    curves: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]],
    *,
    references: Mapping[str, float | Sequence[tuple[float, float]]] | None = None,
    title: str = "Return while learning",
    ylabel: str = "return",
) -> Figure:
    """Return against environment steps: interquartile mean over seeds, 95 % band, each seed faint.

    `curves` maps labels to runs, each (env_steps (T,), returns (T,)) with increasing steps;
    `statistics.align` brings them to the same steps, and a single run has no band. A reference is a
    return, drawn as a dashed line, or a list of (env_steps, return) pairs, drawn as markers.

    Raises:
        ValueError: empty, NaN or mismatched input.
    """
    figure, ax = panel(title)
    for label, runs, colour in coloured(curves, "curves"):
        grid, _ = statistics.align(runs)
        if len(grid) > GRID_POINTS:
            grid = np.linspace(grid[0], grid[-1], GRID_POINTS)
        found = statistics.learning_curve(
            runs, rng=np.random.default_rng(0), resamples=1000, env_steps=grid
        )
        curve, seeds = Curve(grid, found.estimate), "1 seed"
        if len(runs) > 1:
            for steps, returns in runs:
                ax.plot(np.asarray(steps), np.asarray(returns), color=colour, alpha=0.28, lw=0.9)
            curve = curve._replace(low=found.low, high=found.high)
            seeds = f"{len(runs)} seeds"
        draw_curve(ax, curve, color=colour, label=f"{label} ({seeds})")
        if len(grid) == 1:  # a line of one point cannot be seen
            ax.plot(grid, found.estimate, "o", color=colour)
    markers = cycle("Ds^vP*")
    for name, reference in (references or {}).items():
        if isinstance(reference, (int, float)):
            _level(ax, float(reference), name)
        else:
            points = finite(reference, f"references[{name!r}]", 2)
            ax.plot(*points.T, next(markers), color=INK, ms=6.5, mfc="white", mew=1.4, label=name)
    ax.set(xlabel="environment steps", ylabel=ylabel)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    legend_below(figure, columns=3)
    if any(len(runs) > 1 for runs in curves.values()):
        note(ax, "interquartile mean over seeds, 95 % interval, each seed faint")
    return figure


def _level(ax: Axes, value: float, name: str) -> None:
    """Draw a dashed reference line with its name and value."""
    if not np.isfinite(value):
        raise ValueError(f"references[{name!r}]: want a finite return, got {value}")
    ax.axhline(value, color=GREY, lw=1.3, ls=(0, (5, 3)), zorder=1.5)
    ax.annotate(
        f"{name}: {value:g}",
        (0.01, value),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=9,
        color=GREY,
        path_effects=HALO,
        zorder=4,
    )
