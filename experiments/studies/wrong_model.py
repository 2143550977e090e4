"""How wrong may a model be? MBPO with the physics of the pendulum, perturbed, as the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments import plots
from experiments.plots.lines import Curve
from experiments.studies import lab as labs
from experiments.studies.common import means, measured
from experiments.studies.lab import Lab, Report
from experiments.studies.pendulum import ENV, Pendulum
from mbrl.dynamics.own import OwnModel
from mbrl.training import RunConfig

MASSES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
FRICTIONS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
HORIZONS = (1, 5)


def wrong_model(lab: Lab) -> Report:
    """Return after training by error of the model, and with a learned model or none."""
    masses = MASSES[2:5:2] if lab.fast else MASSES
    frictions = FRICTIONS[1:2] if lab.fast else FRICTIONS[1:]
    horizons = HORIZONS[1:] if lab.fast else HORIZONS
    episodes = 2 if lab.fast else 20
    models = {("mass", mass): {"mass": mass} for mass in masses}
    models |= {("friction", friction): {"friction": friction} for friction in frictions}
    configs: dict[Any, RunConfig] = {
        (kind, value, horizon): config(lab, horizon, settings)
        for (kind, value), settings in models.items()
        for horizon in horizons
    }
    configs |= {("learned model", 0.0, horizon): config(lab, horizon, None) for horizon in horizons}
    configs["no model", 0.0, 0] = _without(config(lab, horizons[0], None))
    names = {key: _name(*key) for key in configs}
    paths = lab.train({names[key]: run for key, run in configs.items()})
    asked = {name: [(path, episodes, {}) for path in own] for name, own in paths.items()}
    answers = means(measured(lab, labs.final_returns, asked))
    found = {key: labs.summary(answers[name]) for key, name in names.items()}
    references = {
        **{f"learned, k {k}": found["learned model", 0.0, k] for k in horizons},
        "no model": found["no model", 0.0, 0],
    }
    panels = {}
    for kind, values in (("mass", masses), ("friction", _with_exact(frictions, masses))):
        at = [("mass", 1.0) if (kind, x) == ("friction", 0.0) else (kind, x) for x in values]
        lines = {
            f"k {k}": Curve.intervals(values, [found[own_kind, x, k] for own_kind, x in at])
            for k in horizons
        }
        lines |= {
            name: Curve.intervals(values, [one] * len(values)) for name, one in references.items()
        }
        truth = "1" if kind == "mass" else "0"
        panels[f"{kind} of the model; the environment's is {truth}"] = lines
    figure = plots.curves(
        panels, title="MBPO with a wrong model, Pendulum-v1", xlabel="value in the model",
        ylabel="return of the policy in the environment", size=(11, 5),
    )  # fmt: skip
    plots.save(figure, lab.folder / "wrong_model.png")
    rows = [[names[key], labs.shown(found[key])] for key in configs]
    steps = next(iter(configs.values())).steps
    text = f"""# MBPO with a wrong model

The pendulum's physics in closed form takes the place of the learned model, with another mass or a
friction that the environment does not have. Return of the policy in the environment after
{steps:,} steps and {episodes} new episodes; interquartile mean over {lab.seeds} seeds [95 %
bootstrap interval]. k is the length of rollouts.

{labs.table(["model", "return"], rows)}
"""
    numbers = {
        "steps": steps,
        "episodes": episodes,
        "returns": {names[key]: own for key, own in found.items()},
    }
    return Report(numbers, text)


def config(lab: Lab, horizon: int, settings: dict[str, float] | None) -> RunConfig:
    """A run of MBPO with rollouts of k steps, through the physics, or a learned model if None."""
    steps, agent = labs.preset_of("mbpo", ENV)
    agent = replace(agent, horizon=horizon)
    if settings is not None:
        name = f"{Pendulum.__module__}:{Pendulum.__name__}"
        agent = replace(agent, model=OwnModel(name, settings=settings))
    if lab.fast:
        steps = 240
        learner = replace(agent.learner, hidden=(8,))
        agent = replace(agent, updates=1, starts=50, learner=learner)
        if settings is None:
            agent = replace(agent, model=replace(agent.model, hidden=(8,), epochs=2))
    return RunConfig("mbpo", ENV, 0, steps, "cpu", agent)


def _name(kind: str, value: float, horizon: int) -> str:
    if kind == "no model":
        return kind
    return f"{kind}, k {horizon}" if kind == "learned model" else f"{kind} {value:g}, k {horizon}"


def _without(run: RunConfig) -> RunConfig:
    """The same learner from real steps alone, with as many updates."""
    return replace(run, agent=replace(run.agent, real=1.0))


def _with_exact(frictions: tuple[float, ...], masses: tuple[float, ...]) -> tuple[float, ...]:
    """The model without friction is the one of mass 1."""
    return (0.0, *frictions) if 1.0 in masses else frictions
