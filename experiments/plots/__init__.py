"""Pictures of runs, models and planners: functions from arrays to a matplotlib Figure.

The caller writes the figure with `save`. Intervals over seeds are bootstrap intervals of the
interquartile mean, from a generator that is seeded anew for each picture, so the same data give the
same picture. All raise ValueError for empty, NaN or mismatched input.
"""

from experiments.plots.codes import code_map, image_grid
from experiments.plots.drive import drives
from experiments.plots.lines import Curve, curves, draw_curve
from experiments.plots.model import model_error, predicted_return
from experiments.plots.open_loop import open_loop
from experiments.plots.returns import learning_curve
from experiments.plots.scores import bars, frontier
from experiments.plots.style import (
    COLOURS,
    DPI,
    GREY,
    INK,
    legend_below,
    note,
    panels,
    plain_log,
    save,
)
from experiments.plots.uncertainty import calibration, horizon_spread, spread

__all__ = [
    "COLOURS",
    "DPI",
    "GREY",
    "INK",
    "Curve",
    "bars",
    "calibration",
    "code_map",
    "curves",
    "draw_curve",
    "drives",
    "frontier",
    "horizon_spread",
    "image_grid",
    "learning_curve",
    "legend_below",
    "model_error",
    "note",
    "open_loop",
    "panels",
    "plain_log",
    "predicted_return",
    "save",
    "spread",
]
