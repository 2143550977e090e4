"""Errors of tabular learners against V* by number of steps, on every small world.

Sutton and Barto 2018, "Reinforcement learning", chapters 5 to 7 and 12. The learners are compared
with models whose transitions are counted in as many steps and which are then solved exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from envs import worlds
from envs.tabular import FiniteMDP
from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl.tabular import TabularConfig, TabularLearner, value_iteration
from mbrl.tabular.config import ALGORITHMS, convergent
from mbrl.tabular.counted import counted_errors
from mbrl.tabular.known import errors_by_steps
from mbrl.training.executor import Work, stop_if_asked

DISCOUNT = 0.9
WORLDS = worlds.small(discount=DISCOUNT)
ONE, SEVERAL, WHOLE, TRACES = FAMILIES = ("one step", "three steps", "Monte Carlo", "traces")
NEAR = 1e-3  # errors up to this share of the range of V* are printed in bold
ACTS = 0.3  # ε of learners whose targets do not depend on it
STEP = (
    0.2  # α of Sarsa and Monte Carlo in deterministic worlds, where exploring changes the targets
)
TURNS = 20  # turns of acting between two measurements
COUNTED = 10  # number of counted models
EXACT = 1e-9  # smaller errors are rounding errors

LONGEST: Mapping[str, int] = {
    "cliff walk, slippery": 10**7,
    "deep sea, windy": 10**7,
    "chain, slips": 3 * 10**7,
    "frozen lake, slippery": 3 * 10**7,
    "garnet": 3 * 10**7,
    "four rooms": 10**8,
    "windy grid, gusts": 10**8,
    "wet chicken": 10**8,
}
"""Steps of Q-learning in stochastic worlds. There the other learners take ten million at most; in
deterministic worlds all learners take a million."""

Curve = list[tuple[int, float]]
"""Steps and error, in units of the range of V*."""


class Found(NamedTuple):
    """The errors in one world."""

    span: float  # max V* - min V*
    errors: dict[str, Curve]  # by kind
    counted: Curve
    solved: tuple[float, float]  # error and bound of value iteration, in units of the range


def learners(lab: Lab) -> Report:
    """Errors of tabular learners and of counted models on every small world, by number of steps."""
    names = ["frozen lake", "frozen lake, slippery"] if lab.fast else [*WORLDS]
    counts = {(name, kind): taken(name, kind, lab.fast) for name in names for kind in ALGORITHMS}
    order = sorted(counts, key=lambda key: -counts[key][-1])  # the longest first
    answers = lab.answers(
        {
            (*key, seed): Work(measured, (*key, counts[key], seed), f"{', '.join(key)}, {seed}")
            for key in order
            for seed in range(lab.seeds)
        }
    )
    found: dict[str, Found] = {}
    for name in names:
        mdp = WORLDS[name]()
        best = mdp.optimum().values
        span = float(np.ptp(best[~mdp.terminal]))
        errors = {
            kind: _curve(
                counts[name, kind], [answers[name, kind, seed] for seed in range(lab.seeds)], span
            )
            for kind in ALGORITHMS
        }
        at = counts[name, "Q-learning"]
        floor = [
            counted_errors(mdp, best, at, rng=np.random.default_rng(seed))
            for seed in range(COUNTED)
        ]
        solved = value_iteration(mdp, tolerance=1e-12)
        gap = float(np.abs(solved.values - best).max())
        found[name] = Found(
            span, errors, _curve(at, floor, span), (gap / span, solved.bound / span)
        )
    picture(found, lab.folder / "learners.png")
    numbers: dict[str, Any] = {
        "settings": {
            "discount": DISCOUNT, "near": NEAR, "acts": ACTS, "step": STEP, "turns": TURNS,
            "counted": COUNTED, "kinds": {kind: dict(given) for kind, given in ALGORITHMS.items()},
        },
        "found": {name: each._asdict() for name, each in found.items()},
    }  # fmt: skip
    return Report(numbers, page(found, lab.seeds))


def _curve(counts: Sequence[int], runs: Sequence[Sequence[float]], span: float) -> Curve:
    return list(zip(counts, (np.mean(runs, 0) / span).tolist(), strict=True))


def taken(name: str, kind: str, fast: bool) -> list[int]:
    """Steps after which the errors of a learner are measured."""
    if fast:
        return [10**3, 10**4]
    last = LONGEST.get(name, 10**6)
    if kind != "Q-learning":
        last = min(last, 10**7)
    return [n for n in (10**4, 10**5, 10**6, 10**7, 3 * 10**7, 10**8) if n <= last]


def settings(mdp: FiniteMDP, kind: str) -> TabularConfig:
    """A learner's settings in a world."""
    return convergent(kind, mdp, step_size=STEP, epsilon=ACTS)


