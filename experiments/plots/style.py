"""The look of all pictures (colours, axes, notes, legends), and how they are written.

They are drawn without pyplot's global state.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Literal, TypeVar, cast

import matplotlib.patheffects as effects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from PIL import Image

from mbrl.plain import shown
from mbrl.training.checkpoint import written_whole

T = TypeVar("T")
DPI = 150
LINE = 60
"""Most characters in a line of a title or a legend."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B4B8A")
"""Okabe and Ito's palette, distinct for the colour-blind; without its yellow."""

INK, GREY, FAINT = "#1F1F1F", "#6E6E6E", "#E6E6E6"
HALO = [effects.withStroke(linewidth=3, foreground="white")]


def panels(
    title: str, rows: int, columns: int, size: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    """A figure of `size` (inches) and its axes, row by row.

    The axes have a light grid behind the data and no box; the title is at the left.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.07, hspace=0.04)
    figure = Figure(figsize=size, dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.011, ha="left", fontsize=13, fontweight="bold", color=INK)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.grid(color=FAINT, lw=0.9)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color("#BDBDBD")
        ax.tick_params(which="both", length=0, labelsize=9.5, labelcolor=GREY)
        ax.xaxis.label.set(color=INK, fontsize=10.5)
        ax.yaxis.label.set(color=INK, fontsize=10.5)
    return figure, axes


def panel(title: str, size: tuple[float, float] = (7.4, 4.4)) -> tuple[Figure, Axes]:
    """A figure of `size` (inches) with one pair of axes."""
    figure, axes = panels(title, 1, 1, size)
    return figure, axes[0]


def note(ax: Axes, text: str) -> None:
    """A grey line above the axes that says how to read them."""
    ax.set_title(text, loc="left", fontsize=9.5, color=GREY)


def legend(ax: Axes, loc: Literal["best", "upper left", "lower right"] = "best") -> None:
    """A legend inside the axes."""
    ax.legend(
        loc=loc, fontsize=9.5, frameon=True, framealpha=0.85, edgecolor="none", labelcolor=INK
    )


def legend_below(
    figure: Figure,
    lines: Mapping[str, Artist] | None = None,
    *,
    styles: Mapping[str, str] | None = None,
    columns: int = 6,
) -> None:
    """One legend below all panels, in as many columns as there is room for.

    Args:
        figure: the figure.
        lines: what is drawn, by label; that of the first panel if None.
        styles: further labels, of grey lines.
        columns: the most columns.
    """
    ax = figure.axes[0]
    if lines is None:
        handles, names = ax.get_legend_handles_labels()
        lines = dict(zip(names, handles, strict=True))
    grey = {name: ax.plot([], color=GREY, ls=style)[0] for name, style in (styles or {}).items()}
    every = {**lines, **grey}
    renderer = cast(FigureCanvasAgg, figure.canvas).get_renderer()
    for count in range(min(columns, len(every)), 0, -1):
        made = figure.legend(
            [*every.values()], [*every], loc="outside lower center", ncols=count, frameon=False
        )
        if count == 1 or made.get_window_extent(renderer).width <= figure.bbox.width:
            return
        made.remove()


def plain_log(axis: Axis) -> None:
    """Ticks at 1, 2, 5, 10, ... as plain numbers; only powers of ten over three decades or more.

    Over less than a factor of five, where few of these lie, they are evenly spaced numbers.
    """
    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high / low < 3000 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs) if high / low >= 5 else MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda x, _: ""))


def as_text(name: str) -> str:
    """A name read from a file, for a title or a legend: without control characters and formulas.

    A long one is broken into lines, so that it leaves room for the axes.
    """
    return fill(shown(name), LINE, break_on_hyphens=False).replace("$", r"\$")


def save(figure: Figure | Sequence[Figure], path: str | Path) -> Path:
    """Write a PNG file, whole or not at all; returns its path.

    Several figures, which must have the same height, are put side by side.
    """
    path = Path(path)
    if isinstance(figure, Figure):
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="png", dpi=DPI)
        return path
    images = [_image(part) for part in figure]
    whole = Image.new("RGB", (sum(image.width for image in images), images[0].height), "white")
    left = 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width
    with written_whole(path) as temporary:
        whole.save(temporary, format="PNG")
    return path


def _image(figure: Figure) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return Image.open(file).convert("RGB")


def coloured(each: Mapping[str, T], name: str) -> Iterator[tuple[str, T, str]]:
    """Each label, its value and its colour; raises ValueError with `name` for an empty mapping."""
    check_not_empty(each, name)
    for (label, value), colour in zip(each.items(), cycle(COLOURS), strict=False):
        yield label, value, colour


def steps_ahead(ax: Axes, label: str) -> None:
    """Label an x axis that counts whole steps."""
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.02)


def check_not_empty(mapping: Mapping[str, object], name: str) -> None:
    """Raise ValueError with `name` for a mapping without entries."""
    if not mapping:
        raise ValueError(f"{name}: is empty; want at least one label")
