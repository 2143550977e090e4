"""Tree search against truth: does what it says of a root come to V*, how fast, does it choose well?

Kocsis and Szepesvári 2006, "Bandit based Monte-Carlo planning", prove of UCT that the mean at the
root comes to V* and that the chance of a wrong choice goes to 0, where each simulation draws anew
all that is random. Here the model gives an action's outcomes with their chances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter
from torch import Tensor

from envs.tabular import FiniteMDP
from envs.worlds import chain, cliff_walk, frozen_lake, garnet
from experiments import plots
from experiments.plots.tree import draw, most_visited, to_dot, to_json
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl import statistics
from mbrl.training import executor
from mbrl.training.checkpoint import written_whole
from mbrl.training.executor import Work

if TYPE_CHECKING:  # numba, which is only imported where a tree is searched
    from planners.mcts import Evaluation, Rule, Tree


class Problem(NamedTuple):
    """A world for each seed, and what there is to say of it."""

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
        "the same, γ 0.99: the goal is worth a walk of tens of steps, each with 3 outcomes",
    ),
}
RULES = ("UCT", "PUCT", "Gumbel")
ROLLOUTS, ROUGH, MERGED, MAXIMA = LEAVES = (
    "random rollouts", "rough values", "rollouts, merged", "rollouts, merged, max",
)  # fmt: skip
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    MERGED: {"merge": True},
    MAXIMA: {"merge": True, "backup": "max"},
}
"""Of the search; none where there is nothing."""
EXACT = 1e-6  # an error of less is float32's
LEAST = 1e-4  # of the errors that are drawn
NOISE = 0.1  # std of the error of a rough value, where values lie in a range of 1
STEPS = 200  # of a random rollout, at most
FAR = 1e-4  # no tree is deeper than where this much is left by discounting
CHOSEN, MEAN, OPTIMAL = MEASURES = ("chosen", "mean", "optimal")


def trees(lab: Lab) -> Report:
    """Errors of tree search at the root, and shares of optimal choices, by simulations."""
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
        falls = {name: slope(counts, kinds[name].mean(1)) for name in (CHOSEN, MEAN)}
        last = {name: kinds[name][-1].mean() for name in MEASURES}
        rows.append(
            [
                problem, leaf, rule,
                *(x for name in (CHOSEN, MEAN) for x in _in_words(last[name], falls[name])),
                f"{100 * last[OPTIMAL]:.0f} %",
            ]
        )  # fmt: skip
        if falls[CHOSEN] > SLOW and last[CHOSEN] > EXACT:
            stuck.append(f"- {problem}, {leaf}, {rule}: {last[CHOSEN]:.4f}, n^{falls[CHOSEN]:+.2f}")
    head = ["world", "leaves", "rule", "chosen", "order", "mean", "order", "optimal choices"]
    about = "\n".join(
        f"- {name}: {problem.about}; the next best action loses {stakes[name]['gap']:.3f} (median)"
        for name, problem in PROBLEMS.items()
    )
    text = f"""# Tree search against truth

{about}

