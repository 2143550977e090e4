"""Does a model know where it does not know? Scores of doubt on shifted inputs, and true errors.

Models are fitted to episodes of actions in half their range. Then come states and actions beyond
that data, and other physics, which no score of the inputs can show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies import learned
from experiments.studies.lab import Lab, Report
from mbrl.data import moments
from mbrl.dynamics.fitting import FitDiverged
from mbrl.dynamics.table import ModelConfig
from mbrl.training.executor import stop_if_asked
from mbrl.types import GaussianDynamics, Transition
from mbrl.uncertainty import auroc, entropy_split, jensen_renyi, rank_correlation, spread

ENVIRONMENTS = {"cartpole-swingup": 12, "half-cheetah": 40}
"""Episodes that models are fitted to."""
SIZE = 0.5
"""Share of the range of actions in these episodes."""
SCORES = (
    "disagreement", "aleatoric std", "predictive std", "predictive entropy", "BALD",
    "Jensen-Rényi",
)  # fmt: skip
SHIFTS = ("states", "actions", "physics")
FAMILIAR = "in distribution"
GRAVITY = 2.0
"""Factor in the other physics."""


class Budget(NamedTuple):
    """Sizes of the study."""

    train: Mapping[str, int]
    """Episodes that models are fitted to, by environment."""
    episodes: int
    """Episodes that rows of each kind are taken from."""
    rows: int
    """The most rows of each kind."""


FULL = Budget(ENVIRONMENTS, 40, 1000)
TINY = Budget({"cartpole-swingup": 2, "half-cheetah": 2}, 4, 30)


def ood(lab: Lab) -> Report:
    """Whether scores of doubt find shifted inputs and order the true errors, for every model."""
    budget = TINY if lab.fast else FULL
    found, failed = learned.compared(lab, ENVIRONMENTS, measure, budget, _pooled)
    numbers = {"settings": budget._asdict(), "failed": failed, "found": found}
    picture(found, lab.folder / "ood.png")
    return Report(numbers, page(found, budget, lab.seeds, failed), rows(found))


def measure(env: str, config: ModelConfig, budget: Budget, seed: int) -> dict[str, Any]:
    """Errors, areas under the ROC curve and correlations of one model; see `compared`."""
    draw = torch.Generator().manual_seed(seed)
    train = learned.play(env, budget.train[env], seed=5 * seed, size=SIZE)
    data = train.transitions()
    try:
        model = learned.fitted(config, train, generator=draw)
    except FitDiverged as error:
        return {"failed": str(error)}
    scale = moments(data.next_obs - data.obs)[1].clamp_min(1e-6)
    found = {}
    for name, rows_of in shifted(env, data, budget, seed).items():
        stop_if_asked()
        found[name] = doubts(model, rows_of, scale, draw)
    return compared(found)


def shifted(env: str, data: Transition, budget: Budget, seed: int) -> dict[str, Transition]:
    """Rows in distribution, and those of each of `SHIFTS`."""
    count, limit = budget.episodes, float(data.action.abs().max())

    def played(part: int, **ways: Any) -> Transition:
        return learned.play(env, count, seed=5 * seed + part, **ways).transitions()

    far = played(2, size=SIZE, corners=True, holds=(25,))
    wide = played(3)
    heavy = played(4, size=SIZE, gravity=GRAVITY)
    beyond = (wide.action.abs() > limit).any(-1)
    chosen = {
        FAMILIAR: (played(1, size=SIZE), None),
        "states": (far, ~inside(far.obs, data.obs)),
        "actions": (wide, inside(wide.obs, data.obs) & beyond),
        "physics": (heavy, inside(heavy.obs, data.obs)),
    }
    return {name: _some(part, which, budget.rows) for name, (part, which) in chosen.items()}


def inside(obs: Float[Tensor, "T O"], seen: Float[Tensor, "T O"]) -> Bool[Tensor, " T"]:
    """Whether every dimension is between the least and the greatest value seen."""
    return ((obs >= seen.amin(0)) & (obs <= seen.amax(0))).all(-1)


def _some(part: Transition, which: Tensor | None, most: int) -> Transition:
    kept = torch.arange(len(part.reward)) if which is None else which.nonzero().squeeze(1)
    kept = kept[:: max(-(-len(kept) // most), 1)]
    return Transition(*(column[kept] for column in part))


@torch.no_grad()
def doubts(
    model: GaussianDynamics,
    data: Transition,
    scale: Float[Tensor, " O"],
    generator: torch.Generator,
) -> dict[str, list[float]]:
    """Each of `SCORES`, and the `error` of the members' mean, for each row.

    The error, disagreement and stds are root mean squares over dimensions, in units of `scale`.
    """
    lead = (model.members, -1, -1)
    gaussian = model.predict(data.obs.expand(*lead), data.action.expand(*lead))
    size = data.obs.shape[-1]
    mean, std = (part[..., :size].double() / scale for part in gaussian)
    parts = spread(mean, std)
    entropies = entropy_split(mean, std, samples=32, generator=generator)
    values = {
        "disagreement": parts.epistemic.mean(-1).sqrt(),
        "aleatoric std": parts.aleatoric.mean(-1).sqrt(),
        "predictive std": parts.total.mean(-1).sqrt(),
        "predictive entropy": entropies.total,
        "BALD": entropies.epistemic,
        "Jensen-Rényi": jensen_renyi(mean, std),
        "error": (mean.mean(0) - data.next_obs / scale).square().mean(-1).sqrt(),
    }
    return {name: value.tolist() for name, value in values.items()}


def compared(found: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """What scores of `FAMILIAR` rows and of those of each shift say together.

    Returns:
        `rows` and median `error` by kind of rows; by score: `auroc` by shift, and `spearman` and
        `pearson`, the correlations with the error `in distribution` and over these rows and those
        of shifted inputs (`all`). None without rows, or if all numbers are equal.
    """

    def varied(pair: Sequence[Sequence[float]]) -> bool:
        return all(len(set(part)) > 1 for part in pair)

    answer: dict[str, Any] = {
        "rows": {name: len(part["error"]) for name, part in found.items()},
        "error": {
            name: float(np.median(part["error"])) if part["error"] else None
            for name, part in found.items()
        },
    }
    familiar = found[FAMILIAR]
    inputs = [found[name] for name in (FAMILIAR, "states", "actions")]
    for score in SCORES:
        own = torch.tensor(familiar[score])
        areas = {
            name: auroc(own, torch.tensor(found[name][score])) if found[name][score] else None
            for name in SHIFTS
        }
        pairs = {
            FAMILIAR: (familiar[score], familiar["error"]),
            "all": tuple(
                np.concatenate([part[key] for part in inputs]) for key in (score, "error")
            ),
        }
        answer[score] = {
            "auroc": areas,
            "spearman": {
                name: rank_correlation(*map(torch.as_tensor, pair)) if varied(pair) else None
                for name, pair in pairs.items()
            },
            "pearson": {
                name: float(np.corrcoef(*pair)[0, 1]) if varied(pair) else None
                for name, pair in pairs.items()
            },
        }
    return answer


def _pooled(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and each of them in `seeds`."""

    def mean(parts: Sequence[Any]) -> Any:
        if isinstance(parts[0], Mapping):
            return {key: mean([part[key] for part in parts]) for key in parts[0]}
        known = [part for part in parts if part is not None]
        return float(np.mean(known)) if known else None

    return {**mean(each), "seeds": list(each)}


