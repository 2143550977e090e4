"""Pictures of runs, models and planners, each a pure function from arrays to a PNG.

Drawn without pyplot's global state. Intervals over seeds are bootstrap intervals of the
interquartile mean, from a generator made afresh for each picture, so the same data give the
same picture. Each function writes its file whole or not at all, returns the path, and raises
ValueError, touching no file, for empty, NaN or mismatched input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Literal

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from experiments import statistics
from experiments.statistics import Array
from mbrl.training.checkpoint import written_whole

DPI = 150
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B4B8A")
"""Okabe and Ito's palette, told apart under every common colour blindness; yellow left out."""

INK, GREY, FAINT = "#1F1F1F", "#6E6E6E", "#E6E6E6"
GRID_POINTS = 400  # more than this many points of a curve cannot be told apart in a picture
HALO = [effects.withStroke(linewidth=3, foreground="white")]


def learning_curve(
    curves: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]],
    path: str | Path,
    *,
    references: Mapping[str, float | Sequence[tuple[float, float]]] | None = None,
    title: str = "Return while learning",
    ylabel: str = "return",
) -> Path:
    """Return against environment steps: interquartile mean over seeds, 95 % band, each seed faint.

    `curves` gives each label its runs, each (env_steps (T,), returns (T,)) with rising steps;
    runs are joined as `statistics.align` does, and one run has no band. A reference is a
    return, drawn as a dashed line, or published (env_steps, return) pairs, drawn as markers.
    """
    _some(curves, "curves")
    figure, ax = _figure(title)
    for (label, runs), colour in zip(curves.items(), cycle(COLOURS), strict=False):
        grid, _ = statistics.align(runs)
        if len(grid) > GRID_POINTS:
            grid = np.linspace(grid[0], grid[-1], GRID_POINTS)
        curve = statistics.learning_curve(
            runs, rng=np.random.default_rng(0), resamples=1000, env_steps=grid
        )
        if len(runs) > 1:
            for steps, returns in runs:
                ax.plot(np.asarray(steps), np.asarray(returns), color=colour, alpha=0.28, lw=0.9)
            ax.fill_between(grid, curve.low, curve.high, color=colour, alpha=0.18, lw=0)
        seeds = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
        ax.plot(grid, curve.estimate, color=colour, lw=2.4, label=f"{label} ({seeds})")
    markers = cycle("Ds^vP*")
    for name, reference in (references or {}).items():
        if isinstance(reference, (int, float)):
            _level(ax, float(reference), name)
        else:
            points = _array(reference, f"references[{name!r}]", 2)
            ax.plot(*points.T, next(markers), color=INK, ms=6.5, mfc="white", mew=1.4, label=name)
    ax.set(xlabel="environment steps", ylabel=ylabel)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    _legend(ax, loc="lower right")  # curves rise
    if any(len(runs) > 1 for runs in curves.values()):
        note(ax, "interquartile mean over seeds, 95 % interval, each seed faint")
    return save(figure, path)


def model_error(
    horizon_errors: Mapping[str, ArrayLike],
    path: str | Path,
    *,
    baseline: ArrayLike | None = None,
    title: str = "Open-loop prediction error by horizon",
    ylabel: str = "normalised error",
) -> Path:
    """Prediction error against horizon: median over start states and its quartiles.

    Each array is (starts, H), error h + 1 steps after a start, in units of the observations'
    standard deviation; `baseline` likewise (or its median, (H,)) for predicting no change.
    The error axis is logarithmic unless an error is 0.
    """
    _some(horizon_errors, "horizon_errors")
    figure, ax = _figure(title)
    smallest = np.inf
    for (label, errors), colour in zip(horizon_errors.items(), cycle(COLOURS), strict=False):
        low, middle, high = np.quantile(_array(errors, label, 2), (0.25, 0.5, 0.75), axis=0)
        h = np.arange(1, len(middle) + 1)
        ax.fill_between(h, low, high, color=colour, alpha=0.18, lw=0)
        ax.plot(h, middle, color=colour, lw=2.4, label=label)
        smallest = min(smallest, low.min())
    if baseline is not None:
        middle = np.median(np.atleast_2d(_array(baseline, "baseline")), axis=0)
        h = np.arange(1, len(middle) + 1)
        ax.plot(h, middle, color=GREY, lw=1.6, ls="--", label="predict no change")
        smallest = min(smallest, middle.min())
    if smallest > 0:
        ax.set_yscale("log")
        plain_log(ax.yaxis)
    else:
        ax.set_ylim(bottom=0)
    ax.set(xlabel="prediction horizon (steps)", ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.02)
    _legend(ax)
    note(ax, "median, and quartiles over start states")
    return save(figure, path)