Error |V - V*| after {counts[-1]} simulations, in units of the range between the best V* and the
least value of the random policy; mean over {lab.seeds} seeds of {roots} roots each. "Chosen" is Q
of the action that is chosen, the most visited (Gumbel's is the best of the most visited); "mean" is
that of all simulations at the root, exploring ones too. The orders are the powers of n with which
they change from {_from(counts)} simulations on: -0.5 is that of a Monte Carlo mean.

UCT and PUCT spend an ever smaller share on other actions, so that both values have one limit, the
mean behind. Gumbel's halving spends shares of the root's simulations that do not shrink: only the
value of what it chooses can come to V*.

{labs.table(head, rows)}

![errors](error.png)
![choices](choice.png)
![a tree](tree.png)

Leaves are worth the return of one random rollout of {STEPS} steps at most, or V* and an error of
std {NOISE} that each state keeps. "Merged" are nodes of one state that share what follows, their
leaves worth a random rollout; "max" has a node be worth its best action, not the mean of what was
tried there, which with all outcomes known is Bellman's equation: then an error of 0 is one of less
than {EXACT:g}, which is float32's. Priors are uniform, without noise at the root; the rules'
settings are the library's. A tree is no deeper than where γ leaves {FAR:g}. Where chance
has a hand, all outcomes of an action are added at once, and it is worth their expectation.

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


SLOW = -0.1
"""An order of convergence that the page calls slow."""


def _from(counts: Sequence[int]) -> int:
    """Where the second half of the counts begins, by powers."""
    return counts[len(counts) // 2]


def slope(counts: Sequence[int], errors: np.ndarray) -> float:
    """The power of n with which errors (counts,) change over the second half."""
    half = len(counts) // 2
    return float(np.polyfit(np.log(counts[half:]), np.log(errors[half:].clip(EXACT)), 1)[0])


def _in_words(error: float, fall: float) -> tuple[str, str]:
    """An error and the power with which it falls."""
    return (f"{error:.4f}", f"{fall:+.2f}") if error > EXACT else ("0", "exact")


def measured(
    problem: str, leaf: str, rule: str, seeds: int, roots: int, counts: Sequence[int]
) -> dict[str, list[list[float]]]:
    """Of searches from some roots a seed: each of `MEASURES` (counts, seeds), means over roots.

    "chosen" and "mean" are |V - V*| of the chosen action's value and of the mean at the root;
    "optimal" is the share of roots whose chosen action is one of the best. Each number of
    simulations is a search of its own.
    """
    model, start = laboratory(problem, leaf, seeds, roots)
    truth = model.values[start]
    found: dict[str, list[list[float]]] = {name: [] for name in MEASURES}
    for count in counts:
        if executor.stopping():
            raise executor.Stopped
        tree = searched(model, start, rule, count, **OPTIONS.get(leaf, {}))
        action = tree.action.long()
        chosen = tree.children_values().gather(1, action[:, None])[:, 0].numpy()
        errors = {
            CHOSEN: np.abs(chosen - truth),
            MEAN: np.abs(tree.value.numpy() - truth),
            OPTIMAL: model.action_values[start, action.numpy()] >= truth - 1e-9,
        }
        for name, value in errors.items():
            found[name].append(value.reshape(seeds, roots).mean(1).tolist())
    return found


def laboratory(problem: str, leaf: str, seeds: int, roots: int) -> tuple[Model, np.ndarray]:
    """The worlds of all seeds, and their roots (seeds · roots,), drawn from where one can be."""
    draws = [np.random.default_rng(seed) for seed in range(seeds)]
    model = Model([PROBLEMS[problem].build(rng) for rng in draws], leaf, rng=draws[0].spawn(1)[0])
    start = [
        w * world.states + rng.choice(_visited(world), roots)
        for w, (world, rng) in enumerate(zip(model.worlds, draws, strict=True))
    ]
    return model, np.concatenate(start)


def _visited(world: FiniteMDP) -> np.ndarray:
    """States where there is something to choose, and to which something leads."""
    reached = (world.transitions.sum(0) > 0) | (world.start > 0)
    return np.flatnonzero(reached & ~world.terminal)


def searched(model: Model, start: np.ndarray, rule: str, simulations: int, **options: Any) -> Tree:
    """Trees from states (B,)."""
    from planners.mcts import search

    return search(
        model.root(start),
        model.step,
        simulations=simulations,
        generator=torch.Generator().manual_seed(simulations),
        rule=rules()[rule],
        discount=model.discount,
        max_depth=math.ceil(math.log(FAR) / math.log(model.discount)),
        outcomes=model.outcomes,
        **options,
    )


def rules() -> Mapping[str, Rule]:
    """As published, but for the noise at the root: they are to say what is best."""
    from planners.mcts import PUCT, UCT, Gumbel

    return {"UCT": UCT(), "PUCT": PUCT(dirichlet=0.0, temperature=0.0), "Gumbel": Gumbel(scale=0.0)}


class Model:
    """Worlds of one size side by side, as a model to search: state w · S + s, (B, 1).

    Rewards are divided by the range between the best V* and the least value of the random policy,
    so that values lie in a range of 1, as UCT's C of 1/√2 wants.

    Args:
        worlds: one for each seed.
        leaf: of `LEAVES`, where values come from.
        rng: draws outcomes, rollouts and errors.

    Attributes:
        values: V* (W · S,), scaled.
        action_values: Q* (W · S, A), scaled.
        guess: V* and an error that each state keeps, (W · S,).
        outcomes: most that an action has, or None where there is one.
    """

    def __init__(self, worlds: Sequence[FiniteMDP], leaf: str, *, rng: np.random.Generator) -> None:
        self.worlds, self.leaf, self._rng = worlds, leaf, rng
        self.discount, self.actions = worlds[0].discount, worlds[0].actions
        parts = [_scaled(world) for world in worlds]
        most = max(part.targets.shape[1] for part in parts)
        states = worlds[0].states
        for w, part in enumerate(parts):
            pad = (0, 0), (0, most - part.targets.shape[1])
            parts[w] = part._replace(
                targets=np.pad(part.targets, pad) + w * states,
                upto=np.pad(part.upto, pad, constant_values=np.inf),
                pays=np.pad(part.pays, pad),
            )
        joined = _Arrays(*map(np.concatenate, zip(*parts, strict=True)))
        self.values, self.action_values, self.terminal, *table = joined
        self._table = tuple(table)
        self.outcomes = most if most > 1 else None
        self.guess = self.values + NOISE * rng.standard_normal(len(self.values))

    def root(self, start: np.ndarray) -> Evaluation:
        """The roots, with even priors."""
        from planners.mcts import Evaluation

        level = torch.zeros(len(start), self.actions)
        return Evaluation(_column(start), level[:, 0], self.value(start), level)

    def step(self, state: Tensor, action: Tensor) -> Evaluation:
        """All that may follow, and its chances; what does follow, where nothing is left to chance.

        A pair with fewer outcomes than another has some of chance 0.
        """
        from planners.mcts import Evaluation

        targets, upto, pays = self._table
        row = state[:, 0].long().numpy() * self.actions + action.numpy()
        if self.outcomes is None:
            after, pay, chance = targets[row, 0], pays[row, 0], None
        else:
            after, pay = targets[row], pays[row]
            chance = torch.from_numpy(np.diff(upto[row].clip(max=1), axis=1, prepend=0))
        return Evaluation(
            _column(after),
            torch.from_numpy(pay),
            self.value(after.ravel()).reshape(pay.shape),
            terminated=torch.from_numpy(self.terminal[after]),
            chance=chance,
        )

    def value(self, state: np.ndarray) -> Tensor:
        """Of states (B,), (B,): as told, or the return of a random rollout from each."""
        if self.leaf == ROUGH:
            return torch.from_numpy(self.guess[state])
        draws = self._rng.random((len(state), STEPS, 2))
        walked = _compiled()(state, draws, self.actions, self.discount, self.terminal, *self._table)
        return torch.from_numpy(walked)


def walk(
    start: np.ndarray,
    draws: np.ndarray,
    actions: int,
    discount: float,
    terminal: np.ndarray,
    targets: np.ndarray,
    upto: np.ndarray,
    pays: np.ndarray,
) -> np.ndarray:
    """Returns (B,) of random walks from states (B,), by uniform draws (B, T, 2)."""
    gains = np.zeros(len(start))
    for b in range(len(start)):
        state, weight = start[b], 1.0
        for t in range(draws.shape[1]):
            if terminal[state]:
                break
            row, k = state * actions + int(draws[b, t, 0] * actions), 0
            while draws[b, t, 1] >= upto[row, k]:
                k += 1
            gains[b] += weight * pays[row, k]
            weight *= discount
            state = targets[row, k]
    return gains


@cache
def _compiled() -> Callable[..., np.ndarray]:
    from numba import njit

    return njit(walk)


class _Arrays(NamedTuple):
    """A world's own, in numpy; K is the most outcomes that a pair has."""

    values: np.ndarray  # (S,)
    action_values: np.ndarray  # (S, A)
    terminal: np.ndarray  # (S,)
    targets: np.ndarray  # (S · A, K)
    upto: np.ndarray  # (S · A, K), summed chances, infinite from a pair's last outcome on
    pays: np.ndarray  # (S · A, K)


def _scaled(world: FiniteMDP) -> _Arrays:
    optimum = world.optimum()
    idle = world.evaluate(np.full(world.rewards.shape, 1 / world.actions))
    scale = optimum.values.max() - idle.min()
    rows = world.transitions
    counts = np.diff(rows.indptr)
    row = np.repeat(np.arange(len(counts)), counts)
    at = row, np.arange(rows.nnz) - rows.indptr[row]
    targets = np.zeros((len(counts), counts.max()), dtype=np.int64)
    chances, pays = np.zeros(targets.shape), np.zeros(targets.shape)
    targets[at], chances[at] = rows.indices, rows.data
    pays[at] = world.rewards.ravel()[row] if world.arrival is None else world.arrival.data
    upto = chances.cumsum(1)
    upto[np.arange(targets.shape[1]) >= counts[:, None] - 1] = np.inf
    values, action_values = optimum.values / scale, optimum.action_values / scale
    return _Arrays(values, action_values, world.terminal, targets, upto, pays / scale)


def _column(state: np.ndarray) -> Tensor:
    return torch.from_numpy(state[..., None].astype(np.float32))


Found = Mapping[tuple[str, str, str], Mapping[str, np.ndarray]]
"""By world, leaves and rule: each of `MEASURES` (counts, seeds)."""


def error_figure(found: Found, counts: Sequence[int]) -> Figure:
    """|V - V*| by simulations, of the chosen action with its 95 % band and of the mean, dashed."""
    title, ylabel = "Does tree search come to V*?", "|V - V*|, V in a range of 1"
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
    title, ylabel = "Does tree search choose what is best?", "roots with an optimal choice"
    figure = _by_simulations(found, counts, OPTIMAL, title, ylabel, {"chosen by chance": ":"})
    for ax, (problem, _) in zip(figure.axes, PLACES, strict=True):
        ax.axhline(blind[problem], color=plots.GREY, ls=":", lw=1.6)
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    return figure


def at_stake(problem: str, seeds: int, roots: int) -> dict[str, float]:
    """Of the roots: the mean share of actions that are optimal, and what the best other one loses.

    The latter is "gap", a median over the roots that have another.
    """
    model, start = laboratory(problem, ROUGH, seeds, roots)
    loss = model.values[start, None] - model.action_values[start]
    best = loss <= 1e-9
    gaps = np.where(best, np.inf, loss).min(1)
    return {"by chance": float(best.mean()), "gap": float(np.median(gaps[gaps < np.inf]))}


PLACES = [(problem, leaf) for leaf in LEAVES for problem in PROBLEMS]
"""Panels of the figures: a column a world and a row a kind of leaves."""


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
    """A tree of the lake without slipping, near the goal: tree.png, tree.json and tree.dot."""
    rng = np.random.default_rng(0)
    model = Model([frozen_lake(slippery=False)], ROLLOUTS, rng=rng)
    tree = searched(model, np.array([9]), "UCT", 200)
    nodes, names = most_visited(tree, nodes=32), ("left", "down", "right", "up")
    title = "UCT on the frozen lake, without slipping, three steps from the goal"
    plots.save(draw(nodes, actions=names, title=title), folder / "tree.png")
    texts = {"tree.json": to_json(nodes), "tree.dot": to_dot(nodes, actions=names)}
    for name, text in texts.items():
        with written_whole(folder / name) as file:
            file.write_text(text)