def rows(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `table.csv`: a row for each model and score."""
    return [
        {"environment": one["environment"], "model": one["model"], "score": score}
        | {f"auroc_{name}": one[score]["auroc"][name] for name in SHIFTS}
        | {
            f"{kind}_{name.replace(' ', '_')}": one[score][kind][name]
            for kind in ("spearman", "pearson")
            for name in (FAMILIAR, "all")
        }
        for one in found.values()
        for score in SCORES
    ]


def page(
    found: Mapping[str, Mapping[str, Any]], budget: Budget, seeds: int, failed: Sequence[str]
) -> str:
    """The study's page, in Markdown."""
    head = ["model", "score", *(f"AUROC, {name}" for name in SHIFTS), "Spearman, in distribution",
            "Spearman, all", "Pearson, in distribution", "Pearson, all"]  # fmt: skip
    parts = []
    for env in dict.fromkeys(one["environment"] for one in found.values()):
        here = [one for one in found.values() if one["environment"] == env]
        lines = [
            [
                one["model"],
                score,
                *(_shown(one[score]["auroc"][name]) for name in SHIFTS),
                *(_shown(one[score][kind][name]) for kind in ("spearman", "pearson")
                  for name in (FAMILIAR, "all")),
            ]
            for one in here
            for score in SCORES
        ]  # fmt: skip
        kinds = (FAMILIAR, *SHIFTS)
        errors = [
            [one["model"], *(_shown(one["error"][name]) for name in kinds)] for one in here
        ] + [["rows", *(f"{here[0]['rows'][name]:.0f}" for name in kinds)]]
        parts.append(f"""## {env}

Median error of the mean of the members, in stds of a step's change:

{labs.table(["model", *kinds], errors)}

{labs.table(head, lines)}
""")
    counts = ", ".join(f"{budget.train[env]} ({env})" for env in budget.train)
    text = f"""# Out of distribution

Models are fitted to {counts} episodes of {learned.EPISODE} steps, with uniform actions in half
their range, held for 1, 2, 5 or 10 steps. Rows of four kinds come from {budget.episodes} fresh
episodes each. "in distribution": the same actions. "states": actions at the ends of this half
range, held for 25 steps; rows with an observation beyond those of the training data. "actions":
actions in the whole range; rows with observations inside the training data's, and an action beyond
it. "physics": gravity times {GRAVITY:g} and observations inside: the inputs are familiar and only
the errors grow, so a score of inputs is expected near 0.5. Means over {seeds}
seed{"s" if seeds > 1 else ""}.

AUROC is the chance that a row of the shift has the higher score than one in distribution; 0.5 is
guessing. Correlations are with the true error of the row, in distribution and over the first three
kinds of rows ("all"). Disagreement and stds are in stds of a step's change; the entropies and
divergences also count how far the members' stds differ, which says nothing of the error.

{chr(10).join(parts)}
![AUROC and correlation with the error](ood.png)
"""
    return text + "".join(f"\n{line}\n" for line in failed)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def picture(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """A dot for each score: AUROC by shift, and the correlation with the error, by model."""
    worlds = list(dict.fromkeys(one["environment"] for one in found.values()))
    most = max(sum(one["environment"] == env for one in found.values()) for env in worlds)
    height = 1.2 + len(worlds) * (1.0 + 0.34 * most)
    figure, axes = plots.panels("Does doubt show the unknown?", len(worlds), 4, (14, height))
    marks = ("o", "s", "D", "^", "v", "P")
    for row, env in enumerate(worlds):
        here = [one for one in found.values() if one["environment"] == env]
        for column, name in enumerate((*SHIFTS, "error")):
            ax = axes[4 * row + column]
            for score, colour, mark in zip(SCORES, plots.COLOURS, marks, strict=False):
                values = [
                    one[score]["spearman"]["all"] if name == "error" else one[score]["auroc"][name]
                    for one in here
                ]
                at = [(value, y) for y, value in enumerate(values) if value is not None]
                ax.plot(*zip(*at, strict=True) if at else ([], []), mark, color=colour, ms=6,
                        alpha=0.8, mew=0, label=score)  # fmt: skip
            ax.axvline(0.0 if name == "error" else 0.5, color=plots.GREY, lw=1.2, ls="--")
            ax.set_yticks(range(len(here)), [one["model"] for one in here] if not column else [])
            ax.set_ylim(len(here) - 0.5, -0.5)
            ax.set_xlim(-1.02 if name == "error" else -0.02, 1.02)
            said = "rank correlation with the error" if name == "error" else f"AUROC, {name}"
            plots.note(ax, f"{env}: {said}" if not column else said)
    plots.legend_below(figure)
    plots.save(figure, path)
