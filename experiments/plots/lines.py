"""Labelled curves with bands, in panels, as most studies draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from experiments.plots.style import COLOURS, check_not_empty, legend_below, note, panels, plain_log
from mbrl.statistics import Array


class Curve(NamedTuple):
    """A line through X points, with or without a band."""

    x: ArrayLike  # (X,)
    middle: ArrayLike  # (X,)
    low: ArrayLike | None = None  # (X,)
    high: ArrayLike | None = None  # (X,)

    @classmethod
    def quartiles(cls, values: Array, start: int = 1) -> Curve:
        """Median and quartiles over rows of `values` (N, X), at `start`, `start` + 1, ..."""
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
        return cls(np.arange(start, start + len(middle)), middle, low, high)

    @classmethod
    def intervals(cls, x: ArrayLike, each: Sequence[Mapping[str, float]]) -> Curve:
        """Estimates (X,) with their intervals, each with the keys estimate, low and high."""
        middle, low, high = ([one[end] for one in each] for end in ("estimate", "low", "high"))
        return cls(x, middle, low, high)

    @classmethod
    def means(cls, x: ArrayLike, mean: ArrayLike, error: ArrayLike) -> Curve:
        """Means (X,) with normal 95 % intervals, from standard errors `error` (X,)."""
        middle, half = np.asarray(mean), 1.96 * np.asarray(error)
        return cls(x, middle, middle - half, middle + half)


def draw_curve(ax: Axes, curve: Curve, **line: Any) -> None:
    """Draw the curve, and its band in the same colour; `line` is for `Axes.plot`."""
    x, middle = np.asarray(curve.x), np.asarray(curve.middle)
    if curve.low is not None and curve.high is not None:
        low, high = np.asarray(curve.low), np.asarray(curve.high)
        ax.fill_between(x, low, high, color=line["color"], alpha=0.18, lw=0)
    line.setdefault("lw", 2.4)
    ax.plot(x, middle, **line)


def curves(
    each: Mapping[str, Mapping[str, Curve]],
    *,
    title: str,
    xlabel: str,
    ylabel: str = "",
    log: str = "",
    columns: int | None = None,
    size: tuple[float, float] | None = None,
    styles: Mapping[str, str] | None = None,
) -> Figure:
    """A panel for each key of `each`, with the key above it, and in it a curve for each label.

    A label has one colour and line style in all panels, and one legend below names them. `log`
    names the logarithmic axes, such as "xy". There are `columns` panels side by side, all in one
    row if None, in a figure of `size` (inches). `styles` adds line styles by name to the legend;
    the caller draws lines of those styles in `Figure.axes`, which are in the order of the keys.

    Raises:
        ValueError: nothing to draw.
    """
    check_not_empty(each, "each")
    columns = columns or len(each)
    rows = -(-len(each) // columns)
    figure, axes = panels(title, rows, columns, size or (4.0 * columns, 4.2 * rows))
    labels = list(dict.fromkeys(label for lines in each.values() for label in lines))
    looks = {
        label: {"color": COLOURS[i % len(COLOURS)], "ls": ("-", "--")[i // len(COLOURS) % 2]}
        for i, label in enumerate(labels)
    }
    for place, (ax, (name, lines)) in enumerate(zip(axes, each.items(), strict=False)):
        check_not_empty(lines, name)
        for label, curve in lines.items():
            draw_curve(ax, curve, label=label, **looks[label])
        for axis in log:
            ax.set(**{f"{axis}scale": "log"})
            plain_log(getattr(ax, f"{axis}axis"))
        note(ax, name)
        if place % columns == 0:
            ax.set_ylabel(ylabel)
        if place >= len(each) - columns:
            ax.set_xlabel(xlabel)
    for ax in axes[len(each) :]:
        ax.remove()
    legend_below(figure, styles=styles)
    return figure
