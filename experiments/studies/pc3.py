"""How well do locally linear latent models control from pictures? PC3's protocol.

Models are fitted to 5,000 random triples of a planar task; iLQR then plans in their codes, step
after step, from pictures alone, and what counts is the share of steps after which the true state is
in the goal region (Shu et al. 2020, "Predictive coding for locally-linear control"). First comes
the ceiling: the same planner through the true dynamics, from true states.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import envs
from envs.planar import PlanarTask
from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report, shown, summary
from mbrl.dynamics.latent_configs import LocallyLinearConfig
from mbrl.dynamics.locally_linear import LocallyLinear
from mbrl.dynamics.quadratic import SmoothQuadratic
from mbrl.training.executor import Work, stop_if_asked
from mbrl.types import Transition
from planners import ILQR, Plan, Smooth

METHODS = ("pc3", "pcc", "e2c")
METRICS = ("euclidean", "mahalanobis")
"""In which models are controlled, see `LocallyLinearConfig.metric`; the first is the published."""
CEILING = "true states"


class World(NamedTuple):
    """Tasks with the same dynamics and pictures, which share models."""

    tasks: Mapping[str, str]
    """Names in `envs.PLANAR` by name in the paper; data are those of the first."""
    config: LocallyLinearConfig
    ceiling: tuple[float, ...]
    """Weight of each dimension of the true state, in stds of random states, for the ceiling."""


WORLDS: Mapping[str, World] = {
    "planar": World(
        {"planar": "pc3-planar"},
        LocallyLinearConfig(action_scale=3.0, state_cost=100.0),
        (10.0, 10.0),
    ),
    "pendulum": World(
        {"balance": "pc3-pendulum-balance", "swing-up": "pc3-pendulum-swingup"},
        LocallyLinearConfig(
            latent=3, hidden=(500, 500), transition_hidden=(30, 30), action_scale=0.65,
            state_cost=50.0, epochs=150, last_learning_rate=0.0,
        ),
        (1.0, 0.0),
    ),
    "cart-pole": World(
        {"cart-pole": "pc3-cartpole"},
        LocallyLinearConfig(
            latent=8, hidden=(500, 500), transition_hidden=(40, 40), action_scale=10.0,
            state_cost=1000.0, epochs=60, last_learning_rate=0.0,
        ),
        (1.0, 1.0, 1.0, 1.0),
    ),
}  # fmt: skip
"""Sizes, costs and units of actions are those of the published code, with three differences. The
cost of the planar task is 100 and not 10, with which actions are not full steps. The encoder of the
cart-pole has no convolutions. And but for the planar task the 2,000 epochs at a constant step size
are fewer, at one that falls to 0."""

PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "planar": {"PC3": 74.4, "PCC": 56.6, "SOLAR": 68.0},
    "balance": {"PC3": 99.1, "PCC": 91.9, "SOLAR": 67.0},
    "swing-up": {"PC3": 58.4, "PCC": 26.4, "SOLAR": 35.4},
    "cart-pole": {"PC3": 96.3, "PCC": 94.4, "SOLAR": 91.2},
}
"""Mean share of 10 models and 10 starts, in percent, as the paper reports it."""


class Budget(NamedTuple):
    """Sizes of the study."""

    triples: int
    starts: int
    steps: int | None
    """Steps of an episode; the task's own number if None."""
    changes: dict[str, Any]
    """Of all configs."""


COMMON = {"dtype": "float32", "metric": "mahalanobis"}
FULL = Budget(5000, 10, None, COMMON)
TINY = Budget(60, 2, 3, {**COMMON, "epochs": 2, "hidden": (8,)})
ITERATIONS = 4
BEGINNINGS = 3
"""Plans that iLQR improves at each step: the rest of the last one, one of random actions in the box
and one of its corners. The published code has six."""
MAP = 1600
"""States in the picture of codes."""


