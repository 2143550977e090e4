"""Comparisons of scores: bars by label or group, and scores against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from experiments.plots.style import (
    COLOURS,
    GREY,
    INK,
    check_not_empty,
    coloured,
    legend,
    note,
    panel,
    plain_log,
)
from mbrl import statistics
from mbrl.statistics import finite


def bars(
    values: Mapping[str, ArrayLike | Mapping[str, ArrayLike]],
    *,
    title: str,
    ylabel: str = "return",
) -> Figure:
    """Interquartile mean of each label's seeds as a bar, its 95 % interval, and a dot per seed.

    `values` maps labels to scores (seeds,), or groups to such mappings; labels are drawn side by
    side, in the same colours and order in every group.
    """
    check_not_empty(values, "values")
    grouped = [isinstance(v, Mapping) for v in values.values()]
    if any(grouped) != all(grouped):
        raise ValueError("values: want scores for every label, or a mapping for every group")
    figure, ax = panel(title)
    series: list[str] = []
    for name, group in values.items():
        if isinstance(group, Mapping):
            check_not_empty(group, name)
            series += [label for label in group if label not in series]
    width = 0.8 / max(1, len(series)) if series else 0.62
    for g, (name, group) in enumerate(values.items()):
        if isinstance(group, Mapping):
            for label, scores in group.items():
                s = series.index(label)
                at = g + (s - (len(series) - 1) / 2) * width
                _bar(ax, at, 0.9 * width, scores, COLOURS[s % len(COLOURS)], f"{name}, {label}")
        else:
            _bar(ax, g, width, group, COLOURS[g % len(COLOURS)], name)
    ax.axhline(0, color=GREY, lw=0.9)
    ax.set_xticks(range(len(values)), list(values))
    ax.tick_params(axis="x", labelsize=10.5, labelcolor=INK)
    ax.grid(visible=False, axis="x")
    ax.set_xlim(-0.6, len(values) - 0.4)
    ax.set_ylabel(ylabel)
    ax.margins(y=0.1)
    for s, label in enumerate(series):
        ax.bar(0, 0, color=COLOURS[s % len(COLOURS)], alpha=0.55, label=label)
    if series:
        # Above the bars, beside the note: a legend inside the axes could hide a number.
        ax.legend(
            loc="lower right",
            bbox_to_anchor=(1, 0.985),
            ncols=len(series),
            fontsize=9.5,
            frameon=False,
            labelcolor=INK,
        )
    note(ax, "interquartile mean, 95 % interval, a dot per seed")
    return figure


def frontier(
    points: Mapping[str, Sequence[tuple[float, float, float, float]]],
    *,
    title: str = "Return for the time spent on an action",
) -> Figure:
    """Return against milliseconds per action, on a logarithmic axis, joined in order of time.

    Each point is (milliseconds, return, low, high), with low <= return <= high.
    """
    figure, ax = panel(title)
    markers = cycle("osD^vP*")
    for label, rows, colour in coloured(points, "points"):
        row = finite(rows, label, 2)
        if row.shape[1] != 4 or (row[:, 0] <= 0).any():
            raise ValueError(f"{label}: want (milliseconds > 0, return, low, high) for each point")
        ms, value, low, high = row[np.argsort(row[:, 0])].T
        if ((low > value) | (value > high)).any():
            raise ValueError(f"{label}: want low <= return <= high for each point")
        ax.errorbar(
            ms,
            value,
            (value - low, high - value),
            color=colour,
            marker=next(markers),
            ms=7,
            lw=1.8,
            elinewidth=1.3,
            mec="white",
            mew=0.8,
            label=label,
        )
    ax.set_xscale("log")
    ax.margins(x=0.08)
    plain_log(ax.xaxis)
    ax.set(xlabel="milliseconds per action (log scale)", ylabel="return")
    legend(ax)
    note(ax, "better: up and to the left")
    return figure


def _bar(ax: Axes, at: float, width: float, scores: ArrayLike, colour: str, name: str) -> None:
    x = finite(scores, name, 1)
    middle, low, high = statistics.bootstrap_interval(x, rng=np.random.default_rng(0))
    ax.bar(at, middle, width, color=colour, alpha=0.55, lw=0)
    if len(x) > 1:
        ax.errorbar(at, middle, [[middle - low], [high - middle]], color=INK, lw=1.5, capsize=4)
    spots = at + width * (np.linspace(0.12, 0.4, len(x)) if len(x) > 1 else np.zeros(1))
    ax.scatter(spots, x, s=17, color=colour, edgecolors="white", lw=0.6, zorder=3)
    up = middle >= 0
    end = max(high, x.max()) if up else min(low, x.min())
    ax.annotate(
        f"{middle:.3g}".replace("-", "\N{MINUS SIGN}"),
        (at, end),
        xytext=(0, 5 if up else -5),
        textcoords="offset points",
        ha="center",
        va="bottom" if up else "top",
        fontsize=9.5,
        fontweight="bold",
        color=INK,
    )