def family(kind: str) -> str:
    """The family of a learner, by which its line is coloured."""
    given = ALGORITHMS[kind]
    if "trace_decay" in given:
        return TRACES
    steps = given.get("n_step", 1)
    return WHOLE if steps is None else ONE if steps == 1 else SEVERAL


def measured(name: str, kind: str, counts: Sequence[int], seed: int) -> list[float]:
    """max |V - V*| of a learner after each count of steps.

    It acts by its own policy, from uniformly drawn states. If its target depends on ε, which then
    has to vanish, every other turn consists of exploring starts: single steps from uniformly drawn
    pairs of state and action.
    """
    mdp = WORLDS[name]()
    config = settings(mdp, kind)
    learner = TabularLearner(mdp.states, mdp.actions, config)
    single = family(kind) == ONE and config.target != "sarsa"
    ways: list[dict[str, Any]] = [{"limit": 50 if config.n_step is None else 1 if single else 5}]
    if config.epsilon_decay:
        ways.insert(0, {"limit": 1, "policy": mdp.uniform_policy})
    return errors_by_steps(
        mdp, learner, mdp.optimum().values, counts, ways=ways, turns=TURNS,
        generator=torch.Generator().manual_seed(seed), callback=stop_if_asked,
    )  # fmt: skip


def page(found: Mapping[str, Found], seeds: int) -> str:
    """The study's page, in Markdown."""
    rows = []
    for name, each in found.items():
        count = each.errors["Sarsa"][-1][0]
        ends = [dict(curve)[count] for curve in each.errors.values()]
        rows.append([name, f"{count:.0e}", *map(shown, ends), shown(dict(each.counted)[count])])
    head = ["world", "steps", *ALGORITHMS, "counted model"]
    solved = np.array([each.solved for each in found.values()]).max(0)
    return f"""# Tabular learners against truth

max |V - V*| over states, in units of the range of V*; {seeds} seed{"s" if seeds > 1 else ""} of
each, γ {DISCOUNT}. Errors up to {NEAR:g} are in bold. "Counted model": transition frequencies in as
many steps from uniformly drawn pairs of state and action, solved exactly; mean of {COUNTED} models.

{labs.table(head, rows)}

![errors](learners.png)

In stochastic worlds an error falls as 1/√n with any method, because a mean of n draws of std σ has
the standard error σ/√n. There Q-learning was run for longer; in brackets the counted models:

{longest(found)}

All kinds after as many steps as in the first table; in stochastic worlds as ratios to the
error of the counted model:

{by_kind(found)}

Q-learning, double Q, 3-step Q and Q(λ) act ε-greedily with ε {ACTS}, from uniformly drawn states.
They can come nearer to V* than the counted model, as they take the best actions more often. The
targets of the other learners follow their own ε-greedy policy, so they converge to V* only if ε
vanishes: ε is 1 / visits of the state, and a hundredth of that in deterministic worlds. So that
every pair is still tried, every other turn consists of exploring starts: single steps from
uniformly drawn pairs, after which the episode is truncated and bootstrapped (by Monte Carlo too).
Without them ε would have to vanish slowly, as visits^-0.5, and most of the error would be the bias
of that ε. Episodes have one step; five for Sarsa, several steps and traces; 50 for Monte Carlo.

In stochastic worlds α is visits^-0.6 and the learner's values are means over time. In deterministic
worlds α is 1, or {STEP:g} where the target holds the next action, which may explore (Sarsa, Monte
Carlo). What remains of the error there comes from ε in the targets, most on the cliff walk, where
exploring costs 100, or from the last step that explored.

Value iteration, which knows the world, is off by {solved[0]:.0e} and guarantees {solved[1]:.0e}.
"""