def pc3(lab: Lab) -> Report:
    """Shares of steps in the goal region by task and method, with published ones and ceilings."""
    budget = TINY if lab.fast else FULL
    names = [f"{world} {method}" for world in WORLDS for method in METHODS]
    chosen = lab.chosen(names)
    worlds = [world for world in WORLDS if any(name.startswith(world + " ") for name in chosen)]
    work: dict[Any, Work] = {
        (world, CEILING, 0): Work(ceilings, (WORLDS[world], budget), f"{world}, {CEILING}")
        for world in worlds
    }
    for name in chosen:
        world, method = name.rsplit(" ", 1)
        for seed in range(lab.seeds):
            work[world, method, seed] = Work(
                measure,
                (world, settings(world, method, budget), seed, budget),
                f"{name}, model {seed}",
            )
    answers = lab.answers(work)
    found: dict[str, Any] = {}
    for world in worlds:
        methods = [name.rsplit(" ", 1)[1] for name in chosen if name.startswith(world + " ")]
        for task in WORLDS[world].tasks:
            found[task] = {CEILING: answers[world, CEILING, 0][task]} | {
                f"{method}, {metric}": summary(
                    [
                        float(np.mean(answers[world, method, seed]["shares"][task][metric]))
                        for seed in range(lab.seeds)
                    ]
                )
                for method in methods
                for metric in METRICS
            }
    numbers = {
        "settings": {**budget._asdict(), "beginnings": BEGINNINGS, "iterations": ITERATIONS},
        "published": PUBLISHED,
        "found": found,
        "models": {" ".join(map(str, key)): answers[key] for key in work if key[1] != CEILING},
    }
    shares_picture(found, lab.folder / "pc3.png")
    maps = {key[:2]: answers[key]["map"] for key in reversed(list(work)) if key[1] != CEILING}
    codes_picture(dict(reversed(list(maps.items()))), lab.folder / "codes.png")
    rows = [
        {"task": task, "method": method, "metric": metric, "model": seed, "share": share,
         "ceiling": float(np.mean(own[CEILING])), "published": PUBLISHED[task].get(method.upper())}
        for task, own in found.items()
        for method in METHODS
        for metric in METRICS
        for seed, share in enumerate(own.get(f"{method}, {metric}", {"seeds": []})["seeds"])
    ]  # fmt: skip
    return Report(numbers, page(found, answers, budget, lab.seeds), rows)


# Control.


class Episode(NamedTuple):
    """A start of the protocol; the same for all models."""

    state: np.ndarray
    goal: np.ndarray


def starts(task: PlanarTask, count: int) -> list[Episode]:
    """The first `count` starts and goals."""
    rngs = [np.random.default_rng([2020, i]) for i in range(count)]
    return [Episode(task.initial(rng), task.draw_goal(rng)) for rng in rngs]


SmoothFn = Callable[[np.ndarray, np.ndarray], Smooth]
"""`smooth(state before (S,), state (S,))`: a model, from what it sees of these."""


def share(task: PlanarTask, smooth: SmoothFn, episode: Episode, budget: Budget, seed: int) -> float:
    """The share of steps of an episode after which the true state is in the goal region."""
    rng = np.random.default_rng([seed, 7])
    low = -torch.ones(task.action_size, dtype=torch.float64)
    planner = ILQR(low, -low, task.plan_steps, iterations=ITERATIONS)
    generator = torch.Generator()  # iLQR draws nothing
    plan, before, state, reached = None, episode.state, episode.state, []
    for _ in range(budget.steps or task.episode_steps):
        stop_if_asked()
        model = smooth(before, state)
        fresh = rng.uniform(-1, 1, (BEGINNINGS, task.plan_steps, task.action_size))
        fresh[2:] = np.sign(fresh[2:])
        begin = [_plan(actions) for actions in torch.as_tensor(fresh)]
        if plan is not None:
            begin[0] = planner.shift(plan, 1)
        plans = [planner.plan(model, one, generator=generator) for one in begin]
        plan = max(plans, key=lambda one: float(one.score))
        before, state = state, task.step(state, plan.actions[0].numpy())
        reached.append(bool(task.reached(state, episode.goal)))
    return float(np.mean(reached))


def _plan(actions: Float[Tensor, "H A"]) -> Plan:
    return Plan(
        actions, actions.new_tensor(-math.inf), actions, torch.zeros_like(actions),
        actions[None][:0], evaluated=0, rejected=0,
    )  # fmt: skip


def shares(
    task: PlanarTask, smooth: Callable[[np.ndarray], SmoothFn], budget: Budget, seed: int
) -> list[float]:
    """The share of each start, in percent; `smooth` makes the model of a goal."""
    found: dict[tuple[float, ...], float] = {}
    keys = []
    for one in starts(task, budget.starts):
        keys.append((*one.state, *one.goal))  # some tasks have one start
        if keys[-1] not in found:
            found[keys[-1]] = 100 * share(task, smooth(one.goal), one, budget, seed)
    return [found[key] for key in keys]


