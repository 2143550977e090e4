"""Measurements for every label and seed, and the table cells that most studies show of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from experiments.studies.lab import Lab, shown, summary
from mbrl.agents import PlannerConfig
from mbrl.training.executor import Work


def measured(
    lab: Lab, function: Callable[..., Any], each: Mapping[Any, Sequence[tuple[Any, ...]]]
) -> dict[Any, list[Any]]:
    """Call `function` for each label and seed; returns its results by label, a list over seeds.

    `each` maps a label, which is a string or a tuple of strings, to the arguments for each seed in
    order. `Lab.answers` computes the results, so they are JSON values, kept in the study's folder.
    """
    asked = {
        (label, seed): Work(function, arguments, f"{_text(label)}, seed {seed}")
        for label, rows in each.items()
        for seed, arguments in enumerate(rows)
    }
    answers = lab.answers(asked)
    return {label: [answers[label, s] for s in range(len(rows))] for label, rows in each.items()}


def means(answers: Mapping[Any, Sequence[Sequence[float]]]) -> dict[Any, list[float]]:
    """By label, the mean of each seed's numbers, such as returns of episodes."""
    return {label: [float(np.mean(own)) for own in seeds] for label, seeds in answers.items()}


def gain(better: Sequence[float], worse: Sequence[float]) -> dict[str, Any]:
    """The `summary` of the differences `better - worse`, seed by seed."""
    return summary(np.subtract(better, worse).tolist())


def cells(*found: Mapping[str, float], digits: int = 1) -> list[str]:
    """Table cells: the estimate and interval of each summary."""
    return [shown(one, digits) for one in found]


def tiny(planner: PlannerConfig) -> PlannerConfig:
    """The planner with a search small enough for a fast study."""
    return replace(planner, population=8, iterations=1, elites=2)


def _text(label: Any) -> str:
    return label if isinstance(label, str) else ", ".join(label)
