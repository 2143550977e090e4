"""Tree search against exact values: does it converge to V*, how fast, and are its choices optimal?

Kocsis and Szepesvári 2006, "Bandit based Monte-Carlo planning", prove for UCT that the mean at the
root converges to V* and the probability of a wrong choice to 0, if each simulation samples all
outcomes anew. Here the model gives an action's outcomes with their probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

from envs.tabular import FiniteMDP
from envs.worlds import chain, cliff_walk, frozen_lake, garnet
from experiments import plots
from experiments.plots.tree import draw
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl import statistics
from mbrl.tabular.tree_model import ScaledTreeModel, SearchErrors
from mbrl.training.checkpoint import written_whole
from mbrl.training.executor import Work, stop_if_asked
from planners.mcts import PUCT, UCT, Gumbel, Rule, Tree
from planners.mcts.export import most_visited, to_dot, to_json


class Problem(NamedTuple):
    """A world for each seed, and its description."""

    build: Callable[[np.random.Generator], FiniteMDP]
    about: str


PROBLEMS: Mapping[str, Problem] = {
    "chain": Problem(lambda rng: chain(slip=0.0, discount=0.8), "5 states, deterministic, γ 0.8"),
    "cliff walk": Problem(
        lambda rng: cliff_walk(discount=0.95), "48 states, deterministic, γ 0.95"
    ),
    "garnets": Problem(
        lambda rng: garnet(20, 2, 2, rng=rng, discount=0.5),
        "20 states, 2 actions, 2 outcomes each, γ 0.5, another for each seed",
    ),
    "near-sighted lake": Problem(
        lambda rng: frozen_lake(discount=0.8), "frozen lake, 16 states, slippery, γ 0.8"
    ),
    "frozen lake": Problem(
        lambda rng: frozen_lake(),
        "the same with γ 0.99, so that goals tens of steps away matter; each step has 3 outcomes",
    ),
}
RULES: Mapping[str, Rule] = {
    "UCT": UCT(),
    "PUCT": PUCT(dirichlet=0.0, temperature=0.0),
    "Gumbel": Gumbel(scale=0.0),
}
"""The published rules, but without noise at the root, which would change the choice."""
ROLLOUTS, ROUGH, MERGED, MAXIMA = LEAVES = (
    "random rollouts", "rough values", "rollouts, merged", "rollouts, merged, max",
)  # fmt: skip
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    MERGED: {"merge": True},
    MAXIMA: {"merge": True, "backup": "max"},
}
"""Options of the search, for the leaves that need any."""
EXACT = 1e-6  # smaller errors are float32's rounding
LEAST = 1e-4  # lower end of the axis of errors
NOISE = 0.1  # std of the error of a rough value, if values lie in a range of 1
STEPS = 200  # of a random rollout, at most
LEFT = 1e-4  # trees end at the depth where γ^depth is this
SLOW = -0.1  # orders of convergence above this are listed on the page
CHOSEN, MEAN, OPTIMAL = MEASURES = SearchErrors._fields


def trees(lab: Lab) -> Report:
    """Errors of tree search at the root and shares of optimal choices, by simulations."""
    counts = [2**power for power in (range(4, 8) if lab.fast else range(4, 15))]
    roots = 2
    found = lab.answers(
        {
            key: Work(measured, (*key, lab.seeds, roots, counts), ", ".join(key))
            for key in ((p, leaf, rule) for p in PROBLEMS for leaf in LEAVES for rule in RULES)
        }
    )
    arrays = {key: {m: np.array(answer[m]) for m in MEASURES} for key, answer in found.items()}
    stakes = {problem: at_stake(problem, lab.seeds, roots) for problem in PROBLEMS}
    blind = {problem: stake["by chance"] for problem, stake in stakes.items()}
    plots.save(error_figure(arrays, counts), lab.folder / "error.png")
    plots.save(choice_figure(arrays, counts, blind), lab.folder / "choice.png")
    draw_one(lab.folder)
    rows, stuck = [], []
    for (problem, leaf, rule), kinds in arrays.items():
        falls = {
            name: statistics.order(counts, kinds[name].mean(1).clip(EXACT))
            for name in (CHOSEN, MEAN)
        }
        last = {name: kinds[name][-1].mean() for name in MEASURES}
        rows.append(
            [
                problem, leaf, rule,
                *(x for name in (CHOSEN, MEAN) for x in _error_cells(last[name], falls[name])),
                f"{100 * last[OPTIMAL]:.0f} %",
            ]
        )  # fmt: skip
        if falls[CHOSEN] > SLOW and last[CHOSEN] > EXACT:
            stuck.append(f"- {problem}, {leaf}, {rule}: {last[CHOSEN]:.4f}, n^{falls[CHOSEN]:+.2f}")
    head = ["world", "leaves", "rule", "chosen", "order", "mean", "order", "optimal choices"]
    about = "\n".join(
        f"- {name}: {problem.about}; the best action that is not optimal loses "
        f"{stakes[name]['gap']:.3f} (median)"
        for name, problem in PROBLEMS.items()
    )
    text = f"""# Tree search against truth

