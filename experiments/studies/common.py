"""What a measurement says of every seed, and the tables that most studies show of it."""

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
    """What `function` answers for each label and seed.

    `each` gives each label, a text or several, the arguments for each seed in order. Answers are
    computed by `Lab.answers`, so they are JSON values, kept in the study's folder.
    """
    asked = {
        (label, seed): Work(function, arguments, f"{_text(label)}, seed {seed}")
        for label, rows in each.items()
        for seed, arguments in enumerate(rows)
    }
    answers = lab.answers(asked)
    return {label: [answers[label, s] for s in range(len(rows))] for label, rows in each.items()}


def means(answers: Mapping[Any, Sequence[Sequence[float]]]) -> dict[Any, list[float]]:
    """For each label the mean of each seed's numbers, such as returns of episodes."""
    return {label: [float(np.mean(own)) for own in seeds] for label, seeds in answers.items()}


def gain(better: Sequence[float], worse: Sequence[float]) -> dict[str, Any]:
    """The `summary` of how much more one has than the other, seed by seed."""
    return summary(np.subtract(better, worse).tolist())


def cells(*found: Mapping[str, float], digits: int = 1) -> list[str]:
    """Cells of a table: each summary's estimate and interval."""
    return [shown(one, digits) for one in found]


def tiny(planner: PlannerConfig) -> PlannerConfig:
    """A search so small that a fast study ends soon."""
    return replace(planner, population=8, iterations=1, elites=2)


def _text(label: Any) -> str:
    return label if isinstance(label, str) else ", ".join(label)
