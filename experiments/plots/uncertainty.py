"""Predicted uncertainty against real errors: calibration, and both uncertainties over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from experiments.plots.style import (
    COLOURS,
    FAINT,
    GREY,
    HALO,
    INK,
    coloured,
    legend,
    legend_below,
    note,
    panel,
    panels,
    steps_ahead,
)
from mbrl.statistics import finite


def calibration(levels: ArrayLike, observed: Mapping[str, ArrayLike]) -> Figure:
    """Reliability diagram: share of targets inside the central interval of each level.

    `levels` (L,) increase within [0, 1]. Each of `observed` is (L,), or (L, D) as
    `mbrl.uncertainty.calibration_curve` returns it; then the mean over dimensions is drawn bold and
    each dimension faint. The legend gives the miscalibration area, between the (mean) curve and the
    diagonal, from 0 to 1/2.
    """
    p = finite(levels, "levels", 1)
    if (np.diff(p) <= 0).any() or p[0] < 0 or p[-1] > 1:
        raise ValueError("levels: want them rising in [0, 1]")
    figure, ax = panel("Calibration of predicted intervals", size=(5.4, 5.2))
    ax.plot([0, 1], [0, 1], color=GREY, lw=1.4, ls="--", label="calibrated", zorder=1)
    for label, frequency, colour in coloured(observed, "observed"):
        q = finite(frequency, label)
        if len(q) != len(p) or q.ndim > 2:
            raise ValueError(
                f"{label}: want one frequency for each of {len(p)} levels, got shape {q.shape}"
            )
        q = q.reshape(len(p), -1)
        # Every calibration curve starts at (0, 0) and ends at (1, 1).
        x = np.concatenate([[0.0], p, [1.0]])
        each = np.concatenate([np.zeros_like(q[:1]), q, np.ones_like(q[:1])])
        pooled = each.mean(1)
        if q.shape[1] > 1:
            ax.plot(x, each, color=colour, alpha=0.25, lw=0.8)
        ax.fill_between(x, x, pooled, color=colour, alpha=0.12, lw=0)
        area = np.trapezoid(np.abs(pooled - x), x)
        ax.plot(x, pooled, color=colour, lw=2.4, label=f"{label}: area {area:.3f}")
    for x, y, text in ((0.30, 0.72, "underconfident"), (0.72, 0.30, "overconfident")):
        ax.text(x, y, text, color=GREY, ha="center", style="italic", path_effects=HALO, zorder=4)
    ax.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="expected share of targets inside the interval",
        ylabel="observed share of targets inside",
    )
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axis.set_tick_params(pad=6)
    legend(ax, loc="lower right")
    return figure


def spread(
    time: ArrayLike,
    aleatoric: ArrayLike,
    epistemic: ArrayLike,
    error: ArrayLike,
    names: Sequence[str],
) -> Figure:
    """Both uncertainties and the real one-step error along an episode, a panel for each dimension.

    `time` (T,) is in seconds. `aleatoric` and `epistemic` (T, D) are the variances of
    `mbrl.uncertainty.Spread`, drawn as standard deviations; `error` (T, D) is observed minus
    predicted, drawn as its absolute value; `names` has D names with units. A panel's title gives
    the share of errors within two predicted standard deviations: 95 % if they are Gaussian and the
    model is calibrated. More than eight dimensions are hard to read.
    """
    t = finite(time, "time", 1)
    a, e = finite(aleatoric, "aleatoric", 2), finite(epistemic, "epistemic", 2)
    err = np.abs(finite(error, "error", 2))
    for name, value in (("aleatoric", a), ("epistemic", e), ("error", err)):
        if value.shape != (len(t), len(names)):
            raise ValueError(
                f"{name}: want shape {(len(t), len(names))} of (time, names), got {value.shape}"
            )
    if min(a.min(), e.min()) < 0:
        raise ValueError("aleatoric, epistemic: want variances, got a negative one")
    columns = 1 if len(names) <= 3 else 2
    rows = -(-len(names) // columns)
    size = (7.4 if columns == 1 else 10.0, 1.0 + 1.74 * rows)
    figure, axes = panels("Predicted uncertainty and real error", rows, columns, size)
    total = np.sqrt(a + e)
    for d, (ax, name) in enumerate(zip(axes, names, strict=False)):
        ax.fill_between(t, 0, 2 * total[:, d], color=FAINT, alpha=0.75, lw=0, label="2 std of both")
        ax.plot(t, np.sqrt(a[:, d]), color=COLOURS[0], lw=1.9, label="aleatoric std")
        ax.plot(t, np.sqrt(e[:, d]), color=COLOURS[1], lw=1.9, label="epistemic std")
        ax.plot(
            t, err[:, d], ".", color=INK, ms=4.6, alpha=0.75, mew=0, label="real one-step error"
        )
        inside = 100 * (err[:, d] <= 2 * total[:, d]).mean()
        ax.set_title(
            f"{name}: {inside:.0f} % of errors within 2 std", loc="left", fontsize=10, color=INK
        )
        ax.set_ylim(bottom=0)
        ax.margins(x=0.01)
        if d >= len(names) - columns:
            ax.set_xlabel("time (s)")
        else:
            ax.tick_params(labelbottom=False)
    for ax in axes[len(names) :]:
        ax.remove()
    legend_below(figure)
    return figure


def horizon_spread(
    aleatoric: ArrayLike,
    epistemic: ArrayLike,
    *,
    error: ArrayLike | None = None,
    ylabel: str = "predicted standard deviation",
) -> Figure:
    """Aleatoric and total standard deviation along a plan's horizon.

    `aleatoric` and `epistemic` (H,) are variances h + 1 steps ahead. The edge of the lower area is
    the aleatoric standard deviation, that of the upper area the square root of the summed
    variances. `error` (H,) is the observed error when the plan was carried out; its absolute value
    is drawn.
    """
    a, e = finite(aleatoric, "aleatoric", 1), finite(epistemic, "epistemic", 1)
    if a.shape != e.shape:
        raise ValueError(f"epistemic: want the shape {a.shape} of aleatoric, got {e.shape}")
    if min(a.min(), e.min()) < 0:
        raise ValueError("aleatoric, epistemic: want variances, got a negative one")
    figure, ax = panel("How uncertainty grows along a plan")
    h = np.arange(1, len(a) + 1)
    noise, total = np.sqrt(a), np.sqrt(a + e)
    ax.fill_between(h, 0, noise, color=COLOURS[0], alpha=0.35, lw=0, label="aleatoric (noise)")
    ax.fill_between(
        h, noise, total, color=COLOURS[1], alpha=0.35, lw=0, label="epistemic (ignorance), on top"
    )
    ax.plot(h, noise, color=COLOURS[0], lw=1.8)
    ax.plot(h, total, color=COLOURS[1], lw=1.8)
    if error is not None:
        met = np.abs(finite(error, "error", 1))
        if met.shape != a.shape:
            raise ValueError(f"error: want the shape {a.shape} of aleatoric, got {met.shape}")
        ax.plot(h, met, "o", color=INK, ms=4, mew=0, label="error met")
    ax.set_ylabel(ylabel)
    ax.set_ylim(bottom=0)
    steps_ahead(ax, "steps ahead")
    legend(ax, loc="upper left")
    share = e[-1] / (a[-1] + e[-1]) if a[-1] + e[-1] > 0 else 0.0
    note(ax, f"{share * 100:.0f} % of the last step's variance is epistemic")
    return figure
