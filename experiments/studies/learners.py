"""Tabular learners against truth: how near to V* does each come on every small world, and when?

Sutton and Barto 2018, "Reinforcement learning", chapters 5 to 7 and 12. Beside them stands what as
many steps allow: a model counted from them and solved exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator
from scipy import sparse

from envs import worlds
from envs.tabular import FiniteMDP
from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl.dynamics.finite import Counts, FiniteModel
from mbrl.tabular import (
    TabularConfig,
    TabularLearner,
    policy_iteration,
    run_known,
    value_iteration,
)
from mbrl.training.executor import Work, stop_if_asked

DISCOUNT = 0.9
WORLDS: Mapping[str, Callable[[], FiniteMDP]] = {
    "chain": lambda: worlds.chain(slip=0.0, discount=DISCOUNT),
    "cliff walk": lambda: worlds.cliff_walk(discount=DISCOUNT),
    "frozen lake": lambda: worlds.frozen_lake(slippery=False, discount=DISCOUNT),
    "Dyna maze": lambda: worlds.dyna_maze(discount=DISCOUNT),
    "blocking maze": lambda: worlds.blocking_maze(discount=DISCOUNT),
    "shortcut maze": lambda: worlds.shortcut_maze(discount=DISCOUNT),
    "deep sea": lambda: worlds.deep_sea(5, discount=DISCOUNT),
    "windy grid": lambda: worlds.windy_grid(discount=DISCOUNT),
    "open grid": lambda: worlds.open_grid(10, discount=DISCOUNT),
    "chain, slips": lambda: worlds.chain(discount=DISCOUNT),
    "cliff walk, slippery": lambda: worlds.cliff_walk(slippery=True, discount=DISCOUNT),
    "frozen lake, slippery": lambda: worlds.frozen_lake(discount=DISCOUNT),
    "deep sea, windy": lambda: worlds.deep_sea(5, windy=True, discount=DISCOUNT),
    "four rooms": lambda: worlds.four_rooms(discount=DISCOUNT),
    "windy grid, gusts": lambda: worlds.windy_grid(stochastic=True, discount=DISCOUNT),
    "wet chicken": lambda: worlds.wet_chicken(discount=DISCOUNT),
    "garnet": lambda: worlds.garnet(10, 2, 3, rng=np.random.default_rng(0), discount=DISCOUNT),
}
"""Those without chance first."""


class Kind(NamedTuple):
    """A learner, and how its line is drawn."""

    family: str
    given: Mapping[str, Any]


ONE, SEVERAL, WHOLE, TRACES = FAMILIES = ("one step", "three steps", "Monte Carlo", "traces")
KINDS: Mapping[str, Kind] = {
    "Q-learning": Kind(ONE, {"target": "q"}),
    "double Q": Kind(ONE, {"target": "double"}),
    "expected Sarsa": Kind(ONE, {"target": "expected"}),
    "Sarsa": Kind(ONE, {"target": "sarsa"}),
    "3-step Sarsa": Kind(SEVERAL, {"target": "sarsa", "steps": 3}),
    "3-step Q": Kind(SEVERAL, {"target": "q", "steps": 3}),
    "3-step tree": Kind(SEVERAL, {"target": "tree", "steps": 3}),
    "MC, every visit": Kind(WHOLE, {"target": "sarsa", "steps": None}),
    "MC, first visit": Kind(WHOLE, {"target": "sarsa", "steps": None, "first_visit": True}),
    "Sarsa(λ)": Kind(TRACES, {"target": "sarsa", "trace_decay": 0.5, "traces": "replacing"}),
    "true online": Kind(TRACES, {"target": "sarsa", "trace_decay": 0.5, "traces": "dutch"}),
    "Q(λ)": Kind(TRACES, {"target": "q", "trace_decay": 0.5, "traces": "replacing"}),
}

NEAR = 1e-3  # of V*'s range: what is asked of a learner
ACTS = 0.3  # ε of those whose target it does not move
STEP = 0.2  # α of Sarsa and Monte Carlo where there is no chance, as exploring moves their targets
TURNS = 20  # from one count of steps to the next
COUNTED = 10  # models

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
"""Steps that Q-learning may need to come so near, where there is chance; others take ten million at
most, and without chance all take a million."""

Curve = list[tuple[int, float]]
"""Steps and error, in units of the range of V*."""


class Found(NamedTuple):
    """Of one world."""

    span: float  # max V* - min V*
    errors: dict[str, Curve]  # by kind
    counted: Curve
    solved: tuple[float, float]  # error and bound of value iteration, in units of the range


def learners(lab: Lab) -> Report:
    """Errors of tabular learners on every small world by steps taken, beside counted models'."""
    names = ["frozen lake", "frozen lake, slippery"] if lab.fast else [*WORLDS]
    counts = {(name, kind): taken(name, kind, lab.fast) for name in names for kind in KINDS}
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
            for kind in KINDS
        }
        at = counts[name, "Q-learning"]
        floor = _curve(at, [counted(mdp, at, seed) for seed in range(COUNTED)], span)
        solved = value_iteration(mdp, tolerance=1e-12)
        gap = float(np.abs(solved.values - best).max())
        found[name] = Found(span, errors, floor, (gap / span, solved.bound / span))
    picture(found, lab.folder / "learners.png")
    numbers: dict[str, Any] = {
        "settings": {
            "discount": DISCOUNT, "near": NEAR, "acts": ACTS, "step": STEP, "turns": TURNS,
            "counted": COUNTED, "kinds": {kind: dict(each.given) for kind, each in KINDS.items()},
        },
        "found": {name: each._asdict() for name, each in found.items()},
    }  # fmt: skip
    return Report(numbers, page(found, lab.seeds))


