"""Learned codes of observations: what is decoded from them, and what they tell of the state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from experiments.plots.style import GREY, INK, panels
from mbrl.statistics import finite

INCH = 1.0
"""Side of a picture in a grid."""


def image_grid(
    title: str, images: np.ndarray, *, rows: Sequence[str], columns: Sequence[str] = ()
) -> Figure:
    """Pictures (R, C, H, W) or (R, C, H, W, 3) of numbers from 0 to 1, with a name for each row.

    Raises:
        ValueError: other names than rows or columns, or numbers out of range.
    """
    if len(rows) != len(images) or (columns and len(columns) != images.shape[1]):
        raise ValueError(
            f"images: want {len(rows)} rows and {len(columns) or 'any'} columns, "
            f"got the shape {images.shape}"
        )
    if not 0 <= images.min() <= images.max() <= 1:
        raise ValueError(f"images: want 0 to 1, got {images.min():g} to {images.max():g}")
    height, width = images.shape[:2]
    figure, axes = panels(title, height, width, (INCH * width + 1.2, INCH * height + 0.7))
    for k, ax in enumerate(axes):
        row, column = divmod(k, width)
        _bare(ax)
        ax.imshow(images[row, column], cmap="grey", vmin=0, vmax=1, interpolation="nearest")
        if not column:
            ax.set_ylabel(rows[row], rotation=0, ha="right", va="center", fontsize=9.5, color=INK)
        if not row and columns:
            ax.set_title(columns[column], fontsize=9, color=GREY)
    return figure


def code_map(
    points: ArrayLike, colours: ArrayLike, names: Sequence[str], *, share: float
) -> Figure:
    """Codes in a plane (T, 2), one panel for each column of `colours` (T, K), such as the state.

    Args:
        points: the first two principal components.
        colours: what the points are coloured by.
        names: of the K columns.
        share: of the variance that the plane has.

    Raises:
        ValueError: arrays that do not fit, or numbers that are not finite.
    """
    xy, shade = finite(points, "points", 2), finite(colours, "colours", 2)
    if xy.shape[1] != 2 or shade.shape != (len(xy), len(names)):
        raise ValueError(
            f"want points (T, 2) and colours (T, {len(names)}), got {xy.shape} and {shade.shape}"
        )
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = panels(
        f"Codes in their first two principal components, {share:.0%} of the variance",
        rows, columns, (3.2 * columns + 0.6, 2.9 * rows + 0.5),
    )  # fmt: skip
    for k, ax in enumerate(axes):
        if k >= len(names):
            ax.set_visible(False)
            continue
        drawn = ax.scatter(*xy.T, c=shade[:, k], cmap="viridis", s=7, lw=0)
        ax.set_title(names[k], loc="left", fontsize=9.5, color=GREY)
        bar = figure.colorbar(drawn, ax=ax)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize=8, labelcolor=GREY)
    return figure


def _bare(ax: Axes) -> None:
    ax.grid(visible=False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[["left", "bottom"]].set_visible(False)
