"""Bandits: the cost of exploration, compared with theory.

Three problems: four Bernoulli arms with fixed means; ten Bernoulli arms whose means are drawn anew
for each run; and arms with features that are drawn anew for each play.
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
from mbrl.tabular.bandits import Bandit, auer_epsilon, lai_robbins, ucb1_bound
from mbrl.tabular.linear_bandits import LinearBandit, linear_regret
from mbrl.tabular.regret import RegretCurve, featureless_regret, regret_curve
from mbrl.training.executor import Work, stop_if_asked

MEANS = (0.6, 0.5, 0.4, 0.3)
DRAWN = 10  # arms of the second problem
ARMS, FEATURES, NOISE = 20, 5, 0.5  # of the third
SCHEDULE = 0.2  # c in the ε of Auer et al., the best of those that they tried

ALGORITHMS: Mapping[str, Callable[[int, int], Bandit]] = {
    "ε-greedy, constant": lambda runs, arms: tabular.EpsilonGreedy(runs, arms, epsilon=0.1),
    "ε-greedy, decaying": lambda runs, arms: tabular.EpsilonGreedy(
        runs, arms, epsilon=auer_epsilon(MEANS, factor=SCHEDULE)
    ),
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
Curves = Mapping[str, Mapping[str, RegretCurve]]
"""Regret by problem and algorithm."""


class Problem(NamedTuple):
    """A problem, how long it is played, and by which algorithms."""

    title: str
    plays: int
    runs: Mapping[str, int]  # of each algorithm for each seed; IDS is slow, so it has fewer


NOTES = {
    "fixed": "; dashed: the least slope in the long run",
    "drawn": "; dashed: order of the worst case",
    "linear": "; UCB1 does not see the features",
}
"""How to read each panel."""


def problems(fast: bool) -> dict[str, Problem]:
    """The three problems by name."""
    many, few = (30, 10) if fast else (1000, 200)
    runs = {name: few if name.startswith("IDS") else many for name in ALGORITHMS}
    fixed = {name: number for name, number in runs.items() if name != "IDS"}
    drawn = {name: number for name, number in runs.items() if not name.startswith("ε")}
    linear = {"UCB1": few, "LinUCB": few, "linear Thompson": few}
    about = f"{ARMS} arms of {FEATURES} features, new at each play"
    return {
        "fixed": Problem("four Bernoulli arms, 0.6 to 0.3", 200 if fast else 10_000, fixed),
        "drawn": Problem("ten Bernoulli arms, means uniform", 100 if fast else 1000, drawn),
        "linear": Problem(about, 100 if fast else 3000, linear),
    }


def bandits(lab: Lab) -> Report:
    """Regret of each algorithm, compared with theory."""
    asked = problems(lab.fast)
    answers = lab.answers(
        {
            (problem, name, seed): Work(
                lost, (problem, name, runs, plays, seed), f"{problem} {name}, seed {seed}"
            )
            for problem, (_, plays, every) in asked.items()
            for name, runs in every.items()
            for seed in range(lab.seeds)
        }
    )
    curves = {
        problem: {
            name: RegretCurve.pooled(
                [RegretCurve(**answers[problem, name, seed]) for seed in range(lab.seeds)]
            )
            for name in each.runs
        }
        for problem, each in asked.items()
    }
    slope, bound = lai_robbins(MEANS), ucb1_bound(MEANS, asked["fixed"].plays)
    numbers: dict[str, Any] = {
        "settings": {
            "means": MEANS, "drawn": DRAWN, "arms": ARMS, "features": FEATURES, "noise": NOISE,
            "schedule": SCHEDULE,
            "problems": {name: problem._asdict() for name, problem in asked.items()},
        },
        "regret": {
            problem: {name: curve._asdict() for name, curve in each.items()}
            for problem, each in curves.items()
        },
        "Lai-Robbins slope": slope,
        "UCB1 bound": bound,
    }  # fmt: skip
    picture(curves, asked, lab.folder / "bandits.png")
    return Report(numbers, page(curves, asked, slope, bound))


def page(curves: Curves, asked: Mapping[str, Problem], slope: float, bound: float) -> str:
    """The study's page, in Markdown."""
    plays = {name: problem.plays for name, problem in asked.items()}
    regret = {
        problem: {
            name: labs.shown_mean(curve.mean[-1], curve.error[-1])
            for name, curve in sorted(each.items(), key=lambda item: item[1].mean[-1])
        }
        for problem, each in curves.items()
    }
    slopes = {name: curve.late_slope for name, curve in curves["fixed"].items()}
    fixed = [
        [name, final, f"{slopes[name]:.1f}", f"{slopes[name] / slope:.2f}"]
        for name, final in regret["fixed"].items()
    ]
    head = ["algorithm", "regret"]
    return f"""# Bandits: the cost of exploration

Mean pseudo-regret over independent runs [95 % interval of the mean].

## Four Bernoulli arms with means {", ".join(map(str, MEANS))}, {plays["fixed"]} plays

{labs.table([*head, "slope in ln T", "of Lai and Robbins"], fixed)}

The slope is that of the last decade of plays. In the long run no consistent algorithm has a slope
below that of Lai and Robbins, {slope:.2f}; Thompson sampling approaches it from below, KL-UCB from
above. Auer's bound for UCB1 is {bound:.0f} here. With a constant ε every play costs
ε · (mean gap) = {0.1 * (max(MEANS) - float(np.mean(MEANS))):.3f}, so that the regret bends upwards
in ln T.

## Ten Bernoulli arms, their means uniform, {plays["drawn"]} plays

{labs.table(head, [*regret["drawn"].items()])}

On its worst problem every algorithm has a regret of order √(K T) or more, which is
{math.sqrt(DRAWN * plays["drawn"]):.0f} here.

## {ARMS} arms that share {FEATURES} numbers, new features at every play, {plays["linear"]} plays

{labs.table(head, [*regret["linear"].items()])}

The mean reward is linear in the features, and the noise has std {NOISE}. UCB1 sees only the index
of an arm, which carries no information here, so its regret shows what the features are worth.
"""


