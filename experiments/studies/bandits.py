"""Bandits: what exploring costs, beside what theory says it must and need not cost.

Three problems: four Bernoulli arms with means that never change; ten whose means are drawn anew for
each run; and arms with features, new ones at every play.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl import tabular
from mbrl.tabular.bandits import Bandit, lai_robbins, regret, ucb1_bound
from mbrl.tabular.linear_bandits import LinearBandit, linear_regret
from mbrl.training.executor import Work, stop_if_asked

MEANS = (0.6, 0.5, 0.4, 0.3)
DRAWN = 10  # arms of the second problem
ARMS, FEATURES, NOISE = 20, 5, 0.5  # of the third
SCHEDULE = 0.2  # c of Auer's ε = min(1, c K / (d² t)), at the best of what he tried
POINTS = 60  # plays at which regret is kept, evenly on a logarithmic axis


def _decaying(t: int) -> float:
    gap = sorted(MEANS)[-1] - sorted(MEANS)[-2]
    return min(1.0, SCHEDULE * len(MEANS) / (gap**2 * t))


ALGORITHMS: Mapping[str, Callable[[int, int], Bandit]] = {
    "ε-greedy, constant": lambda runs, arms: tabular.EpsilonGreedy(runs, arms, epsilon=0.1),
    "ε-greedy, decaying": lambda runs, arms: tabular.EpsilonGreedy(runs, arms, epsilon=_decaying),
    "UCB1": tabular.UCB1,
    "KL-UCB": tabular.KLUCB,
    "Thompson": tabular.Thompson,
    "IDS, variance": tabular.InformationDirected,
    "IDS": lambda runs, arms: tabular.InformationDirected(runs, arms, information="mutual"),
}
LINEAR: Mapping[str, Callable[[int], LinearBandit]] = {
    "LinUCB": lambda runs: tabular.LinUCB(runs, FEATURES, noise=NOISE),
    "linear Thompson": lambda runs: tabular.LinearThompson(runs, FEATURES, noise=NOISE),
}


NOTES = {
    "fixed": "; dashed: the least slope in the long run",
    "drawn": "; dashed: order of the worst case",
    "linear": "; UCB1 does not see them",
}
"""How to read each panel."""


class Problem(NamedTuple):
    """What is played, for how long, and by whom."""

    title: str
    plays: int
    runs: Mapping[str, int]  # of each algorithm, a seed; integrals cost more than draws


def problems(fast: bool) -> dict[str, Problem]:
    """By name."""
    many, few = (30, 10) if fast else (1000, 200)
    plays = 200 if fast else 10_000
    runs = {name: few if name.startswith("IDS") else many for name in ALGORITHMS}
    fixed = {name: number for name, number in runs.items() if name != "IDS"}
    drawn = {name: number for name, number in runs.items() if not name.startswith("ε")}
    return {
        "fixed": Problem("four Bernoulli arms, 0.6 to 0.3", plays, fixed),
        "drawn": Problem("ten Bernoulli arms, means uniform", 100 if fast else 1000, drawn),
        "linear": Problem(
            f"{ARMS} arms of {FEATURES} features, new at each play",
            100 if fast else 3000,
            {"UCB1": few, "LinUCB": few, "linear Thompson": few},
        ),
    }


def bandits(lab: Lab) -> Report:
    """Regret of each algorithm, with theory beside it."""
    asked = problems(lab.fast)
    work = {
        (problem, name, seed): Work(
            lost, (problem, name, runs, plays, seed), f"{problem} {name}, seed {seed}"
        )
        for problem, (_, plays, every) in asked.items()
        for name, runs in every.items()
        for seed in range(lab.seeds)
    }
    answers = lab.answers(work)
    curves = {
        problem: {
            name: pooled([answers[problem, name, seed] for seed in range(lab.seeds)])
            for name in each.runs
        }
        for problem, each in asked.items()
    }
    slope = lai_robbins(MEANS)
    bound = ucb1_bound(MEANS, asked["fixed"].plays)
    numbers: dict[str, Any] = {
        "settings": {
            "means": MEANS, "drawn": DRAWN, "arms": ARMS, "features": FEATURES, "noise": NOISE,
            "schedule": SCHEDULE,
            "problems": {name: problem._asdict() for name, problem in asked.items()},
        },
        "regret": curves,
        "Lai-Robbins slope": slope,
        "UCB1 bound": bound,
    }  # fmt: skip
    picture(curves, asked, lab.folder / "bandits.png")
    return Report(numbers, page(curves, asked, slope, bound))


def page(
    curves: dict[str, dict[str, dict[str, list[float]]]],
    asked: dict[str, Problem],
    slope: float,
    bound: float,
) -> str:
    """The study in words."""
    plays = {name: problem.plays for name, problem in asked.items()}
    fixed = [
        [name, last(curve), f"{late_slope(curve):.1f}", f"{late_slope(curve) / slope:.2f}"]
        for name, curve in ranked(curves["fixed"])
    ]
    drawn = [[name, last(curve)] for name, curve in ranked(curves["drawn"])]
    linear = [[name, last(curve)] for name, curve in ranked(curves["linear"])]
    return f"""# Bandits: what exploring costs

