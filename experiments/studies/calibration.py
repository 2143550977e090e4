"""Are predictions 1 to 10 steps ahead calibrated, and what does recalibration change?

Models are fitted to episodes of random actions, recalibrated on other ones and judged on a third
set. What is judged are the particles that a planner sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from experiments import plots
from experiments.plots.lines import Curve
from experiments.studies import lab as labs
from experiments.studies import learned
from experiments.studies.lab import Lab, Report
from experiments.studies.learned import Played
from mbrl.data import moments
from mbrl.dynamics import recalibrate
from mbrl.dynamics.fitting import FitDiverged
from mbrl.dynamics.recalibrated import Kind
from mbrl.dynamics.table import ModelConfig
from mbrl.imagination import Propagation, RecalibratedAhead, particles_ahead
from mbrl.training.executor import stop_if_asked
from mbrl.uncertainty import (
    calibration_error,
    conformal_factor,
    conformal_interval,
    coverage,
    crps,
    energy_score,
    negative_log_likelihood,
    pit,
    sharpness,
)

ENVIRONMENTS = {"cartpole-swingup": 12, "half-cheetah": 40}
"""Episodes that models are fitted to."""
PROPAGATIONS: tuple[Propagation, ...] = ("tsinf", "ts1", "moment", "distribution")
"""Those whose particles differ: expectation has one particle, so nothing to calibrate."""
RAW, ONE, AHEAD = "raw", "noise of one step", get_args(Kind)
KINDS = (RAW, ONE, *AHEAD)
"""As it is; `recalibrate`, isotonic, of a model whose step is mean + std · noise;
`recalibrate_ahead` of each kind."""
MEASURES = {
    "calibration": "calibration error",
    "nll": "NLL",
    "crps": "CRPS",
    "energy": "energy score",
    "sharpness": "sharpness",
    "coverage": "share inside 90 %",
    "conformal": "share inside conformal 90 %",
    "width": "half-width of conformal 90 %",
    "error": "error of the mean",
}
"""What is measured, a number for each step ahead."""
CONFORMAL = ("conformal", "width")
"""Those of raw particles alone."""
LEVELS = torch.linspace(0.05, 0.95, 19, dtype=torch.double)
INSIDE = 0.9
GOAL = 0.03
BINS = 10


class Budget(NamedTuple):
    """Sizes of the study."""

    train: Mapping[str, int]
    """Episodes that models are fitted to, by environment."""
    held: int
    """Episodes that recalibration is fitted to."""
    fresh: int
    """Episodes that all numbers are of."""
    every: int
    """Steps between the starts of predictions."""
    particles: int
    steps: int
    """H."""


FULL = Budget(ENVIRONMENTS, 100, 100, 15, 60, 10)
TINY = Budget({"cartpole-swingup": 2, "half-cheetah": 2}, 3, 3, 50, 4, 3)


def calibration(lab: Lab) -> Report:
    """Calibration and scores of every model and propagation by steps ahead, with recalibration."""
    budget = TINY if lab.fast else FULL
    found, failed = learned.compared(lab, ENVIRONMENTS, measure, budget, _pooled)
    numbers = {"settings": budget._asdict(), "failed": failed, "found": found}
    picture(found, lab.folder / "calibration.png")
    reliability(found, lab.folder / "reliability.png")
    return Report(numbers, page(found, budget, lab.seeds, failed), rows(found))


def measure(env: str, config: ModelConfig, budget: Budget, seed: int) -> dict[str, Any]:
    """Scores of one model by propagation and kind; `failed` says why there are none."""
    draw = torch.Generator().manual_seed(seed)
    train, held, fresh = (
        learned.play(env, count, seed=3 * seed + part)
        for part, count in enumerate((budget.train[env], budget.held, budget.fresh))
    )
    try:
        model = learned.fitted(config, train, generator=draw)
    except FitDiverged as error:
        return {"failed": str(error)}
    changed = {RAW: model}
    if model.noise_shape == train.obs.shape[-1:]:
        rows = held.transitions(), train.transitions()
        changed[ONE] = recalibrate(model, rows[0], "isotonic", trained_on=rows[1])
    scale = moments(train.obs.flatten(0, 1))[1].clamp_min(1e-6)
    held, fresh = (part.pieces(budget.steps, budget.every) for part in (held, fresh))
    real = [part.obs[:, 1:] for part in (held, fresh)]
    answer: dict[str, Any] = {}
    for propagation in PROPAGATIONS:

        def particles(each: Any, pieces: Played, propagation: Propagation = propagation) -> Tensor:
            stop_if_asked()
            return particles_ahead(
                each, pieces.obs[:, 0], pieces.action, particles=budget.particles,
                propagation=propagation, generator=draw,
            )  # fmt: skip

        before = particles(model, held)
        own = {kind: particles(each, fresh) for kind, each in changed.items()}
        raw = own[RAW]
        for kind in AHEAD:
            fitted = RecalibratedAhead.of_particles(model, before, real[0], kind)
            own[kind] = torch.stack(
                [fitted.postprocess(k + 1, raw[:, :, k]) for k in range(budget.steps)], 2
            )
        answer[propagation] = {
            kind: scores(part / scale, real[1] / scale, draw) for kind, part in own.items()
        }
        answer[propagation][RAW] |= conformal(
            before / scale, real[0] / scale, raw / scale, real[1] / scale
        )
    return answer


def scores(
    particles: Float[Tensor, "P N H D"], real: Float[Tensor, "N H D"], generator: torch.Generator
) -> dict[str, Any]:
    """`MEASURES` but the conformal ones for each step, means over dimensions.

    And the `curve` at `LEVELS` and the shares of `pit` values in `BINS` bins.
    """
    names = [name for name in MEASURES if name not in CONFORMAL]
    found: dict[str, Any] = {name: [] for name in (*names, "curve", "pit")}
    for k in range(real.shape[1]):
        cloud, target = particles[:, :, k].double(), real[:, k].double()
        still = torch.zeros_like(cloud)
        mean, std = _moments(cloud)
        levels = pit(cloud, still, target)
        curve = coverage(levels, LEVELS)
        some = slice(None, None, 8)  # all pairs of particles take long
        values = {
            "calibration": calibration_error(LEVELS, curve).mean(),
            "nll": negative_log_likelihood(
                mean.unsqueeze(-1), std.unsqueeze(-1), target.unsqueeze(-1)
            ).mean(),
            "crps": crps(cloud, still, target).mean(),
            "energy": energy_score(
                cloud[:, some], still[:, some], target[some], samples=1, generator=generator
            ).mean(),
            "sharpness": sharpness(cloud, still).square().mean().sqrt(),
            "coverage": coverage(levels, torch.tensor([INSIDE]).double()).mean(),
            "error": (mean[0] - target).square().mean().sqrt(),
        }
        for name, value in values.items():
            found[name].append(float(value))
        found["curve"].append(curve.mean(-1).tolist())
        counts = torch.histc(levels, BINS, 0, 1)
        found["pit"].append((counts / counts.sum()).tolist())
    return found


def conformal(
    held: Float[Tensor, "P M H D"],
    held_real: Float[Tensor, "M H D"],
    particles: Float[Tensor, "P N H D"],
    real: Float[Tensor, "N H D"],
) -> dict[str, list[float]]:
    """Share of `real` inside conformal intervals fitted to `held_real`, and their half-width.

    Intervals are of the particles' mean and std, with a factor for each step and dimension.
    """
    found: dict[str, list[float]] = {name: [] for name in CONFORMAL}
    for k in range(real.shape[1]):
        known = _moments(held[:, :, k].double())
        factor = conformal_factor(*known, held_real[:, k].double(), alpha=1 - INSIDE)
        low, high = conformal_interval(*_moments(particles[:, :, k].double()), factor)
        target = real[:, k].double()
        found["conformal"].append(float(((target >= low) & (target <= high)).double().mean()))
        found["width"].append(float((high - low).mean() / 2))
    return found


def _moments(cloud: Float[Tensor, "P N D"]) -> tuple[Tensor, Tensor]:
    """Mean and std of the particles, each (1, N, D)."""
    return cloud.mean(0, keepdim=True), cloud.std(0, keepdim=True).clamp_min(1e-9)


def _pooled(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By propagation and kind, the mean over seeds of each number, and all calibration errors."""
    pooled: dict[str, Any] = {}
    for propagation in each[0]:
        pooled[propagation] = {}
        for kind in each[0][propagation]:
            own = [one[propagation][kind] for one in each]
            pooled[propagation][kind] = {
                name: np.mean([one[name] for one in own], 0).tolist() for name in own[0]
            } | {"each": [one["calibration"] for one in own]}
    return pooled


