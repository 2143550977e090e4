"""Errors of a model: prediction errors by horizon, and predicted against realised returns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from experiments.plots.lines import Curve, draw_curve
from experiments.plots.style import (
    COLOURS,
    GREY,
    coloured,
    legend,
    note,
    panel,
    plain_log,
    steps_ahead,
)
from mbrl.statistics import finite


def model_error(
    horizon_errors: Mapping[str, ArrayLike],
    *,
    baseline: ArrayLike | None = None,
) -> Figure:
    """Prediction error against horizon: median over start states and its quartiles.

    Each array is (starts, H): errors h + 1 steps after a start, in units of the observations'
    standard deviation. `baseline` has those of predicting no change, (starts, H) or medians (H,).
    The error axis is logarithmic unless an error is 0.
    """
    figure, ax = panel("Open-loop prediction error by horizon")
    smallest = np.inf
    for label, errors, colour in coloured(horizon_errors, "horizon_errors"):
        each = finite(errors, label, 2)
        draw_curve(ax, Curve.quartiles(each), color=colour, label=label)
        smallest = min(smallest, np.quantile(each, 0.25, axis=0).min())
    if baseline is not None:
        middle = np.median(np.atleast_2d(finite(baseline, "baseline")), axis=0)
        h = np.arange(1, len(middle) + 1)
        ax.plot(h, middle, color=GREY, lw=1.6, ls="--", label="predict no change")
        smallest = min(smallest, middle.min())
    if smallest > 0:
        ax.set_yscale("log")
        plain_log(ax.yaxis)
    else:
        ax.set_ylim(bottom=0)
    ax.set_ylabel("normalised error")
    steps_ahead(ax, "prediction horizon (steps)")
    legend(ax)
    note(ax, "median, and quartiles over start states")
    return figure


def predicted_return(predicted: ArrayLike, realised: ArrayLike) -> Figure:
    """Realised against predicted returns, each (N,), of at least two plans, with the identity line.

    The legend gives the correlation ("none" if either is constant) and the bias, the mean of
    predicted minus realised: positive if the model overestimates its plans.
    """
    p, r = finite(predicted, "predicted", 1), finite(realised, "realised", 1)
    if p.shape != r.shape or len(p) < 2:
        raise ValueError(
            f"realised: want as many returns as predicted and at least 2, got {len(p)} and {len(r)}"
        )
    figure, ax = panel("Predicted and realised returns of plans", size=(5.4, 5.2))
    both = np.concatenate([p, r])
    margin = 0.06 * np.ptp(both) or 1.0
    ends = both.min() - margin, both.max() + margin
    ax.plot(ends, ends, color=GREY, lw=1.4, ls="--", label="predicted = realised", zorder=1)
    correlation = f"{np.corrcoef(p, r)[0, 1]:.2f}" if p.std() > 0 and r.std() > 0 else "none"
    ax.scatter(
        p,
        r,
        s=np.clip(3000 / len(p), 8, 34),
        color=COLOURS[0],
        alpha=0.6,
        lw=0,
        zorder=3,
        label=f"{len(p)} plans: correlation {correlation}, bias {(p - r).mean():+.3g}",
    )
    ax.set(xlim=ends, ylim=ends, xlabel="predicted return", ylabel="realised return")
    ax.set_aspect("equal")
    legend(ax)
    return figure
