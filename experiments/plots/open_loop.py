"""Open-loop predictions of a model beside what was observed, step by step."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from experiments.plots.style import COLOURS, GREY, INK, legend_below, note, panels, steps_ahead
from mbrl.statistics import finite

SHOWN = 12
"""Most frames in a row."""

DIMENSIONS = 6
"""Most dimensions of vectors."""


def open_loop(truth: ArrayLike, predicted: ArrayLike, *, context: int) -> Figure:
    """Observations and their prediction: frames in rows, or a panel for each dimension.

    Both arrays are (T, O) for vectors, of which the first six dimensions are drawn, or (T, H, W, C)
    from 0 to 1 for images, of which the last three channels, or the last one, are drawn. The first
    `context` predictions are of observations that the model has seen.
    """
    seen, guess = finite(truth, "truth"), finite(predicted, "predicted")
    if seen.shape != guess.shape or seen.ndim not in (2, 4):
        raise ValueError(
            f"predicted: want the shape of truth, (T, O) or (T, H, W, C), "
            f"got {seen.shape} and {guess.shape}"
        )
    if not 1 <= context < len(seen):
        raise ValueError(f"context: want 1 to {len(seen) - 1} steps, got {context}")
    return (_frames if seen.ndim == 4 else _lines)(seen, guess, context)


def _frames(seen: np.ndarray, guess: np.ndarray, context: int) -> Figure:
    last = len(seen) - 1
    ahead = np.unique(np.linspace(context, last, SHOWN - 2).round().astype(int))
    steps = [0, context - 1, *ahead] if context > 1 else [0, *ahead]
    channels = 3 if seen.shape[-1] >= 3 else 1
    rows = [
        ("observed", _clipped(seen[..., -channels:])),
        ("predicted", _clipped(guess[..., -channels:])),
        ("difference", np.abs(seen - guess)[..., -channels:].mean(-1)),
    ]
    height = 0.62 + 3 * 0.92
    figure, axes = panels("Open-loop prediction", 3, len(steps), (0.92 * len(steps) + 0.9, height))
    for row, (name, images) in enumerate(rows):
        for column, step in enumerate(steps):
            ax = axes[row * len(steps) + column]
            ax.grid(False)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if name == "difference":
                ax.imshow(images[step], cmap="Greys", vmin=0, vmax=max(images.max(), 1e-9))
            else:
                ax.imshow(images[step], cmap="gray", vmin=0, vmax=1)
            if row == 0:
                ahead_of = step - context + 1
                said = "seen" if ahead_of <= 0 else f"+{ahead_of}"
                ax.set_title(said, fontsize=9.5, color=GREY if ahead_of <= 0 else INK)
            if column == 0:
                ax.set_ylabel(name, fontsize=9.5)
    return figure


def _clipped(images: np.ndarray) -> np.ndarray:
    return images.clip(0, 1)


def _lines(seen: np.ndarray, guess: np.ndarray, context: int) -> Figure:
    count = min(seen.shape[1], DIMENSIONS)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure, axes = panels("Open-loop prediction", rows, columns, (3.1 * columns, 2.3 * rows + 0.9))
    steps = np.arange(len(seen)) - context + 1
    for i, ax in enumerate(axes):
        if i >= count:
            ax.set_visible(False)
            continue
        ax.plot(steps, seen[:, i], color=GREY, lw=1.6, label="observed")
        ax.plot(steps[:context], guess[:context, i], color=COLOURS[4], lw=1.6, label="filtered")
        ahead = slice(context - 1, None)
        ax.plot(steps[ahead], guess[ahead, i], color=COLOURS[0], lw=1.6, label="predicted")
        note(ax, f"observation {i}")
        steps_ahead(ax, "steps ahead" if i >= count - columns else "")
    legend_below(figure)
    return figure