def predicted_return(
    predicted: ArrayLike,
    realised: ArrayLike,
    path: str | Path,
    *,
    title: str = "Does the plan get what the model promises?",
    unit: str = "return",
) -> Path:
    """Realised against predicted return of at least two plans, each (N,), with the identity.

    The legend gives the correlation (none where either is constant) and the bias, the mean of
    predicted minus realised: positive for a model that flatters its plans.
    """
    p, r = _array(predicted, "predicted", 1), _array(realised, "realised", 1)
    if p.shape != r.shape or len(p) < 2:
        raise ValueError(
            f"realised: want as many returns as predicted and at least 2, got {len(p)} and {len(r)}"
        )
    figure, ax = _figure(title, size=(5.4, 5.2))
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
    ax.set(xlim=ends, ylim=ends, xlabel=f"predicted {unit}", ylabel=f"realised {unit}")
    ax.set_aspect("equal")
    _legend(ax)
    return save(figure, path)


def calibration(
    levels: ArrayLike,
    observed: Mapping[str, ArrayLike],
    path: str | Path,
    *,
    title: str = "Does the model know how sure it may be?",
) -> Path:
    """Reliability diagram: share of targets inside the central interval of each level.

    `levels` (L,) rising in [0, 1]; each of `observed` (L,), or (L, D) as
    `mbrl.uncertainty.calibration_curve` gives it, then drawn pooled over dimensions with each
    one faint. The legend gives the miscalibration area between pooled curve and diagonal, from
    0 to 1/2.
    """
    _some(observed, "observed")
    p = _array(levels, "levels", 1)
    if (np.diff(p) <= 0).any() or p[0] < 0 or p[-1] > 1:
        raise ValueError("levels: want them rising in [0, 1]")
    figure, ax = _figure(title, size=(5.4, 5.2))
    ax.plot([0, 1], [0, 1], color=GREY, lw=1.4, ls="--", label="calibrated", zorder=1)
    for (label, frequency), colour in zip(observed.items(), cycle(COLOURS), strict=False):
        q = _array(frequency, label)
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
    for x, y, text in ((0.30, 0.72, "too cautious"), (0.72, 0.30, "too sure")):
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
    _legend(ax, loc="lower right")
    return save(figure, path)


def spread(
    time: ArrayLike,
    aleatoric: ArrayLike,
    epistemic: ArrayLike,
    error: ArrayLike,
    path: str | Path,
    names: Sequence[str],
    *,
    title: str = "Does the model know what it does not know?",
    xlabel: str = "time (s)",
) -> Path:
    """The two uncertainties and the real one-step error along an episode, a panel a dimension.

    `time` (T,); `aleatoric` and `epistemic` (T, D) are the variances of
    `mbrl.uncertainty.Spread`, drawn as standard deviations; `error` (T, D) is observed minus
    predicted, drawn as its size; `names` says the D dimensions with their units. A panel's
    title gives the share of errors within two predicted standard deviations: 95 % if they
    are Gaussian and the model is calibrated. Hand in the dimensions worth seeing; more than
    eight are hard to read.
    """
    t = _array(time, "time", 1)
    a, e = _array(aleatoric, "aleatoric", 2), _array(epistemic, "epistemic", 2)
    err = np.abs(_array(error, "error", 2))
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
    figure, axes = panels(title, rows, columns, size)
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
            ax.set_xlabel(xlabel)
        else:
            ax.tick_params(labelbottom=False)
    for ax in axes[len(names) :]:
        ax.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return save(figure, path)