{about}

Error |V - V*| after {counts[-1]} simulations, in units of the range between the best V* and the
least value of the random policy; mean over {lab.seeds} seeds of {roots} roots each. "Chosen" is the
Q of the chosen action, which is the most visited one (for Gumbel, the best of the most visited);
"mean" is the mean of all simulations at the root, exploring ones too. "Order" is the power of n
with which the error before it changes from {_fit_start(counts)} simulations on; a Monte Carlo mean
has -0.5.

UCT and PUCT give the actions that are not chosen an ever smaller share of the simulations, so both
values have the same limit, which the mean reaches later. Gumbel's halving gives them a constant
share, so only the value of the chosen action can converge to V*.

{labs.table(head, rows)}

![errors](error.png)
![choices](choice.png)
![a tree](tree.png)

A leaf's value is the return of one random rollout of at most {STEPS} steps, or V* plus an error of
std {NOISE}, fixed for each state. "Merged": nodes of one state share their subtree, and leaves are
valued by a random rollout. "Max": a node's value is that of its best action instead of the mean
over simulations; with all outcomes known that is Bellman's equation. Errors below {EXACT:g}, which
are float32's rounding, count as 0. Priors are uniform, without noise at the root; the rules have
the library's settings. Trees end where γ to the power of the depth is {LEFT:g}. All outcomes of an
action are added at once, and its value is their expectation.

The error of the chosen action's value falls more slowly than n^{SLOW:g} in:

{chr(10).join(stuck) or "- none."}
"""
    numbers: dict[str, Any] = {
        "settings": {
            "simulations": counts, "roots": roots, "noise": NOISE, "rollout steps": STEPS,
            "slow": SLOW,
        },
        "at stake": stakes,
        "found": {", ".join(key): answer for key, answer in found.items()},
    }  # fmt: skip
    return Report(numbers, text)


def _fit_start(counts: Sequence[int]) -> int:
    """The first count of the second half, from which on orders are fitted."""
    return counts[len(counts) // 2]


def _error_cells(error: float, fall: float) -> tuple[str, str]:
    """Table cells of an error and its order of convergence."""
    return (f"{error:.4f}", f"{fall:+.2f}") if error > EXACT else ("0", "exact")


def measured(
    problem: str, leaf: str, rule: str, seeds: int, roots: int, counts: Sequence[int]
) -> dict[str, list[list[float]]]:
    """Each of `MEASURES` of searches, (counts, seeds), means over the roots of a seed.

    "chosen" and "mean" are |V - V*| of the chosen action's value and of the mean at the root;
    "optimal" is the share of roots whose chosen action is one of the best. Each number of
    simulations is a search of its own.
    """
    model, start = laboratory(problem, leaf, seeds, roots)
    found: dict[str, list[list[float]]] = {name: [] for name in MEASURES}
    for count in counts:
        stop_if_asked()
        tree = searched(model, start, rule, count, **OPTIONS.get(leaf, {}))
        for name, value in model.errors(tree, start)._asdict().items():
            found[name].append(value.reshape(seeds, roots).mean(1).tolist())
    return found


def laboratory(
    problem: str, leaf: str, seeds: int, roots: int
) -> tuple[ScaledTreeModel, np.ndarray]:
    """The worlds of all seeds, and their roots (seeds · roots,), drawn from reachable states."""
    draws = [np.random.default_rng(seed) for seed in range(seeds)]
    worlds = [PROBLEMS[problem].build(rng) for rng in draws]
    start = [
        w * world.states + rng.choice(np.flatnonzero(world.enterable), roots)
        for w, (world, rng) in enumerate(zip(worlds, draws, strict=True))
    ]
    return modelled(worlds, leaf, draws[0].spawn(1)[0]), np.concatenate(start)


def modelled(worlds: Sequence[FiniteMDP], leaf: str, rng: np.random.Generator) -> ScaledTreeModel:
    """The model of some worlds with one kind of leaves."""
    return ScaledTreeModel(worlds, rollouts=leaf != ROUGH, noise=NOISE, depth=STEPS, rng=rng)


def searched(
    model: ScaledTreeModel, start: np.ndarray, rule: str, simulations: int, **options: Any
) -> Tree:
    """Search trees from states (B,); the number of simulations seeds the random numbers."""
    generator = torch.Generator().manual_seed(simulations)
    return model.search(
        start, RULES[rule], simulations=simulations, least=LEFT, generator=generator, **options
    )


Found = Mapping[tuple[str, str, str], Mapping[str, np.ndarray]]
"""By world, leaves and rule: each of `MEASURES` (counts, seeds)."""


def error_figure(found: Found, counts: Sequence[int]) -> Figure:
    """|V - V*| by simulations, of the chosen action with its 95 % band and of the mean, dashed."""
    title, ylabel = "Does tree search converge to V*?", "|V - V*|, V in a range of 1"
    styles = {"value of the chosen action": "-", "mean at the root": "--", "1/√n": ":"}
    figure = _by_simulations(found, counts, CHOSEN, title, ylabel, styles)
    lowest = min(float(kinds[k].mean(1).min()) for kinds in found.values() for k in (CHOSEN, MEAN))
    for ax, place in zip(figure.axes, PLACES, strict=True):
        for rule, colour in zip(RULES, plots.COLOURS, strict=False):
            ax.plot(counts, found[*place, rule][MEAN].mean(1), color=colour, lw=1.3, ls=(0, (4, 2)))
        ax.plot(counts, np.array(counts) ** -0.5, color=plots.GREY, ls=":", lw=1.6)
        ax.set(yscale="log", ylim=(0.7 * min(max(lowest, LEAST), counts[-1] ** -0.5), 1.0))
        ax.yaxis.set_major_locator(LogLocator())
        ax.yaxis.set_major_formatter(lambda error, _: f"{error:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    return figure


def choice_figure(found: Found, counts: Sequence[int], blind: Mapping[str, float]) -> Figure:
    """Shares of roots whose chosen action is optimal, with their 95 % bands, by simulations."""
    title, ylabel = "Does tree search choose an optimal action?", "roots with an optimal choice"
    figure = _by_simulations(found, counts, OPTIMAL, title, ylabel, {"chosen by chance": ":"})
    for ax, (problem, _) in zip(figure.axes, PLACES, strict=True):
        ax.axhline(blind[problem], color=plots.GREY, ls=":", lw=1.6)
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    return figure


def at_stake(problem: str, seeds: int, roots: int) -> dict[str, float]:
    """How much the choice at the roots matters.

    "by chance" is the share of actions that are optimal, a mean over roots; "gap" is the loss of
    the best action that is not optimal, a median over roots that have one.
    """
    model, start = laboratory(problem, ROUGH, seeds, roots)
    share, gaps = model.stakes(start)
    return {"by chance": float(share.mean()), "gap": float(np.median(gaps[gaps < np.inf]))}


PLACES = [(problem, leaf) for leaf in LEAVES for problem in PROBLEMS]
"""Panels of the figures: a column for each world and a row for each kind of leaves."""


def _by_simulations(
    found: Found,
    counts: Sequence[int],
    measure: str,
    title: str,
    ylabel: str,
    styles: Mapping[str, str],
) -> Figure:
    """A measure's mean over seeds and its 95 % interval for each rule, a panel for each place."""
    figure = plots.curves(
        {
            ", ".join(place): {rule: _curve(counts, found[*place, rule][measure]) for rule in RULES}
            for place in PLACES
        },
        title=title,
        xlabel="simulations",
        ylabel=ylabel,
        columns=len(PROBLEMS),
        size=(15, 11.5),
        styles=styles,
    )
    for ax in figure.axes:
        ax.set_xscale("log", base=2)
        ax.set_xticks(counts[::2], [f"{n}" if n < 1024 else f"{n // 1024}k" for n in counts[::2]])
    return figure


def _curve(counts: Sequence[int], scores: np.ndarray) -> plots.Curve:
    """The mean over seeds of scores (counts, seeds) and its 95 % interval."""
    rng = np.random.default_rng(0)
    ends = [
        statistics.bootstrap_interval(each, np.mean, rng=rng, resamples=1000) for each in scores
    ]
    return plots.Curve(counts, *zip(*ends, strict=True))


def draw_one(folder: Path) -> None:
    """Write a tree of the lake without slipping, near the goal: tree.png, .json and .dot."""
    rng = np.random.default_rng(0)
    model = modelled([frozen_lake(slippery=False)], ROLLOUTS, rng)
    tree = searched(model, np.array([9]), "UCT", 200)
    nodes, names = most_visited(tree, nodes=32), ("left", "down", "right", "up")
    title = "UCT on the frozen lake, without slipping, three steps from the goal"
    plots.save(draw(nodes, actions=names, title=title), folder / "tree.png")
    texts = {"tree.json": to_json(nodes), "tree.dot": to_dot(nodes, actions=names)}
    for name, text in texts.items():
        with written_whole(folder / name) as file:
            file.write_text(text)
