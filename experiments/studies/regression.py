"""Regression: how well the learned models predict held-out rows of tables, and know their errors.

The protocol of Hernández-Lobato and Adams 2015, "Probabilistic backpropagation for scalable
learning of Bayesian neural networks": inputs and target are scaled to mean 0 and std 1 on the
training rows of a split, and errors on its test rows are in the target's own units. Every kind of
model has one set of settings for all tables, but for `OWN`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Generator, Tensor

from experiments import plots
from experiments.plots.style import as_text
from experiments.studies import lab as labs
from experiments.studies import tables
from experiments.studies.lab import Lab, Report
from experiments.studies.tables import Table
from mbrl.data import Normaliser
from mbrl.dynamics import bayesian_configs as bayesian
from mbrl.dynamics.configs import EnsembleConfig, NormedEnsembleConfig
from mbrl.dynamics.fitting import FitDiverged
from mbrl.dynamics.regression import Regression
from mbrl.dynamics.table import ModelConfig
from mbrl.training.executor import Work, stop_if_asked
from mbrl.types import Gaussian
from mbrl.uncertainty import (
    calibration_curve,
    calibration_error,
    crps,
    negative_log_likelihood,
    spread,
)

SHARED: Mapping[str, Any] = {
    "hidden": (50, 50), "activation": "silu", "batch": 100, "learning_rate": 5e-3, "epochs": 300,
    "patience": 30, "improvement": 0.0, "warm": False,
}  # fmt: skip
"""What models share if nothing else is said."""

SAMPLED: Mapping[str, Any] = {
    **SHARED, "learning_rate": 1e-2, "epochs": 400, "patience": 50, "members": 2,
}  # fmt: skip
"""Of models that draw new weights for every update: noisier gradients take more passes."""

SETTINGS: Mapping[str, ModelConfig] = {
    "ensemble": EnsembleConfig(**SHARED, bootstrap=False),
    "normed-ensemble": NormedEnsembleConfig(
        **{**SHARED, "patience": 50}, members=5, homoscedastic=False, batches_per_epoch=None
    ),
    "anchored": bayesian.AnchoredConfig(**SHARED, prior_std=2.0),
    "bayes-by-backprop": bayesian.BayesByBackpropConfig(
        **SAMPLED, prior_std=2.0, first_std=0.02, kl_weight=0.1
    ),
    "dropout": bayesian.DropoutConfig(**SAMPLED, prior_std=3.0, dropout=0.01),
    "gp": bayesian.GPConfig(warm=False, members=50, points=2000, iterations=100),
    "langevin": bayesian.LangevinConfig(
        **{**SHARED, "hidden": (16, 16)}, prior_std=2.0, networks=8, members=200, samples=25,
        thin=25, tuning_steps=2000,
    ),
    "laplace": bayesian.LaplaceConfig(**SHARED, prior_std=3.0, networks=5, members=50),
    "sgmcmc": bayesian.SgmcmcConfig(
        **SHARED, prior_std=3.0, networks=4, members=40, cycles=2, cycle_steps=1000,
        cycle_samples=5, step_size=3e-5,
    ),
    "swag": bayesian.SwagConfig(
        **SHARED, prior_std=3.0, networks=5, members=50, swag_epochs=20, swag_learning_rate=1e-5
    ),
}  # fmt: skip
"""One set of settings for all tables, by model. The prior is wider than a config's own: with 1 and
this activation, functions drawn from the prior are too flat for the tables."""

OWN: Mapping[str, ModelConfig] = {
    "langevin airfoil": replace(
        cast(bayesian.LangevinConfig, SETTINGS["langevin"]),
        hidden=(16, 16, 16, 16), learning_rate=1e-3, epochs=1000, patience=20, networks=10,
        tuning_steps=30_000, members=1000, samples=100, thin=100,
    ),
}  # fmt: skip
"""Longer chains of larger networks, close to those of the published number, by run."""

DRAWS = {"bayes-by-backprop": 25, "dropout": 25}
"""How often the members are drawn to predict, of models that draw new ones for every update of the
fit; of others the members of the config predict."""

PUBLISHED = {
    "airfoil": -0.91, "boston": 2.35, "concrete": 2.94, "energy": 1.04, "kin8nm": -1.32,
    "naval": -5.73, "power": 2.79, "protein": 2.63, "wine": 0.89, "yacht": 0.90,
}  # fmt: skip
"""The best published negative log-likelihood on tables of the literature, by name; airfoil by
Sommer et al. 2025 (one Gaussian), with a target of std 1."""

MEASURES: Mapping[str, str] = {
    "rmse": "RMSE",
    "nll": "NLL",
    "nll_gaussian": "NLL, one Gaussian",
    "crps": "CRPS",
    "calibration": "calibration error",
    "seconds": "seconds",
}
"""What `measure` returns, and its column."""

SPLITS = 20
"""Of tables that are not from files."""

LEVELS = np.linspace(0.05, 0.95, 19)
STYLES = {"best published": (0, (5, 3)), "truth": "-"}
BLOCK = 1000
"""Rows that are predicted at a time."""


def regression(lab: Lab) -> Report:
    """Errors, likelihoods and calibration of every model on held-out rows of tables."""
    found = _tables(lab)
    all_settings = {**SETTINGS, **OWN}
    settings = {name: fast(own) if lab.fast else own for name, own in all_settings.items()}
    draws = {name: 2 if lab.fast else count for name, count in DRAWS.items()}
    cells = {f"{model} {table}": (model, table) for table in found for model in SETTINGS}
    cells = {name: cells[name] for name in lab.chosen(cells)}
    wanted = list(dict.fromkeys(table for _, table in cells.values()))
    read = {name: found[name]() for name in wanted}
    splits = {name: min(lab.seeds, len(table.tests)) for name, table in read.items()}
    answers = lab.answers(
        {
            (name, split): Work(
                measure,
                (settings.get(name, settings[model]), draws.get(model, 1), read[table], split),
                f"{name}, split {split}",
            )
            for name, (model, table) in cells.items()
            for split in range(splits[table])
        }
    )
    results: dict[str, dict[str, Any]] = {}
    for name, (model, table) in cells.items():
        own = [answers[name, split] for split in range(splits[table])]
        failed = {split: one["failed"] for split, one in enumerate(own) if "failed" in one}
        good = [one for one in own if "failed" not in one]
        averages = {key: average([one[key] for one in good]) for key in MEASURES} if good else {}
        results[name] = {
            "model": model, "table": table, "splits": len(good), "failed": failed,
            "measures": averages, "each": own,
        }  # fmt: skip
    truths = {
        name: average([true_nll(table, k) for k in range(splits[name])])
        for name, table in read.items()
        if table.truth is not None
    }
    used = {model for model, _ in cells.values()} | cells.keys()
    numbers = {
        "results": results,
        "truth": truths,
        "published": {name: PUBLISHED[name] for name in wanted if name in PUBLISHED},
        "settings": {name: vars(config) for name, config in settings.items() if name in used},
        "draws": draws,
        "tables": {
            name: {"rows": len(table.target), "inputs": table.inputs.shape[1],
                   "splits": splits[name], "data": repr(table)}
            for name, table in read.items()
        },
    }  # fmt: skip
    picture(results, numbers["published"], truths, lab.folder / "regression.png")
    return Report(numbers, page(results, numbers), _rows(results))


def measure(config: ModelConfig, draws: int, table: Table, split: int) -> dict[str, Any]:
    """Fit a model to a split's training rows and evaluate it on the others.

    Args:
        config: of the model.
        draws: how often its members are drawn to predict; all of them are equally likely.
        table: the data.
        split: number of the split, which is also the seed.

    Returns:
        `MEASURES` on the test rows: the root mean square error of the mixture's mean; means of the
        negative log-likelihood of the mixture and of the Gaussian with its mean and variance, in
        nats, and of the CRPS; the calibration error over `LEVELS`; and the seconds of the fit. All
        are in the target's own units. If the fit diverged, only `failed`: why.
    """
    generator = Generator().manual_seed(split)
    train, test = table.training(split), table.tests[split]
    inputs, target = torch.from_numpy(table.inputs), torch.from_numpy(table.target).unsqueeze(1)
    scale_x, scale_y = Normaliser(inputs.shape[1]).double(), Normaliser(1).double()
    scale_x.fit(inputs[train])
    scale_y.fit(target[train])
    x, y = scale_x.scale(inputs).float(), scale_y.scale(target).float()
    model = config.regression(x.shape[1], 1, generator=generator)
    began = time.perf_counter()
    try:
        model.fit(x[train], y[train], generator=generator)
    except FitDiverged as error:
        return {"failed": str(error)}
    seconds = time.perf_counter() - began
    mean, std = predicted(model, x[test], draws, generator=generator)
    if not (mean.isfinite().all() and std.isfinite().all()):
        return {"failed": "predictions are not finite"}
    own = scale_y.unit * mean.double() + scale_y.mean, scale_y.unit * std.double()
    return {**scores(*own, target[test]), "seconds": seconds}


@torch.no_grad()
def predicted(
    model: Regression, x: Float[Tensor, "B I"], draws: int, *, generator: Generator
) -> Gaussian:
    """Mean and std of all members of several draws, (draws · E, B, D)."""
    parts = []
    for _ in range(draws):
        stop_if_asked()
        model.resample(generator=generator)
        blocks = [model.predict(block) for block in x.split(BLOCK)]
        parts.append(Gaussian(*(torch.cat(part, 1) for part in zip(*blocks, strict=True))))
    return Gaussian(*(torch.cat(part) for part in zip(*parts, strict=True)))


def scores(
    mean: Float[Tensor, "E B 1"], std: Float[Tensor, "E B 1"], target: Float[Tensor, "B 1"]
) -> dict[str, float]:
    """`MEASURES` of a mixture, but for the seconds."""
    middle, total = mean.mean(0), spread(mean, std).total.sqrt()
    levels = torch.from_numpy(LEVELS)
    curve = calibration_curve(mean, std, target, levels)
    found = {
        "rmse": (middle - target).square().mean().sqrt(),
        "nll": negative_log_likelihood(mean, std, target).mean(),
        "nll_gaussian": negative_log_likelihood(middle[None], total[None], target).mean(),
        "crps": crps(mean, std, target).mean(),
        "calibration": calibration_error(levels, curve)[0],
    }
    return {name: float(value) for name, value in found.items()}


def true_nll(table: Table, split: int) -> float:
    """Mean negative log-likelihood of the test rows under the distribution they are drawn from."""
    assert table.truth is not None
    test = table.tests[split]
    parts = (torch.from_numpy(part[test]) for part in (*table.truth, table.target))
    mean, std, target = (part.unsqueeze(1) for part in parts)
    return float(negative_log_likelihood(mean[None], std[None], target).mean())


def average(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over splits and its standard error, which is None for a single split."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "error": None if error is None else float(error)}


def fast(config: ModelConfig) -> ModelConfig:
    """The settings with a tiny net, and few passes, steps and samples."""
    small = {
        "hidden": (8,), "epochs": 3, "members": 2, "networks": 1, "swag_epochs": 3, "rank": 2,
        "cycles": 1, "cycle_steps": 20, "cycle_samples": 2, "tuning_steps": 20, "samples": 2,
        "points": 50, "iterations": 3,
    }  # fmt: skip
    names = {field.name for field in fields(config)}
    return replace(config, **{name: value for name, value in small.items() if name in names})


def _tables(lab: Lab) -> Mapping[str, Callable[[], Table]]:
    """What reads each table, by name: of a folder, or one from a seed and those of packages."""
    if lab.data is not None:
        return {name: partial(tables.read, path) for name, path in tables.files(lab.data).items()}
    made = {"synthetic": partial(tables.synthetic, 100 if lab.fast else 1000, SPLITS)}
    return made if lab.fast else made | tables.shipped(SPLITS)


def page(results: Mapping[str, Mapping[str, Any]], numbers: Mapping[str, Any]) -> str:
    """The study's page, in Markdown."""
    found = {(one["model"], one["table"]): one["measures"] for one in results.values()}
    models, names = (list(dict.fromkeys(key[k] for key in found)) for k in range(2))
    likelihoods = [
        [model, *(_shown(found.get((model, name), {}).get("nll"), ".2f") for name in names)]
        for model in models
    ]
    for label, each in (("best published", numbers["published"]), ("truth", numbers["truth"])):
        if each:
            shown = {k: v if isinstance(v, Mapping) else {"mean": v, "error": None}
                     for k, v in each.items()}  # fmt: skip
            likelihoods.append([label, *(_shown(shown.get(name), ".2f") for name in names)])
    rows = [
        [
            one["table"],
            one["model"],
            *(_shown(one["measures"].get(key), ".2f" if "nll" in key else ".3g")
              for key in MEASURES),
        ]
        for one in results.values()
    ]  # fmt: skip
    text = f"""# Regression on tables

Negative log-likelihood of test rows in nats, in the target's own units; lower is better.

{labs.table(["model", *names], likelihoods)}

![negative log-likelihoods](regression.png)

{labs.table(["table", "model", *MEASURES.values()], rows)}

Means over {_splits(numbers["tables"])} ± standard error. RMSE is of the mixture's mean, NLL of the
equally weighted mixture of all members, and "NLL, one Gaussian" of the Gaussian with the mixture's
mean and variance. The calibration error is the mean over {len(LEVELS)} levels of the distance
between the level and the share of targets in its central interval. Seconds are of the fit on one
thread. Each model has one set of settings for all tables, in `results.json`; langevin has longer
chains of larger networks on airfoil.
"""
    if points := numbers["settings"].get("gp", {}).get("points"):
        text += f"\nOf more than {points:,} training rows gp takes a random subset of {points:,}.\n"
    failed = [
        f"The fit of {name}, split {split}, diverged and is left out: {why}"
        for name, one in results.items()
        for split, why in one["failed"].items()
    ]
    return text + "".join(f"\n{line}\n" for line in failed)