def lost(problem: str, name: str, runs: int, plays: int, seed: int) -> dict[str, Any]:
    """Regret of an algorithm over some runs, as a dict of the fields of a `RegretCurve`."""
    generator = torch.Generator().manual_seed(seed)
    if problem == "linear":
        return RegretCurve.of(_linear(name, runs, plays, generator))._asdict()
    means = torch.tensor(MEANS)
    if problem == "drawn":
        means = torch.rand(runs, DRAWN, generator=generator)
    bandit = ALGORITHMS[name](runs, means.shape[-1])
    curve = regret_curve(bandit, means, plays=plays, generator=generator, callback=stop_if_asked)
    return curve._asdict()


def _linear(name: str, runs: int, plays: int, generator: torch.Generator) -> torch.Tensor:
    """Regret (R, T) of an algorithm on arms whose features, like θ, lie on the unit sphere."""

    def unit(*shape: int) -> torch.Tensor:
        x = torch.randn(*shape, FEATURES, generator=generator).double()
        return x / x.norm(dim=-1, keepdim=True)

    def offered(generator: torch.Generator) -> torch.Tensor:
        stop_if_asked()
        return unit(runs, ARMS)

    theta, played = unit(runs), {"steps": plays, "generator": generator}
    if name in LINEAR:
        return linear_regret(LINEAR[name](runs), theta, offered, **played)
    # Means lie in [-1, 1], so hardly any reward exceeds a bound that is four std wider.
    bound = 1 + 4 * NOISE
    bandit = ALGORITHMS[name](runs, ARMS)
    return featureless_regret(bandit, theta, offered, noise=NOISE, bound=bound, **played)


def picture(curves: Curves, asked: Mapping[str, Problem], path: Path) -> None:
    """Regret against plays with 95 % intervals, a panel per problem, curves named at their ends."""
    figure, axes = plots.panels("What exploring costs: regret", 1, 3, (15, 5.0))
    names = [*ALGORITHMS, *LINEAR]
    palette = dict(zip(names, (*plots.COLOURS, *plots.COLOURS[:2]), strict=True))
    for ax, (problem, each) in zip(axes, curves.items(), strict=True):
        ends: dict[str, tuple[float, str]] = {}
        for name, curve in each.items():
            plots.draw_curve(ax, plots.Curve.means(*curve), color=palette[name], lw=2.2)
            ends[name] = (curve.mean[-1], palette[name])
        at = np.array(next(iter(each.values())).plays)
        theories = {
            "fixed": ("Lai–Robbins", lai_robbins(MEANS) * np.log(at)),
            "drawn": ("√(K T)", np.sqrt(DRAWN * at)),
        }
        if problem in theories:
            name, theory = theories[problem]
            ax.plot(at, theory, color=plots.INK, lw=1.6, ls=(0, (5, 3)))
            ends[name] = (theory[-1], plots.INK)
        ax.set(xscale="log", xlabel="plays T (log scale)", ylabel="mean regret")
        ax.set_xlim(1, at[-1])
        top = max(value for value, _ in ends.values())
        if problem == "linear":  # without features the regret is a hundred times as large
            ax.set(yscale="log", ylabel="mean regret (log scale)")
            ax.set_ylim(0.3, 1.4 * top)
            plots.plain_log(ax.yaxis)
        else:
            ax.set_ylim(0, 1.05 * top)
        plots.note(ax, f"{asked[problem].title}{NOTES[problem]}")
        _name_ends(ax, ends)
    plots.save(figure, path)


def _name_ends(ax: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Each curve's name and final value beside its end, from the top down, without overlap."""
    to_axes = ax.transData + ax.transAxes.inverted()
    heights = {name: to_axes.transform((1, value))[1] for name, (value, _) in ends.items()}
    at = math.inf
    for name in sorted(ends, key=lambda name: -heights[name]):
        value, colour = ends[name]
        at = min(heights[name], at - 0.052)
        ax.annotate(
            f"{name}  {value:.0f}", (1.04, at), xycoords="axes fraction", va="center",
            fontsize=9.5, color=colour, annotation_clip=False,
        )  # fmt: skip