def _curve(counts: Sequence[int], runs: Sequence[Sequence[float]], span: float) -> Curve:
    return list(zip(counts, (np.mean(runs, 0) / span).tolist(), strict=True))


def by_chance(mdp: FiniteMDP) -> bool:
    """Whether something may be followed by one state or another."""
    return bool(np.diff(mdp.transitions.indptr).max() > 1)


def taken(name: str, kind: str, fast: bool) -> list[int]:
    """Steps after which a learner is asked."""
    if fast:
        return [10**3, 10**4]
    last = LONGEST.get(name, 10**6)
    if kind != "Q-learning":
        last = min(last, 10**7)
    return [n for n in (10**4, 10**5, 10**6, 10**7, 3 * 10**7, 10**8) if n <= last]


def settings(mdp: FiniteMDP, kind: str) -> TabularConfig:
    """What comes nearest, of what converges."""
    given: dict[str, Any] = dict(KINDS[kind].given)
    if by_chance(mdp):
        given |= {"step_size": 1.0, "step_decay": 0.6, "averaging": True, "epsilon": 1.0}
    else:
        given |= {"step_size": STEP if given["target"] == "sarsa" else 1.0, "epsilon": 0.01}
    if given["target"] in ("q", "double"):
        given |= {"epsilon": ACTS}
    else:
        given |= {"epsilon_decay": 1.0}
    return TabularConfig(discount=mdp.discount, **given)


def measured(name: str, kind: str, counts: Sequence[int], seed: int) -> list[float]:
    """max |V - V*| of a learner after so many steps.

    It acts for itself, from states drawn evenly. Where ε is in the target, and so has to vanish,
    every other turn is of single steps from pairs drawn evenly instead: exploring starts.
    """
    mdp = WORLDS[name]()
    best, config = mdp.optimum().values, settings(mdp, kind)
    learner = TabularLearner(mdp.states, mdp.actions, config)
    even = np.full((mdp.states, mdp.actions), 1 / mdp.actions)
    single = KINDS[kind].family == ONE and config.target != "sarsa"
    own: dict[str, Any] = {"limit": 50 if config.steps is None else 1 if single else 5}
    starts: dict[str, Any] = {"limit": 1, "policy": even} if config.epsilon_decay else own
    generator = torch.Generator().manual_seed(seed)
    found = []
    for before, after in pairwise([0, *counts]):
        for turn in range(TURNS):
            stop_if_asked()
            how = own if turn % 2 else starts
            steps = (after - before) // TURNS
            run_known(mdp, learner, steps=steps, generator=generator, **how)
        found.append(float(np.abs(learner.values - best)[~mdp.terminal].max()))
    return found


def counted(mdp: FiniteMDP, counts: Sequence[int], seed: int) -> list[float]:
    """max |V - V*| of a model counted from so many steps, drawn evenly from all pairs, and solved.

    Rewards are known where a pair was tried.
    """
    rng, best = np.random.default_rng(seed), mdp.optimum().values
    rows, live = mdp.transitions, np.flatnonzero(np.repeat(~mdp.terminal, mdp.actions))
    visits, seen = np.zeros(mdp.rewards.size, dtype=np.int64), np.zeros(rows.nnz)
    found = []
    for before, after in pairwise([0, *counts]):
        fresh = rng.multinomial(after - before, np.full(len(live), 1 / len(live)))
        visits[live] += fresh
        for row, n in zip(live, fresh, strict=True):
            own = slice(rows.indptr[row], rows.indptr[row + 1])
            seen[own] += rng.multinomial(n, rows.data[own] / rows.data[own].sum())
        transitions = sparse.csr_array((seen, rows.indices, rows.indptr), shape=rows.shape)
        rewards = mdp.rewards * visits.reshape(mdp.rewards.shape)
        model = FiniteModel.likeliest(Counts(transitions, rewards, mdp.terminal))
        guess = FiniteMDP(model.kernels[0], model.rewards[0], mdp.discount, mdp.start, mdp.terminal)
        found.append(float(np.abs(policy_iteration(guess).values - best).max()))
    return found