def longest(found: Mapping[str, Found]) -> str:
    """A table of Q-learning's errors by steps in stochastic worlds."""
    chance = {name: each for name, each in found.items() if each.counted[-1][1] > EXACT}
    counts = sorted({n for each in chance.values() for n, _ in each.counted})
    rows = []
    for name, each in chance.items():
        errors, floors = dict(each.errors["Q-learning"]), dict(each.counted)
        cells = [f"{shown(errors[n])} ({floors[n]:.1e})" if n in errors else "" for n in counts]
        rows.append([name, f"{each.span:.3g}", *cells, f"{each.span * errors[max(errors)]:.1e}"])
    return labs.table(["world", "range", *(f"{n:.0e}" for n in counts), "absolute, last"], rows)


def by_kind(found: Mapping[str, Found]) -> str:
    """A table by kind: in how many worlds the error is small, and the largest errors."""
    rows = []
    for kind in ALGORITHMS:
        sure, ratios = {}, {}
        for name, each in found.items():
            count, error = each.errors["Sarsa"][-1][0], dict(each.errors[kind])
            floor = dict(each.counted)[count]
            (sure if floor < EXACT else ratios)[name] = error[count] / max(floor, EXACT)
        near = sum(error * EXACT <= NEAR for error in sure.values())
        far, worst = (max(each, key=lambda name: each[name]) for each in (sure, ratios))
        rows.append(
            [
                kind, f"{near} of {len(sure)}", f"{shown(sure[far] * EXACT)} ({far})",
                f"{np.median([*ratios.values()]):.1f}", f"{ratios[worst]:.1f} ({worst})",
            ]
        )  # fmt: skip
    head = ["kind", "small errors, deterministic", "largest", "median ratio, stochastic", "largest"]
    return labs.table(head, rows)


def shown(error: float) -> str:
    """An error as text, in bold if it is small."""
    text = "0" if error < EXACT else f"{error:.1e}"
    return f"**{text}**" if error <= NEAR else text


COLOURS: dict[str, str] = dict(zip(FAMILIES, plots.COLOURS, strict=False))
LOWEST = 1e-5
"""Lower end of the axis of errors."""


def picture(found: Mapping[str, Found], path: Path) -> None:
    """Errors by steps, a panel for each world and a line for each kind, coloured by family."""
    columns = 6 if len(found) > 5 else len(found) + 1
    lines = -(-(len(found) + 1) // columns)
    title = "Deterministic worlds: errors go to 0. Stochastic worlds: sampling errors remain"
    figure, axes = plots.panels(title, lines, columns, (2.7 * columns, 2.6 * lines + 0.6))
    for ax, (name, each) in zip(axes, found.items(), strict=False):
        for kind, curve in each.errors.items():
            steps, errors = zip(*curve, strict=True)
            first = kind == "Q-learning"
            ax.plot(
                steps, np.maximum(errors, LOWEST), color=COLOURS[family(kind)],
                lw=2.6 if first else 1.1, alpha=1.0 if first else 0.8, zorder=3 if first else 2,
            )  # fmt: skip
        if each.counted[-1][1] > EXACT:
            ax.plot(*zip(*each.counted, strict=True), color=plots.INK, lw=1.5, ls=(0, (4, 2)))
        ax.axhline(NEAR, color=plots.GREY, lw=1.4, ls=":")
        ax.set(xscale="log", yscale="log", ylim=(0.8 * LOWEST, 5.0))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(numticks=9))
            axis.set_minor_locator(NullLocator())
        plots.note(ax, name)
    for ax in axes[::columns]:
        ax.set_ylabel("error / range of V*")
    for ax in axes[max(0, len(found) - columns) : len(found)]:
        ax.set_xlabel("steps")
    _legend(axes[len(found)])
    for ax in axes[len(found) + 1 :]:
        ax.remove()
    plots.save(figure, path)


def _legend(ax: Axes) -> None:
    ax.axis("off")
    ax.plot([], color=COLOURS[ONE], lw=2.6, label="Q-learning")
    others = {ONE: "others of one step", SEVERAL: "three steps"}
    for family in FAMILIES:
        ax.plot([], color=COLOURS[family], lw=1.1, label=others.get(family, family))
    ax.plot([], color=plots.INK, lw=1.5, ls=(0, (4, 2)), label="counted model, solved")
    ax.plot([], color=plots.GREY, lw=1.4, ls=":", label="1/1000")
    ax.plot([], lw=0, label="on the axis: below 10⁻⁵")
    ax.legend(loc="center", frameon=False, fontsize=9.5)
