"""The five pictures of an audit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.plots.lines import Curve, curves
from experiments.plots.style import COLOURS, GREY, note, panel, panels, save
from experiments.plots.uncertainty import calibration, horizon_spread
from mbrl.audit import Ahead, Audit


def audit_figures(found: Audit, folder: Path) -> list[Path]:
    """Draw an audit into a folder; returns the files."""
    figures = {
        "calibration.png": _calibration(found),
        "spread.png": horizon_spread(
            found.own.aleatoric.numpy(),
            found.own.epistemic.numpy(),
            error=found.own.error.numpy(),
            ylabel="std of the prediction, in stds of the observations",
        ),
        "exploitation.png": _exploitation(found),
        "observations.png": _observations(found),
    }
    if found.before is not None and found.recalibrated is not None:
        before, after = (each.observed[0].numpy() for each in (found.before, found.recalibrated))
        figures["reliability.png"] = calibration(
            found.levels.numpy(), {"as it is": before, "recalibrated": after}
        )
    return [save(figure, folder / name) for name, figure in figures.items()]


def _calibration(found: Audit) -> Figure:
    lines = {"own episodes": found.own, "random actions": found.random}
    if found.recalibrated is not None:
        lines["own episodes, recalibrated"] = found.recalibrated
    return curves(
        {"calibration error: 0 is calibrated": {name: _line(own) for name, own in lines.items()}},
        title="Are predicted intervals right, step by step?",
        xlabel="steps ahead",
        ylabel="mean |observed - expected share|",
        size=(7.6, 5.0),
    )


def _line(own: Ahead) -> Curve:
    return Curve(np.arange(1, len(own.calibration) + 1), own.calibration.numpy())


def _exploitation(found: Audit) -> Figure:
    cases = {
        "actions of its plans": (found.own.predicted.numpy(), found.own.realised.numpy()),
        "random actions": (found.random.predicted.numpy(), found.random.realised.numpy()),
    }
    if found.promised[0]:
        scores, real = found.promised
        cases["scores of plans"] = np.array(scores), np.array(real)
    figure, axes = panels("Predicted and real returns", 1, len(cases), (4.8 * len(cases), 4.8))
    for ax, (name, (predicted, real)), colour in zip(axes, cases.items(), COLOURS, strict=False):
        ends = min(predicted.min(), real.min()), max(predicted.max(), real.max())
        ax.plot(ends, ends, color=GREY, lw=1.4, ls="--")
        ax.plot(real, predicted, "o", color=colour, ms=4, alpha=0.6, mew=0)
        ax.set(xlabel="real return of these steps", ylabel="return in the model")
        note(ax, f"{name}: {np.mean(predicted - real):+.3g} on average")
    return figure


def _observations(found: Audit) -> Figure:
    figure, ax = panel("Which observations drive the predictions?", size=(7.6, 4.6))
    at = np.arange(len(found.drives))
    ax.bar(at, found.drives.numpy(), color=COLOURS[0], width=0.7)
    ax.set(
        xlabel="observation",
        ylabel="change of the prediction if exchanged,\nin stds of the change",
        xticks=at if len(at) <= 30 else at[::5],
    )
    return figure
