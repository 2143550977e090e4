"""Figures of trained runs: returns, and of an agent's model or codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import envs
from experiments import plots
from experiments.plots.coded import code_figures
from experiments.plots.style import as_text
from mbrl.evaluation import latent, measure, open_loop
from mbrl.training import RunConfig
from mbrl.training.checkpoint import Run, write_json
from mbrl.training.folders import learning
from mbrl.training.runs import Loaded, load_run
from mbrl.types import Coded, ModelBased
from mbrl.uncertainty import calibration_curve, calibration_error, spread

CONTEXT = 5
"""Observations that a model has seen before it predicts those that follow."""


def plot_runs(
    paths: Sequence[Path],
    *,
    episodes: int,
    seed: int,
    device: str | None = None,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Write all figures of each run to RUN/plots, and their numbers to RUN/plots/numbers.json.

    The returns of several runs of one environment share one figure, in the first run's folder.
    Models are on `device`, or on that of their run if it is None. Returns the numbers by run.

    Raises:
        RunError: see `load_run` and `learning`.
        EnvironmentError: see `mbrl.training.collect`.
    """
    configs = [RunConfig.of(Run.open(path)) for path in paths]
    curves: dict[str, list[Any]] = {}
    for path, config in zip(paths, configs, strict=True):
        name = as_text(f"{config.algo} on {config.env}")
        curves.setdefault(name, []).append(learning(path))
    # All runs are loaded first, so that a broken one leaves no figures of the others.
    opened = [load_run(path, make_env=envs.make, device=device) for path in paths]
    target = paths[0] / "plots"
    target.mkdir(exist_ok=True)
    tell(str(plots.save(plots.learning_curve(curves), target / "return.png")))
    numbers: dict[str, Any] = {}
    for path, loaded in zip(paths, opened, strict=True):
        (path / "plots").mkdir(exist_ok=True)
        steps, returns = learning(path)
        found: dict[str, Any] = {"env_steps": steps, "returns": returns}
        if isinstance(loaded.agent, ModelBased):
            found |= model_figures(loaded, episodes=episodes, seed=seed, tell=tell)
        if isinstance(loaded.agent, Coded):
            found |= code_figures(loaded, episodes=episodes, seed=seed, tell=tell)
        write_json(path / "plots" / "numbers.json", found)
        numbers[str(path)] = found
    return numbers


def model_figures(
    loaded: Loaded, *, episodes: int, seed: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Draw the errors and calibration of a run's model on new episodes; returns their numbers."""
    agent, folder, device = loaded.agent, loaded.run.path / "plots", loaded.config.device

    def keep(figure: Figure, name: str) -> None:
        tell(str(plots.save(figure, folder / name)))

    if not agent.fits:
        tell("no figures of the model: it is not fitted yet")
        return {}
    found = measure(agent, loaded.env, episodes=episodes, seed=seed, device=device)
    numbers: dict[str, Any] = {}
    if found.errors is not None and found.baseline is not None:
        errors, baseline = found.errors.numpy(), found.baseline.numpy()
        numbers["error_by_horizon"] = np.median(errors, 0).tolist()
        numbers["no_change_error_by_horizon"] = np.median(baseline, 0).tolist()
        keep(plots.model_error({"model": errors}, baseline=baseline), "model_error.png")
    else:
        tell(
            "no model_error.png, no plan_spread.png: their unit is the observations' standard "
            "deviation, which needs two steps or more; ask for more --episodes"
        )
    if len(found.predicted) > 1:
        numbers |= {"promised": found.predicted, "realised": found.realised}
        keep(plots.predicted_return(found.predicted, found.realised), "predicted_return.png")
    if len(found.episodes[0].obs) > CONTEXT and latent(
        agent.model, found.episodes[0], device=device
    ):
        part = open_loop(agent.model, found.episodes[0], context=CONTEXT, device=device)
        keep(plots.open_loop(part.truth, part.predicted, context=part.context), "open_loop.png")
        off = (part.truth - part.predicted).square().flatten(1).mean(-1).sqrt()
        numbers["open_loop_error"] = off[part.context :].tolist()
    if found.one_step is None:
        return numbers

    mean, std, target = found.one_step
    if bool((std > 0).any()):
        levels = torch.linspace(0.05, 0.95, 19, dtype=mean.dtype)
        observed = calibration_curve(mean, std, target, levels)
        numbers["calibration_error"] = float(calibration_error(levels, observed.mean(-1)))
        curve = {"one step, fresh episodes": observed.numpy()}
        keep(plots.calibration(levels.numpy(), curve), "calibration.png")

    length = len(found.episodes[0].obs)
    first = spread(mean[:, :length], std[:, :length])
    shown = list(range(min(mean.shape[-1], 6)))
    figure = plots.spread(
        np.arange(length) * step_seconds(loaded),
        first.aleatoric[:, shown].numpy(),
        first.epistemic[:, shown].numpy(),
        (target - mean.mean(0))[:length, shown].numpy(),
        [f"observation {i}" for i in shown],
    )
    keep(figure, "episode_spread.png")
    if found.along is not None:
        along, error = found.along
        figure = plots.horizon_spread(
            along.aleatoric.numpy(),
            along.epistemic.numpy(),
            error=error.numpy(),
            ylabel="std of the prediction, in stds of the observations",
        )
        keep(figure, "plan_spread.png")
    return numbers


def step_seconds(loaded: Loaded) -> float:
    """Seconds in a control step; 1 if the environment has no `render_fps`."""
    fps = loaded.env.metadata.get("render_fps")
    return 1 / fps if fps else 1.0