Mean pseudo-regret over independent runs [95 % interval of the mean].

## Four Bernoulli arms with means {", ".join(map(str, MEANS))}, {plays["fixed"]} plays

{labs.table(["algorithm", "regret", "slope in ln T", "of Lai and Robbins"], fixed)}

The slope is that of the last decade of plays. No consistent algorithm can have one below
Lai and Robbins's {slope:.2f} for ever; Thompson sampling comes to it from below, KL-UCB from above.
Auer's bound for UCB1 is {bound:.0f} here. Constant ε pays ε · (mean gap) =
{0.1 * (max(MEANS) - float(np.mean(MEANS))):.3f} a play for ever: in ln T it bends upwards.

## Ten Bernoulli arms, their means uniform, {plays["drawn"]} plays

{labs.table(["algorithm", "regret"], drawn)}

No algorithm can better the order √(K T) on its worst problem; it is
{math.sqrt(DRAWN * plays["drawn"]):.0f} here.

## {ARMS} arms that share {FEATURES} numbers, new features at every play, {plays["linear"]} plays

{labs.table(["algorithm", "regret"], linear)}

The mean reward is linear in the features, the noise has std {NOISE}. UCB1 sees the arm's place in
the list alone, which means nothing here: it is what knowing no features costs.
"""


def ranked(curves: dict[str, dict[str, list[float]]]) -> list[tuple[str, dict[str, list[float]]]]:
    """The least regret first."""
    return sorted(curves.items(), key=lambda item: item[1]["mean"][-1])


def last(curve: dict[str, list[float]]) -> str:
    """Final regret with its interval."""
    mean, error = curve["mean"][-1], 1.96 * curve["error"][-1]
    return labs.shown({"estimate": mean, "low": mean - error, "high": mean + error})


def late_slope(curve: dict[str, list[float]]) -> float:
    """What regret grew by with ln T over the last decade of plays."""
    at, mean = np.array(curve["plays"]), np.array(curve["mean"])
    early = int(np.abs(at - at[-1] / 10).argmin())
    return float((mean[-1] - mean[early]) / math.log(at[-1] / at[early]))


def pooled(parts: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """One curve of as many runs each from several seeds."""
    return {
        "plays": parts[0]["plays"],
        "mean": np.mean([part["mean"] for part in parts], 0).tolist(),
        "error": (np.linalg.norm([part["error"] for part in parts], axis=0) / len(parts)).tolist(),
    }


def lost(problem: str, name: str, runs: int, plays: int, seed: int) -> dict[str, list[float]]:
    """Mean regret over runs and its standard error, at some plays."""
    generator = torch.Generator().manual_seed(seed)
    if problem == "linear":
        found = _linear(name, runs, plays, generator)
    else:
        means = torch.tensor(MEANS)
        if problem == "drawn":
            means = torch.rand(runs, DRAWN, generator=generator)
        bandit = ALGORITHMS[name](runs, means.shape[-1])
        found = torch.zeros(runs, 0, dtype=torch.float64)
        while found.shape[1] < plays:
            stop_if_asked()
            more = min(100, plays - found.shape[1])
            part = regret(bandit, means, steps=more, generator=generator)
            found = torch.cat((found, part if not found.numel() else found[:, -1:] + part), 1)
    at = np.unique(np.geomspace(1, plays, POINTS).round().astype(int))
    kept = found[:, torch.as_tensor(at - 1)]
    return {
        "plays": at.tolist(),
        "mean": kept.mean(0).tolist(),
        "error": (kept.std(0) / math.sqrt(runs)).tolist(),
    }


def _linear(name: str, runs: int, plays: int, generator: torch.Generator) -> torch.Tensor:
    theta = torch.randn(runs, FEATURES, generator=generator).double()
    theta = theta / theta.norm(dim=1, keepdim=True)

    def offered(generator: torch.Generator) -> torch.Tensor:
        stop_if_asked()
        x = torch.randn(runs, ARMS, FEATURES, generator=generator).double()
        return x / x.norm(dim=-1, keepdim=True)

    if name in LINEAR:
        return linear_regret(LINEAR[name](runs), theta, offered, steps=plays, generator=generator)
    blind, gaps = tabular.UCB1(runs, ARMS), []
    for _ in range(plays):
        means = (offered(generator) @ theta[..., None])[..., 0]  # (R, K) in [-1, 1]
        arm = blind.choose(generator=generator)
        mean = means.gather(1, arm[:, None])[:, 0]
        gaps.append(means.amax(1) - mean)
        paid = mean + NOISE * torch.randn(runs, generator=generator)
        blind.observe(arm, ((paid + 3) / 6).clamp(0, 1))  # UCB1 wants rewards in [0, 1]
    return torch.stack(gaps, 1).cumsum(1)


def picture(
    curves: dict[str, dict[str, dict[str, list[float]]]], asked: dict[str, Problem], path: Path
) -> None:
    """Regret against plays with 95 % intervals, a panel a problem, curves named at their ends."""
    figure, axes = plots.panels("What exploring costs: regret", 1, 3, (15, 5.0))
    names = [*ALGORITHMS, *LINEAR]
    palette = dict(zip(names, (*plots.COLOURS, *plots.COLOURS[:2]), strict=True))
    for ax, (problem, each) in zip(axes, curves.items(), strict=True):
        ends: dict[str, tuple[float, str]] = {}
        for name, curve in each.items():
            at, mean, error = (np.array(curve[key]) for key in ("plays", "mean", "error"))
            colour = palette[name]
            ax.fill_between(
                at, mean - 1.96 * error, mean + 1.96 * error, color=colour, alpha=0.22, lw=0
            )
            ax.plot(at, mean, color=colour, lw=2.2)
            ends[name] = (mean[-1], colour)
        at = np.array(next(iter(each.values()))["plays"])
        if problem == "fixed":
            theory = lai_robbins(MEANS) * np.log(at)
            ax.plot(at, theory, color=plots.INK, lw=1.6, ls=(0, (5, 3)))
            ends["Lai–Robbins"] = (theory[-1], plots.INK)
        elif problem == "drawn":
            theory = np.sqrt(DRAWN * at)
            ax.plot(at, theory, color=plots.INK, lw=1.6, ls=(0, (5, 3)))
            ends["√(K T)"] = (theory[-1], plots.INK)
        ax.set(xscale="log", xlabel="plays T (log scale)", ylabel="mean regret")
        ax.set_xlim(1, at[-1])
        top = max(value for value, _ in ends.values())
        if problem == "linear":  # what knows no features loses a hundred times as much
            ax.set(yscale="log", ylabel="mean regret (log scale)")
            ax.set_ylim(0.3, 1.4 * top)
            plots.plain_log(ax.yaxis)
        else:
            ax.set_ylim(0, 1.05 * top)
        plots.note(ax, f"{asked[problem].title}{NOTES[problem]}")
        _name_ends(ax, ends)
    plots.save(figure, path)


def _name_ends(ax: Axes, ends: dict[str, tuple[float, str]]) -> None:
    """Each curve's name and final value beside its end, from the top down, without overlap."""
    heights = ax.transAxes.inverted().transform(
        ax.transData.transform([(1, value) for value, _ in ends.values()])
    )[:, 1]
    at = math.inf
    for height, (name, (value, colour)) in sorted(
        zip(heights, ends.items(), strict=True), key=lambda pair: -pair[0]
    ):
        at = min(height, at - 0.052)
        ax.annotate(
            f"{name}  {value:.0f}",
            (1.04, at),
            xycoords="axes fraction",
            va="center",
            fontsize=9.5,
            color=colour,
            annotation_clip=False,
        )