def page(found: Mapping[str, Found], seeds: int) -> str:
    """The study in words."""
    rows = []
    for name, each in found.items():
        count = each.errors["Sarsa"][-1][0]
        ends = [dict(curve)[count] for curve in each.errors.values()]
        rows.append([name, f"{count:.0e}", *map(shown, ends), shown(dict(each.counted)[count])])
    head = ["world", "steps", *KINDS, "counted model"]
    solved = np.array([each.solved for each in found.values()]).max(0)
    return f"""# Tabular learners against truth

max |V - V*| over states, in units of the range of V*; {seeds} seed{"s" if seeds > 1 else ""} of
each, γ {DISCOUNT}. In bold what is within {NEAR:g}. "Counted model" is what as many steps allow
who draws them evenly from all pairs: frequencies, solved exactly; mean of {COUNTED}.

{labs.table(head, rows)}

![errors](learners.png)

Where there is chance an error falls as 1/√n, whatever the method: a mean of n draws of std σ is off
by σ/√n. So it takes longer there, for Q-learning in brackets beside counted models:

{longest(found)}

All kinds after as many steps as in the first table, in ratios to the counted model's error:

{by_kind(found)}

Q-learning, double Q, 3-step Q and Q(λ) act ε-greedily, ε {ACTS}, from states drawn evenly; who
draws the best actions more than others may come nearer than the counted model does. The targets of
the others are of their own ε-greedy policy, so that V* is their limit only where ε vanishes: ε is
1 / visits of the state, a hundredth of that where there is no chance. For every pair to be tried
all the same, every other turn is of single steps from pairs drawn evenly: exploring starts of
episodes that are cut off, and bootstrapped, at once (by Monte Carlo too). Without them ε has to
vanish slowly, as visits^-0.5, and its bias is what remains. Episodes have one step, five for Sarsa,
several steps and traces, 50 for Monte Carlo.

Where there is chance, α is visits^-0.6 and values are told as means over time. Where there is none,
α is 1, but {STEP:g} where the next action, which may explore, is in the target (Sarsa, Monte
Carlo). What is left of an error there is ε's: in the targets, most on the cliff, where exploring
costs 100, or of the last step that explored.

Value iteration, which knows the world, is off by {solved[0]:.0e} and guarantees {solved[1]:.0e}.
"""


def longest(found: Mapping[str, Found]) -> str:
    """A table of Q-learning's errors by steps, where there is chance."""
    chance = {name: each for name, each in found.items() if each.counted[-1][1] > EXACT}
    counts = sorted({n for each in chance.values() for n, _ in each.counted})
    rows = []
    for name, each in chance.items():
        errors, floors = dict(each.errors["Q-learning"]), dict(each.counted)
        cells = [f"{shown(errors[n])} ({floors[n]:.1e})" if n in errors else "" for n in counts]
        rows.append([name, f"{each.span:.3g}", *cells, f"{each.span * errors[max(errors)]:.1e}"])
    return labs.table(["world", "range", *(f"{n:.0e}" for n in counts), "absolute, last"], rows)


def by_kind(found: Mapping[str, Found]) -> str:
    """A table of kinds: in how many worlds they are near, and how far off they are at worst."""
    rows = []
    for kind in KINDS:
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
    head = ["kind", "near without chance", "farthest", "ratio with chance, median", "largest"]
    return labs.table(head, rows)


EXACT = 1e-9
"""Errors below are rounding."""


def shown(error: float) -> str:
    """In bold where it is near."""
    text = "0" if error < EXACT else f"{error:.1e}"
    return f"**{text}**" if error <= NEAR else text


COLOURS: dict[str, str] = dict(zip(FAMILIES, plots.COLOURS, strict=False))
LOWEST = 1e-5
"""Where a picture's axis begins."""


def picture(found: Mapping[str, Found], path: Path) -> None:
    """Errors by steps, a panel a world and a line a kind, coloured by family."""
    columns = 6 if len(found) > 5 else len(found) + 1
    lines = -(-(len(found) + 1) // columns)
    title = "Without chance learners come to V*; with it, as near as so many draws allow"
    figure, axes = plots.panels(title, lines, columns, (2.7 * columns, 2.6 * lines + 0.6))
    for ax, (name, each) in zip(axes, found.items(), strict=False):
        for kind, curve in each.errors.items():
            steps, errors = zip(*curve, strict=True)
            first = kind == "Q-learning"
            ax.plot(
                steps, np.maximum(errors, LOWEST), color=COLOURS[KINDS[kind].family],
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