def ceilings(own: World, budget: Budget) -> dict[str, list[float]]:
    """Shares of each start, in percent, by planning through the true dynamics from true states."""
    effort = own.config.action_cost * own.config.action_scale**2
    found = {}
    for name, full in own.tasks.items():
        task = envs.PLANAR[full]
        spread = torch.as_tensor(task.states(np.random.default_rng(0), 5000)).std(0)
        cost = own.config.state_cost * torch.diag(torch.tensor(own.ceiling) / spread.square())

        def true(goal: np.ndarray, task: PlanarTask = task, cost: Tensor = cost) -> SmoothFn:
            end = torch.as_tensor(goal)
            return lambda _, now: SmoothQuadratic(
                task.step, torch.as_tensor(now), end, cost, effort
            )

        found[name] = shares(task, true, budget, 0)
    return found


# Models.


def triples(task: PlanarTask, count: int, seed: int) -> Transition:
    """Random transitions of a task."""
    data = task.triples(np.random.default_rng([2020, seed]), count)
    obs, action, after = (torch.as_tensor(part) for part in data[:3])
    over = torch.zeros(count, dtype=torch.bool)
    return Transition(obs, action, torch.zeros(count), after, over, over)


def settings(world: str, method: str, budget: Budget) -> LocallyLinearConfig:
    """The config of a method in a world."""
    return replace(WORLDS[world].config, loss=method, **budget.changes)


def trained(
    world: str, config: LocallyLinearConfig, seed: int, budget: Budget
) -> tuple[LocallyLinear, Any]:
    """A model, and the metrics of its fit."""
    task = envs.PLANAR[next(iter(WORLDS[world].tasks.values()))]
    generator = torch.Generator().manual_seed(seed)
    model = LocallyLinear(task.shape, task.action_size, config, generator=generator)
    data = triples(task, budget.triples, seed)
    metrics = model.fit(data, generator=generator, callback=stop_if_asked)
    return model.requires_grad_(False), metrics


def measure(world: str, config: LocallyLinearConfig, seed: int, budget: Budget) -> dict[str, Any]:
    """Shares of a new model by task, the metrics of its fit, and its map of codes."""
    began = time.process_time()
    model, metrics = trained(world, config, seed, budget)
    fitted, codes_metric = time.process_time(), model.metric.clone()
    found: dict[str, dict[str, list[float]]] = {}
    for name, full in WORLDS[world].tasks.items():
        task, found[name] = envs.PLANAR[full], {}
        for metric in METRICS:
            model.metric.copy_(codes_metric)
            if metric == "euclidean":
                torch.nn.init.eye_(model.metric)
            found[name][metric] = shares(task, partial(seen_by, model, task), budget, seed)
    return {
        "shares": found,
        "metrics": dict(metrics),
        "map": codes(model, world),
        "fit seconds": fitted - began,
        "control seconds": time.process_time() - fitted,
    }


def seen_by(model: LocallyLinear, task: PlanarTask, goal: np.ndarray) -> SmoothFn:
    """The model from the picture of a state, with the picture of a goal at rest as its goal."""
    model.set_goal(torch.as_tensor(task.observation(goal, goal)))

    def smooth(before: np.ndarray, state: np.ndarray) -> Smooth:
        code = model.encode(torch.as_tensor(task.observation(before, state)))
        return model.smooth(code, action_repeat=1, reward=None)

    return smooth


def codes(model: LocallyLinear, world: str) -> dict[str, Any]:
    """The two main components of the codes of random states, and these states.

    `spread` is the std of each dimension of a code, `linear` the share of the variance of each
    dimension of the state that is a linear function of the code.
    """
    task = envs.PLANAR[next(iter(WORLDS[world].tasks.values()))]
    state = task.states(np.random.default_rng(5), MAP)
    if task.pictures == 2:  # at the same speed one step before
        before, state = state, task.step(state, np.zeros((len(state), task.action_size)))
    else:
        before = state
    code = model.encode(torch.as_tensor(task.observation(before, state))).double()
    centred = code - code.mean(0)
    parts = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    known = torch.as_tensor(state)
    known = known - known.mean(0)
    rest = known - centred @ torch.linalg.lstsq(centred, known).solution
    return {
        "codes": (centred @ parts.T).tolist(),
        "states": state[:, :2].tolist(),
        "spread": centred.square().mean(0).sqrt().tolist(),
        "linear": (1 - rest.square().sum(0) / known.square().sum(0)).tolist(),
    }