def _splits(each: Mapping[str, Mapping[str, Any]]) -> str:
    counts = sorted({one["splits"] for one in each.values()})
    return f"{' or '.join(map(str, counts))} split{'s' if counts[-1] > 1 else ''}"


def _shown(found: Mapping[str, float | None] | None, digits: str) -> str:
    """`mean ± error`, or only the mean."""
    if not found:
        return ""
    mean, error = found["mean"], found["error"]
    return f"{mean:{digits}}" + ("" if error is None else f" ± {error:{digits}}")


def _rows(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `table.csv`."""
    return [
        {"table": one["table"], "model": one["model"], "splits": one["splits"]}
        | {
            f"{key}{suffix}": one["measures"].get(key, {}).get(part)
            for key in MEASURES
            for suffix, part in (("", "mean"), ("_error", "error"))
        }
        for one in results.values()
    ]


def picture(
    results: Mapping[str, Mapping[str, Any]],
    published: Mapping[str, float],
    truths: Mapping[str, Mapping[str, float | None]],
    path: Path,
) -> None:
    """Likelihoods of models, a panel for each table, with normal 95 % intervals over splits."""
    models, names = (
        list(dict.fromkeys(one[key] for one in results.values())) for key in ("model", "table")
    )
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    size = (max(7.4, 4.4 * columns), 1.6 + rows * (0.9 + 0.26 * len(models)))
    figure, axes = plots.panels(
        "Negative log-likelihood of test rows: lower is better", rows, columns, size
    )
    for place, (ax, name) in enumerate(zip(axes, names, strict=False)):
        own = {one["model"]: one["measures"]["nll"] for one in results.values()
               if one["table"] == name and one["measures"]}  # fmt: skip
        levels = {"best published": published.get(name),
                  "truth": truths[name]["mean"] if name in truths else None}  # fmt: skip
        if own:
            _panel(ax, models, own, {k: v for k, v in levels.items() if v is not None})
        plots.note(ax, as_text(name))
        if place % columns:
            ax.set_yticklabels([])
    for ax in axes[len(names) :]:
        ax.remove()
    lines = {str(line.get_label()): line for ax in figure.axes for line in ax.get_lines()
             if not str(line.get_label()).startswith("_")}  # fmt: skip
    if lines:
        plots.legend_below(figure, lines, columns=2)
    plots.save(figure, path)


def _panel(
    ax: Axes,
    models: Sequence[str],
    found: Mapping[str, Mapping[str, Any]],
    levels: Mapping[str, float],
) -> None:
    """A dot and an interval for each model; one far to the right is named at the edge."""
    for label, value in levels.items():
        ax.axvline(value, color=plots.INK, lw=1.3, ls=STYLES[label], label=label)
    # one bad model must not squeeze the others
    values = sorted([*(one["mean"] for one in found.values()), *levels.values()])
    least, middle = values[0], values[len(values) // 2]
    edge = middle + max(2 * (middle - least), 0.3)
    for row, model in enumerate(models):
        if model not in found:
            continue
        mean, error = found[model]["mean"], found[model]["error"] or 0.0
        colour = plots.COLOURS[row % len(plots.COLOURS)]
        if mean > edge:
            text = f"{mean:.3g} \N{RIGHTWARDS ARROW}"
            ax.annotate(
                text, (1, row), xycoords=ax.get_yaxis_transform(), ha="right", va="center",
                fontsize=9.5, color=colour, bbox={"fc": "white", "ec": "none", "pad": 1},
            )  # fmt: skip
        else:
            ax.errorbar(mean, row, xerr=1.96 * error, fmt="o", ms=6.5, capsize=3, color=colour)
    left, right = ax.get_xlim()
    ax.set_xlim(left, min(right, edge + 0.1 * (edge - least)))
    ax.set_yticks(range(len(models)), models)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xlabel("nats")
