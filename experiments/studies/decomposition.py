"""Which model tells noise from ignorance, and does each part go where theory says?

Rows of y = sin(2x) + σ(x) ε with a noise that is known: the predicted aleatoric std should reach
σ(x), and the epistemic variance fall as 1 / N, as the variance of an estimate from N rows does.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from experiments import plots
from experiments.plots.lines import Curve
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl.dynamics import EnsembleConfig, NeuralConfig
from mbrl.dynamics.table import model_config
from mbrl.training.executor import Work
from mbrl.uncertainty import spread

COUNTS = (100, 300, 1000, 3000)
"""N, numbers of rows."""
MODEL: dict[str, Any] = {
    "members": 10,
    "hidden": (50, 50),
    "activation": "tanh",
    "batch": 100,
    "learning_rate": 3e-3,
    "holdout": 0.0,
    "epochs": 300,
}
"""Settings that all models share, as far as they have them."""
OWN: dict[str, dict[str, Any]] = {
    "ensemble": {"weight_decay": 0.0},
    "ensemble, averaged": {"weight_decay": 0.0, "average": 0.999},
    "bayes-by-backprop": {"prior_std": 3.0},
    "anchored": {"prior_std": 3.0},
    "anchored, bootstrap": {"prior_std": 3.0, "bootstrap": True},
    "anchored, averaged": {"prior_std": 3.0, "average": 0.999},
    "dropout": {"dropout": 0.05, "prior_std": 3.0},
    "swag": {"prior_std": 3.0},
    "gp": {"points": max(COUNTS)},
    "laplace": {"prior_std": 3.0},
    "sgmcmc": {"prior_std": 3.0},
    "langevin": {"prior_std": 3.0, "hidden": (16, 16), "activation": "tanh", "networks": 5,
                 "tuning_steps": 2000, "samples": 40},
}  # fmt: skip
"""What each has of its own. A name begins with the kind of model."""
TEST = 2000


def decomposition(lab: Lab) -> Report:
    """Aleatoric and epistemic uncertainty of every model, against the number of rows."""
    counts = (50, 100) if lab.fast else COUNTS
    asked = {
        (kind, count, seed): Work(
            split, (kind, count, seed, lab.fast), f"{kind}, {count} rows, seed {seed}"
        )
        for kind in lab.chosen(OWN)
        for count in counts
        for seed in range(lab.seeds)
    }
    answers = lab.answers(asked)
    kinds = list(dict.fromkeys(kind for kind, _, _ in asked))
    numbers: dict[str, Any] = {
        kind: {
            name: {
                str(count): labs.summary(
                    [answers[kind, count, seed][name] for seed in range(lab.seeds)]
                )
                for count in counts
            }
            for name in ("aleatoric", "epistemic", "error", "seconds")
        }
        for kind in kinds
    }
    names = {
        "aleatoric std / that of the noise": "aleatoric",
        "epistemic std / that of the noise": "epistemic",
        "error of the mean / std of the noise": "error",
    }
    panels = {
        title: {
            kind: Curve.intervals(counts, [numbers[kind][name][str(count)] for count in counts])
            for kind in kinds
        }
        for title, name in names.items()
    }
    figure = plots.curves(
        panels, title="Noise and ignorance", xlabel="rows", log="xy", size=(15, 5.2),
        styles={"theory": ":"},
    )  # fmt: skip
    at = np.array(counts, float)
    figure.axes[0].axhline(1.0, color=plots.INK, ls=":", lw=2)
    for ax, name in zip(figure.axes[1:3], ("epistemic", "error"), strict=True):
        first = np.median([numbers[kind][name][str(counts[0])]["estimate"] for kind in kinds])
        ax.plot(at, first * np.sqrt(at[0] / at), color=plots.INK, ls=":", lw=2)
    plots.save(figure, lab.folder / "decomposition.png")
    last = str(counts[-1])
    rows = []
    for kind in kinds:
        own = numbers[kind]
        own["slope"] = slope(counts, [own["epistemic"][str(n)]["estimate"] ** 2 for n in counts])
        cells = [labs.shown(own[name][last], 3) for name in ("aleatoric", "epistemic", "error")]
        rows.append([kind, *cells, f"{own['slope']:.2f}", labs.shown(own["seconds"][last], 1)])
    head = [
        "model", "aleatoric std", "epistemic std", "error of the mean", "slope of the epistemic "
        "variance", "seconds of a fit",
    ]  # fmt: skip
    text = f"""# Noise and ignorance

y = sin(2x) + σ(x) ε, x and ε standard normal, σ from 0.1 to 0.4. Numbers for {int(last):,} rows, as
multiples of the noise's std, root mean square over {TEST:,} new inputs; interquartile mean over
{lab.seeds} seeds [95 % bootstrap interval]. A model that knows the noise has an aleatoric std of 1;
one that knows its ignorance has an epistemic std as large as the error of its mean. The slope is
that of log(epistemic variance) over log(rows) between {counts[0]} and {int(last):,} rows; for an
estimate of fixed size it is -1.

{labs.table(head, rows)}

![Aleatoric and epistemic std, and the error of the mean, by number of rows](decomposition.png)
"""
    return Report(numbers, text)


def slope(counts: tuple[int, ...], values: list[float]) -> float:
    """Of the line of least squares through (log count, log value)."""
    return float(np.polyfit(np.log(counts), np.log(np.maximum(values, 1e-30)), 1)[0])


def noise_std(x: Tensor) -> Tensor:
    """σ(x)."""
    return 0.1 + 0.3 * torch.sigmoid(3 * x)


def data(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """x and y, each (T, 1)."""
    x = torch.randn(count, 1, generator=generator)
    noise = torch.randn(count, 1, generator=generator)
    return x, torch.sin(2 * x) + noise_std(x) * noise


def split(kind: str, count: int, seed: int, fast: bool) -> dict[str, float]:
    """Root mean squares over new inputs, over that of the noise, of a model of `count` rows.

    Returns:
        `aleatoric`, `epistemic`: std of each part. `error`: of the mean. `seconds`: of the fit.
    """
    draw = torch.Generator().manual_seed(1000 * seed + count)
    shared: dict[str, Any] = MODEL | ({"epochs": 3, "members": 5} if fast else {})
    config: Any = model_config(kind.split(",")[0], EnsembleConfig(**shared))
    settings = {**OWN[kind]}
    if isinstance(config, NeuralConfig):
        settings = {"epochs": shared["epochs"], **settings}
    if fast and kind == "langevin":
        settings |= {"tuning_steps": 20, "samples": 4}
    config = replace(config, **settings)
    model = config.regression(1, 1, generator=draw)
    began = time.perf_counter()
    model.fit(*data(count, draw), generator=draw)
    seconds = time.perf_counter() - began
    x = torch.randn(TEST, 1, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        mean, std = model.predict(x)
    parts, noise = spread(mean, std), noise_std(x).square().mean()
    error = (mean.mean(0) - torch.sin(2 * x)).square()
    values = (parts.aleatoric, parts.epistemic, error)
    found = [float((value.mean() / noise).sqrt()) for value in values]
    return dict(zip(("aleatoric", "epistemic", "error"), found, strict=True)) | {"seconds": seconds}