def horizon_spread(
    aleatoric: ArrayLike,
    epistemic: ArrayLike,
    path: str | Path,
    *,
    error: ArrayLike | None = None,
    title: str = "How uncertainty grows along a plan",
    ylabel: str = "predicted standard deviation",
) -> Path:
    """The two uncertainties along a plan's horizon, stacked as variances, read as a std.

    `aleatoric` and `epistemic` (H,) are variances h + 1 steps ahead. The lower area's height
    is the aleatoric standard deviation, the upper edge the total one, which is where they add
    up. `error` (H,) is the size of the error met when the plan was carried out.
    """
    a, e = _array(aleatoric, "aleatoric", 1), _array(epistemic, "epistemic", 1)
    if a.shape != e.shape:
        raise ValueError(f"epistemic: want the shape {a.shape} of aleatoric, got {e.shape}")
    if min(a.min(), e.min()) < 0:
        raise ValueError("aleatoric, epistemic: want variances, got a negative one")
    figure, ax = _figure(title)
    h = np.arange(1, len(a) + 1)
    noise, total = np.sqrt(a), np.sqrt(a + e)
    ax.fill_between(h, 0, noise, color=COLOURS[0], alpha=0.35, lw=0, label="aleatoric (noise)")
    ax.fill_between(
        h, noise, total, color=COLOURS[1], alpha=0.35, lw=0, label="epistemic (ignorance), on top"
    )
    ax.plot(h, noise, color=COLOURS[0], lw=1.8)
    ax.plot(h, total, color=COLOURS[1], lw=1.8)
    if error is not None:
        met = np.abs(_array(error, "error", 1))
        if met.shape != a.shape:
            raise ValueError(f"error: want the shape {a.shape} of aleatoric, got {met.shape}")
        ax.plot(h, met, "o", color=INK, ms=4, mew=0, label="error met")
    ax.set(xlabel="steps ahead", ylabel=ylabel)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.02)
    _legend(ax, loc="upper left")
    share = e[-1] / (a[-1] + e[-1]) if a[-1] + e[-1] > 0 else 0.0
    note(ax, f"{share * 100:.0f} % of the last step's variance is epistemic")
    return save(figure, path)


def bars(
    values: Mapping[str, ArrayLike | Mapping[str, ArrayLike]],
    path: str | Path,
    *,
    title: str,
    ylabel: str = "return",
) -> Path:
    """Interquartile mean of each label's seeds as a bar, with 95 % interval and a dot a seed.

    `values` gives each label its scores (seeds,), or each group a mapping of such labels,
    drawn side by side in the same colours and order in every group.
    """
    _some(values, "values")
    grouped = [isinstance(v, Mapping) for v in values.values()]
    if any(grouped) != all(grouped):
        raise ValueError("values: want scores for every label, or a mapping for every group")
    figure, ax = _figure(title)
    series: list[str] = []
    for name, group in values.items():
        if isinstance(group, Mapping):
            _some(group, name)
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
        # Beside the note, above the bars: inside, a legend would hide a number.
        ax.legend(
            loc="lower right",
            bbox_to_anchor=(1, 0.985),
            ncols=len(series),
            fontsize=9.5,
            frameon=False,
            labelcolor=INK,
        )
    note(ax, "interquartile mean, 95 % interval, a dot a seed")
    return save(figure, path)


def frontier(
    points: Mapping[str, Sequence[tuple[float, float, float, float]]],
    path: str | Path,
    *,
    title: str = "Return for the time spent on an action",
    ylabel: str = "return",
) -> Path:
    """Return against milliseconds an action, on a logarithmic axis, joined in order of time.

    Each point is (milliseconds, return, low, high), with low <= return <= high.
    """
    _some(points, "points")
    figure, ax = _figure(title)
    markers = cycle("osD^vP*")
    for (label, rows), colour in zip(points.items(), cycle(COLOURS), strict=False):
        row = _array(rows, label, 2)
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
    ax.set(xlabel="milliseconds an action (log scale)", ylabel=ylabel)
    _legend(ax)
    note(ax, "better: up and to the left")
    return save(figure, path)