def rows(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `table.csv`: a row for each model, propagation, kind and step."""
    return [
        {"environment": one["environment"], "model": one["model"], "propagation": propagation,
         "recalibration": kind, "steps": k + 1}
        | {name: own[name][k] if name in own else None for name in MEASURES}
        for one in found.values()
        for propagation in PROPAGATIONS
        for kind, own in one[propagation].items()
        for k in range(len(own["error"]))
    ]  # fmt: skip


def page(
    found: Mapping[str, Mapping[str, Any]], budget: Budget, seeds: int, failed: Sequence[str]
) -> str:
    """The study's page, in Markdown."""
    last = budget.steps
    parts = []
    for env in dict.fromkeys(one["environment"] for one in found.values()):
        here = [one for one in found.values() if one["environment"] == env]
        lines = [
            [
                one["model"],
                propagation,
                *(f"{one[propagation][RAW]['calibration'][k - 1]:.3f}" for k in (1, last)),
                *(_worst(one[propagation].get(kind)) for kind in KINDS),
                f"{min(one[propagation][RAW]['conformal']):.2f} to "
                f"{max(one[propagation][RAW]['conformal']):.2f}",
            ]
            for one in here
            for propagation in PROPAGATIONS
        ]
        head = ["model", "propagation", "raw, 1 step", f"raw, {last} steps",
                *(f"{kind}, worst step" for kind in KINDS), "inside conformal 90 %"]  # fmt: skip
        names = [name for name in MEASURES if name not in ("calibration", *CONFORMAL)]
        other = [
            [one["model"], kind, *(f"{one['tsinf'][kind][name][-1]:.3g}" for name in names)]
            for one in here
            for kind in (RAW, "isotonic")
        ]
        parts.append(f"""## {env}

Calibration error.

{labs.table(head, lines)}

Other scores {last} steps ahead, TS∞:

{labs.table(["model", "", *(MEASURES[name] for name in names)], other)}
""")
    counts = ", ".join(f"{budget.train[env]} ({env})" for env in budget.train)
    text = f"""# Calibration ahead

Particles 1 to {last} steps ahead against what happened, {budget.particles} of them from each start.
Actions are uniform and held for 1, 2, 5 or 10 steps, in turn by episode; episodes have
{learned.EPISODE} steps. Models are fitted to {counts} of them, recalibrated on {budget.held} others
and judged on {budget.fresh} more, with starts every {budget.every} steps. Means over {seeds}
seed{"s" if seeds > 1 else ""} and over dimensions, each in stds of its observation.

The calibration error is the mean over {len(LEVELS)} levels of |share of targets inside the central
interval - level|; "worst step" is the largest of the {last} steps. "{ONE}" is `recalibrate`, which
changes only the noise of a step, where that is Gaussian; the three kinds behind it are
`recalibrate_ahead`, which corrects the particles of each step ahead. Expectation propagates one
particle, which has no spread.

{chr(10).join(parts)}
NLL is of the Gaussian with the particles' mean and variance, mean over dimensions; the energy score
is over all dimensions together, for every eighth start. Conformal intervals are the particles' mean
± a multiple of their std that is fitted, for each step, on the episodes of the recalibration.

![Calibration error by steps ahead, raw and recalibrated](calibration.png)

![Calibration curves and PIT values](reliability.png)
"""
    return text + "".join(f"\n{line}\n" for line in failed)


def _worst(own: Mapping[str, Any] | None) -> str:
    return "-" if own is None else f"{max(own['calibration']):.3f}"


def picture(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Calibration errors by steps ahead: a row for each environment, raw and recalibrated."""
    panels: dict[str, dict[str, Curve]] = {}
    for env in dict.fromkeys(one["environment"] for one in found.values()):
        here = [one for one in found.values() if one["environment"] == env]
        for kind in (RAW, ONE, "isotonic"):
            said = "recalibrated ahead" if kind == "isotonic" else kind
            own = [one for one in here if kind in one["tsinf"]]
            if own:
                panels[f"{env}: {said}"] = {
                    one["model"]: _curve(one["tsinf"][kind]["each"]) for one in own
                }
    figure = plots.curves(
        panels, title="Calibration error of TS∞ particles", xlabel="steps ahead",
        ylabel="mean |observed - expected share|", columns=3,
        size=(13, 0.8 + 1.2 * len(panels)), styles={"0.03": ":"},
    )  # fmt: skip
    top = max(ax.get_ylim()[1] for ax in figure.axes[: len(panels)])
    for ax in figure.axes[: len(panels)]:
        ax.axhline(GOAL, color=plots.GREY, ls=":", lw=1.6)
        ax.set_ylim(0, top)
    plots.save(figure, path)


def _curve(each: Sequence[Sequence[float]]) -> Curve:
    values = np.array(each)
    steps = np.arange(1, values.shape[1] + 1)
    return Curve(steps, values.mean(0), values.min(0), values.max(0))


def reliability(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Calibration curves and PIT histograms of the first model, TS∞, in each environment."""
    first: dict[str, Mapping[str, Any]] = {}
    for one in found.values():
        first.setdefault(one["environment"], one)
    title = f"{', '.join(dict.fromkeys(one['model'] for one in first.values()))}, TS∞ particles"
    figure, axes = plots.panels(title, len(first), 2, (10.5, 0.8 + 4.2 * len(first)))
    levels = np.r_[0, LEVELS.numpy(), 1]
    edges = np.linspace(0, 1, BINS + 1)
    for place, (env, one) in enumerate(first.items()):
        curves, bars = axes[2 * place], axes[2 * place + 1]
        curves.plot([0, 1], [0, 1], color=plots.GREY, lw=1.2, ls="--")
        bars.axhline(1.0, color=plots.GREY, lw=1.2, ls="--")
        for colour, (kind, said) in zip(
            plots.COLOURS, ((RAW, RAW), ("isotonic", "recalibrated ahead")), strict=False
        ):
            own = one["tsinf"][kind]
            for k, style in ((0, "-"), (len(own["curve"]) - 1, ":")):
                label = f"{said}, {k + 1} step{'s' if k else ''} ahead"
                line = {"color": colour, "ls": style, "lw": 2.2, "label": label}
                curves.plot(levels, np.r_[0, own["curve"][k], 1], **line)
                density = BINS * np.array(own["pit"][k])
                bars.stairs(density, edges, **line)
        plots.note(curves, f"{env}: share of targets inside central intervals")
        plots.note(bars, f"{env}: density of PIT values")
        curves.set(xlabel="level", ylabel="observed share")
        bars.set(xlabel="PIT", ylim=(0, None))
    plots.legend_below(figure, columns=2)
    plots.save(figure, path)
