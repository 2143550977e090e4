"""How soon does PETS learn with each kind of model? Returns by environment steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl.dynamics.table import MODELS
from mbrl.training import RunConfig
from mbrl.training.folders import learning
from mbrl.training.run_config import changed

ENV = "cartpole-swingup"
STEPS = (450, 600, 900)
SOLVED = 115.0
"""Return of an episode that counts as solved; the best possible one is about 130."""

OWN: Mapping[str, Mapping[str, Any]] = {
    "langevin": {"tuning_steps": 2000, "samples": 20},
}
"""Settings that differ from those of the preset, or of the kind where the preset has none."""


def data_efficiency(lab: Lab) -> Report:
    """Returns of training episodes of every model, and how many episodes it takes to solve."""
    marks = (300,) if lab.fast else STEPS
    names = lab.chosen([f"{ENV} {model}" for model in MODELS])
    models = {name: name.split()[1] for name in names}
    if lab.fast and len(models) == len(MODELS):
        models = {name: model for name, model in models.items() if model in ("ensemble", "laplace")}
    paths = lab.train({name: config(lab, model, marks[-1]) for name, model in models.items()})
    numbers: dict[str, Any] = {}
    rows = []
    for name, model in models.items():
        curves = [learning(path) for path in paths[name]]
        found = {
            "curves": curves,
            "returns": {str(n): labs.summary([at(curve, n) for curve in curves]) for n in marks},
            "episodes": [episodes(curve, SOLVED) for curve in curves],
        }
        numbers[model] = found
        never = f"not in {len(curves[0][0])}"
        solved = [str(count or never) for count in found["episodes"]]
        rows.append(
            [model, *(labs.shown(found["returns"][str(n)]) for n in marks), ", ".join(solved)]
        )
    picture(
        {model: found["curves"] for model, found in numbers.items()},
        lab.folder / "data_efficiency.png",
    )
    head = ["model", *(f"return at {n}" for n in marks), f"episodes until {SOLVED:g}, by seed"]
    text = f"""# How soon PETS learns with each model

Return of the training episode that ends at each number of environment steps; the first episode of
150 steps is random. Interquartile mean over {lab.seeds} seeds [95 % bootstrap interval]. Plans are
those of the preset, and so are the sizes of networks, but for Langevin chains.

{labs.table(head, rows)}

![Returns of training episodes by steps, for each model](data_efficiency.png)
"""
    return Report(numbers, text)


def picture(curves: Mapping[str, Sequence[Any]], path: Path) -> None:
    """A panel for each model, with the line of the first in all of them."""
    lines = {model: line(seeds) for model, seeds in curves.items()}
    first, base = next(iter(lines.items()))
    base = base._replace(low=None, high=None)
    columns = min(3, len(lines))
    figure = plots.curves(
        {model: {"the model": own, first: base} for model, own in lines.items()},
        title=f"PETS with every model on {ENV}: return of training episodes",
        xlabel="environment steps",
        ylabel="return",
        columns=columns,
        size=(4.0 * columns, 1.2 + 2.3 * -(-len(lines) // columns)),
        styles={f"solved: {SOLVED:g}": "--"},
    )
    for ax in figure.axes:
        ax.axhline(SOLVED, color=plots.GREY, lw=1.0, ls="--")
        ax.set_ylim(0, 135)
    plots.save(figure, path)


def line(seeds: Sequence[tuple[Sequence[int], Sequence[float]]]) -> plots.Curve:
    """Interquartile mean of the returns at the end of each episode, with its interval."""
    ends = seeds[0][0]
    return plots.Curve.intervals(
        ends, [labs.summary([at(seed, end) for seed in seeds]) for end in ends]
    )


def config(lab: Lab, model: str, steps: int) -> RunConfig:
    """The preset's run with another kind of model."""
    run = lab.pets(ENV, steps)
    agent = changed(run.agent, model=model)
    if not lab.fast:
        agent = replace(agent, model=replace(agent.model, **OWN.get(model, {})))
    return replace(run, agent=agent, steps=steps)


def at(curve: tuple[Sequence[int], Sequence[float]], steps: int) -> float:
    """Return of the episode that ends at a number of steps."""
    ends, returns = (np.asarray(part) for part in curve)
    return float(returns[ends == steps][0])


def episodes(curve: tuple[Sequence[int], Sequence[float]], wanted: float) -> int:
    """Number of the first episode with a return; 0 if there is none."""
    reached = np.flatnonzero(np.asarray(curve[1]) >= wanted)
    return int(reached[0]) + 1 if len(reached) else 0