# The page and the figures.


def page(
    found: Mapping[str, Mapping[str, Any]], answers: Mapping[Any, Any], budget: Budget, seeds: int
) -> str:
    """The study's page, in Markdown."""
    methods = _methods(found)
    rows = [
        [
            task,
            f"{np.mean(own[CEILING]):.1f}",
            *(shown(own[method]) if method in own else "" for method in methods),
            *(f"{PUBLISHED[task][name]:.1f}" for name in ("PC3", "PCC", "SOLAR")),
        ]
        for task, own in found.items()
    ]
    head = ["task", CEILING, *methods, "PC3, published", "PCC, published", "SOLAR, published"]
    times = [
        [world, method, f"{own['fit seconds']:.0f}", f"{own['control seconds']:.0f}",
         ", ".join(f"{part:.2f}" for part in own["map"]["linear"])]
        for (world, method, seed), own in answers.items()
        if method != CEILING and seed == 0
    ]  # fmt: skip
    head_times = ["world", "loss", "fit, s", "control, s", "linear in the code"]
    models = f"{seeds} model{'s' if seeds > 1 else ''}"
    return f"""# Locally linear control from pictures

Percent of steps after which the true system is in the goal region: {models} of {budget.triples}
random triples, {budget.starts} starts each. iLQR improves {BEGINNINGS} plans by {ITERATIONS} rounds
at each step and executes the first action of the best. "{CEILING}" plans through the true dynamics,
which is no bound, for its cost is another. "mahalanobis" is the same model with the distance to the
goal's code in stds of the codes of its data.

{labs.table(head, rows)}

Seconds are those of one core for the first model; the last column is the share of the variance of
each dimension of the true state that is a linear function of its code.

{labs.table(head_times, times)}

![Share of steps in the goal region by task and method](pc3.png)

![Codes of states, coloured by the first two dimensions of the true state](codes.png)
"""


def _methods(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Method and metric of all columns."""
    return [name for name in dict.fromkeys(key for own in found.values() for key in own)
            if name != CEILING]  # fmt: skip


def shares_picture(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Bars of each task's methods, beside published numbers and ceilings."""
    figure, (ax,) = plots.panels("Steps in the goal region", 1, 1, (9.5, 4.8))
    methods = _methods(found)
    width = 0.8 / (len(methods) + 1)
    for place, (task, own) in enumerate(found.items()):
        for i, method in enumerate(methods):
            if method not in own:
                continue
            at, one = place - 0.4 + (i + 0.5) * width, own[method]
            label = None if any(method in found[other] for other in [*found][:place]) else method
            ax.bar(at, one["estimate"], 0.9 * width, color=plots.COLOURS[i], label=label)
            ax.plot([at, at], [one["low"], one["high"]], color=plots.INK, lw=1.6)
        at = place - 0.4 + (len(methods) + 0.5) * width
        label = "PC3, published" if place == 0 else None
        ax.bar(at, PUBLISHED[task]["PC3"], 0.9 * width, color=plots.GREY, label=label)
        level = float(np.mean(own[CEILING]))
        label = "true states and dynamics" if place == 0 else None
        ax.plot([place - 0.45, place + 0.45], [level, level], color=plots.INK, ls="--", label=label)
    ax.set_xticks(range(len(found)), list(found))
    ax.set(ylabel="% of steps", ylim=(0, 105))
    plots.legend_below(figure)
    plots.save(figure, path)


def codes_picture(maps: Mapping[tuple[str, str], Mapping[str, Any]], path: Path) -> None:
    """For each world and method two panels: codes coloured by each of two dimensions."""
    named = {"planar": ("row", "column"), "pendulum": ("angle", "velocity"),
             "cart-pole": ("angle", "velocity")}  # fmt: skip
    figure, axes = plots.panels(
        "Codes, coloured by the true state", len(maps), 2, (9, 0.8 + 4.0 * len(maps))
    )
    for place, ((world, method), own) in enumerate(maps.items()):
        xy, states = np.array(own["codes"]), np.array(own["states"])
        for k in range(2):
            ax = axes[2 * place + k]
            ax.scatter(*xy.T, c=states[:, k], s=5, cmap="viridis", linewidths=0)
            ax.set_aspect("equal", "datalim")
            plots.note(ax, f"{world}, {method}: {named[world][k]}")
    plots.save(figure, path)


__all__: Sequence[str] = ["pc3"]