def drives(
    rewards: Sequence[ArrayLike],
    plan_ms: Sequence[ArrayLike],
    path: str | Path,
    *,
    control_step: float,
    budget_ms: float | None = None,
    title: str = "Driven by MPC",
) -> Path:
    """Reward over time, an episode a line and their mean bold, over the time each plan took.

    `rewards` and `plan_ms` have one array (T,) an episode, `control_step` is in seconds. The
    histogram's lines are the control step and, where there is one, the budget.
    """
    if not rewards or len(rewards) != len(plan_ms):
        raise ValueError(f"want as many plan_ms as rewards, got {len(plan_ms)}, {len(rewards)}")
    figure, (top, bottom) = panels(title, 1, 2, (9.6, 4.0))
    series = [_array(values, "rewards", 1) for values in rewards]
    for values in series:
        top.plot(control_step * np.arange(1, len(values) + 1), values, color=GREY, alpha=0.4, lw=1)
    shortest = min(map(len, series))
    mean = np.mean([values[:shortest] for values in series], axis=0)
    seconds = control_step * np.arange(1, shortest + 1)
    top.plot(seconds, mean, color=COLOURS[0], lw=2.4)
    top.set(xlabel="seconds", ylabel="reward a step")
    if len(series) > 1:
        note(top, f"mean of {len(series)} episodes; each in grey")
    took = np.concatenate([_array(values, "plan_ms", 1) for values in plan_ms])
    bottom.hist(np.clip(took, None, np.quantile(took, 0.995)), bins=40, color=COLOURS[0])
    lines = {"control step": (1e3 * control_step, GREY)}
    if budget_ms is not None:
        lines["budget"] = (budget_ms, COLOURS[1])
    shown = {k: v for k, v in lines.items() if v[0] < 4 * took.max()}
    for name, (at, colour) in shown.items():
        bottom.axvline(at, color=colour, ls="--", lw=1.6, label=f"{name}, {at:g} ms")
    bottom.set(xlabel="milliseconds a plan", ylabel="plans")
    bottom.set_xlim(left=0)
    if shown:
        _legend(bottom)
    note(bottom, f"median {np.median(took):.3g} ms of {len(took)} plans")
    return save(figure, path)


def _figure(title: str, size: tuple[float, float] = (7.4, 4.4)) -> tuple[Figure, Axes]:
    figure, axes = panels(title, 1, 1, size)
    return figure, axes[0]


def panels(
    title: str, rows: int, columns: int, size: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    """A figure of `size` (inches) and its axes, row by row, in the house style.

    That is a light grid below the data, no box, and the title at the left.
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


def _bar(ax: Axes, at: float, width: float, scores: ArrayLike, colour: str, name: str) -> None:
    x = _array(scores, name, 1)
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


def _level(ax: Axes, value: float, name: str) -> None:
    """A dashed reference line with its name written on it."""
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


def _legend(ax: Axes, loc: Literal["best", "upper left", "lower right"] = "best") -> None:
    ax.legend(
        loc=loc, fontsize=9.5, frameon=True, framealpha=0.85, edgecolor="none", labelcolor=INK
    )


def note(ax: Axes, text: str) -> None:
    """A grey line under the title that says how to read the picture."""
    ax.set_title(text, loc="left", fontsize=9.5, color=GREY)


def plain_log(axis: Axis) -> None:
    """1, 2, 5, 10 rather than powers, on as many ticks as a decade leaves room for."""
    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high / low < 3000 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda x, _: ""))


def save(figure: Figure, path: str | Path) -> Path:
    """Write a PNG, whole or not at all; returns its path."""
    with written_whole(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
    return Path(path)


def _array(values: ArrayLike, name: str, ndim: int | None = None) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name}: want {ndim} dimension(s), got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name}: is empty; want at least one value")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: has NaN or infinite values; want finite ones")
    return array


def _some(mapping: Mapping[str, object], name: str) -> None:
    if not mapping:
        raise ValueError(f"{name}: is empty; want at least one label")
