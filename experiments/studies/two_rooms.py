"""Into the other room, from pictures: what should a planner call close?

Codes and their transition are learned from random walks of a dot in two rooms, as in PC3. MPC then
plans in codes to the picture of a goal in the other room, by the distance of codes, which leads to
the wall, or by the steps of stored transitions, which lead through the door. First comes the same
from true states, through the true dynamics.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import envs
from envs.planar import PlanarTask, Triples
from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report, summary
from mbrl.agents.controllers import Controller
from mbrl.agents.mpc import MPCConfig, PlannerConfig
from mbrl.dynamics.joined import Joined
from mbrl.dynamics.latent_configs import LocallyLinearConfig
from mbrl.dynamics.locally_linear import LocallyLinear
from mbrl.dynamics.stored_paths import StoredPaths
from mbrl.training.executor import Work, stop_if_asked
from mbrl.types import Dynamics, Step, Transition

TASK = "two-rooms"
CONFIG = LocallyLinearConfig(
    latent=32, transition_hidden=(128, 128), action_scale=2.45, state_cost=1.0, action_cost=0.0,
    epochs=70, last_learning_rate=0.0, dtype="float32", metric="mahalanobis",
)  # fmt: skip
"""A code has 32 numbers, as published. Many of 8 or 16 numbers, and some of 32, were the same for
two places, through which paths then led; so the codes of two models are joined."""
PUBLISHED = 98.0
"""Percent of EB-JEPA (2026): codes of 32 numbers, MPPI with 200 x 20 candidates over 90 steps."""
COSTS = ("steps of stored paths", "distance of codes")
CEILING = "true states, steps of stored paths"
SHOWN = 6
"""Episodes in the figure."""


class Budget(NamedTuple):
    """Sizes of the study."""

    walks: int
    """Random walks of 20 steps."""
    stored: int
    """Transitions that paths are made of."""
    starts: int
    steps: int
    config: LocallyLinearConfig
    fits: int
    """Models whose codes are joined."""
    horizons: Mapping[str, int]
    """Steps of a plan, by cost."""
    population: int


FULL = Budget(1000, 8000, 50, 200, CONFIG, 2, {COSTS[0]: 5, COSTS[1]: 20}, 48)
TINY = Budget(
    30, 500, 2, 4, replace(CONFIG, epochs=2, hidden=(8,)), 2, {COSTS[0]: 2, COSTS[1]: 3}, 6
)  # fmt: skip


def two_rooms(lab: Lab) -> Report:
    """Share of goals reached, by what the planner calls close."""
    budget = TINY if lab.fast else FULL
    work: dict[Any, Work] = {CEILING: Work(ceiling, (budget,), CEILING)}
    for seed in range(lab.seeds):
        work[seed] = Work(measure, (budget, seed), f"model {seed}")
    answers = lab.answers(work)
    found = {CEILING: [answers[CEILING]["episodes"]]} | {
        cost: [answers[seed]["episodes"][cost] for seed in range(lab.seeds)] for cost in COSTS
    }
    numbers: dict[str, Any] = {
        "published": PUBLISHED,
        "reached": {name: summary([percent(own) for own in each]) for name, each in found.items()},
        "models": [answers[seed] for seed in range(lab.seeds)],
    }
    picture(answers, lab.folder / "two_rooms.png")
    rows = []
    for name, each in found.items():
        taken = [len(one["path"]) - 1 for own in each for one in own if one["reached"]]
        mean = f"{np.mean(taken):.0f}" if taken else ""
        rows.append([name, labs.shown(numbers["reached"][name]), mean])
    own = answers[0]
    text = f"""# Two rooms, from pictures

Percent of {budget.starts} starts in the left room from which the dot comes to a goal in the right
one within {budget.steps} steps, by the joined codes of {budget.fits} models, fitted anew to
{20 * budget.walks:,} random steps for each of {lab.seeds} seeds; published (EB-JEPA):
{PUBLISHED:.0f}.

{labs.table(["planned by", "goals reached, %", "steps"], rows)}

The models of the first seed took {own["fit seconds"]:.0f} s of one core to fit, an action
{1000 * own["seconds an action"]:.0f} ms. Their codes tell where the dot is within
{own["error"]["code"]:.2f} pixels in the mean, their predictions of one step within
{own["error"]["prediction"]:.2f}, at worst {own["error"]["worst"]:.1f}.

![Ways of the dot by what the planner calls close](two_rooms.png)
"""
    return Report(numbers, text)


class TrueModel:
    """A planar task as a `Dynamics` of its true states."""

    members, noise_shape = 1, (0,)

    def __init__(self, task: PlanarTask) -> None:
        self.task = task

    def encode(self, obs: Tensor, *, state: Any = None, action: Any = None) -> Tensor:
        """The identity."""
        return obs

    def decode(self, state: Tensor) -> Tensor:
        """The identity."""
        return state

    def step(self, state: Tensor, action: Tensor, *, noise: Any = None) -> Step:
        """A step; the reward is 0."""
        zero = torch.zeros_like(state[..., 0])
        return Step(self.task.step(state, action), zero, zero.bool())


def walks(budget: Budget, seed: int) -> Triples:
    """The random steps that a model is fitted to."""
    return envs.PLANAR[TASK].walks(np.random.default_rng([2020, seed]), budget.walks)


def ceiling(budget: Budget) -> dict[str, Any]:
    """Episodes planned from true states through the true dynamics."""
    data = walks(budget, 0)
    some = np.random.default_rng(0).permutation(len(data.state))[: budget.stored]
    task = envs.PLANAR[TASK]
    state, after = (torch.as_tensor(part[some]) for part in (data.state, data.next_state))
    paths = StoredPaths(TrueModel(task), state, after)

    def aim(goal: np.ndarray) -> None:
        paths.set_goal(torch.as_tensor(goal, dtype=torch.float32))

    def see(state: np.ndarray) -> np.ndarray:
        return state.astype(np.float32)

    return episodes(task, paths, aim, see, COSTS[0], budget)


def measure(budget: Budget, seed: int) -> dict[str, Any]:
    """Episodes by cost with a new model, its errors and times."""
    task, data = envs.PLANAR[TASK], walks(budget, seed)
    generator = torch.Generator().manual_seed(seed)
    obs, action, after = (torch.as_tensor(part) for part in data[:3])
    over = torch.zeros(len(obs), dtype=torch.bool)
    rows = Transition(obs, action, torch.zeros(len(obs)), after, over, over)
    began, fits = time.process_time(), []
    for _ in range(budget.fits):
        fit = LocallyLinear(task.shape, task.action_size, budget.config, generator=generator)
        fit.fit(rows, generator=generator, callback=stop_if_asked)
        fits.append(fit.requires_grad_(False))
    model, fitted = Joined(fits), time.process_time() - began
    some = torch.randperm(len(obs), generator=generator)[: budget.stored]
    paths = StoredPaths(model, model.encode(obs[some]), model.encode(after[some]))

    def aim(goal: np.ndarray) -> None:
        seen = torch.as_tensor(task.frames(goal))
        for fit in fits:
            fit.set_goal(seen)
        paths.set_goal(model.encode(seen))

    found: dict[str, Any] = {
        cost: episodes(task, planned, aim, task.frames, cost, budget)
        for cost, planned in zip(COSTS, (paths, model), strict=True)
    }
    return {
        "episodes": {cost: own["episodes"] for cost, own in found.items()},
        "seconds an action": found[COSTS[0]]["seconds an action"],
        "fit seconds": fitted,
        "error": errors(task, model, data, seed),
        "map": steps_from(task, paths, aim),
    }


def episodes(
    task: PlanarTask, model: Dynamics, aim: Any, see: Any, cost: str, budget: Budget
) -> dict[str, Any]:
    """The way of the dot from each start until it reaches its goal, and seconds an action.

    `aim(goal)` sets the goal of the model's reward, `see(state)` is what the model encodes.
    """
    search = PlannerConfig(
        "icem", budget.horizons[cost], budget.population, 3, elites=6, beta=1.0
    )  # fmt: skip
    config, low = MPCConfig(search, particles=1), -torch.ones(task.action_size)
    found, actions, began = [], 0, time.process_time()
    for start in range(budget.starts):
        rng = np.random.default_rng([2020, start])
        state, goal = task.initial(rng), task.draw_goal(rng)
        aim(goal)
        controller = Controller(
            model, config.build(low, -low), config, reward=None, terminated=None,
            generator=torch.Generator().manual_seed(start),
        )  # fmt: skip
        path, reached = [state], False
        while not reached and len(path) <= budget.steps:
            stop_if_asked()
            action = controller.act(see(path[-1]))
            path.append(task.step(path[-1], action.astype(np.float64)))
            reached, actions = bool(task.reached(path[-1], goal)), actions + 1
        found.append(
            {
                "goal": goal.tolist(),
                "reached": reached,
                "path": [one.round(2).tolist() for one in path],
            }
        )
    seconds = (time.process_time() - began) / actions
    return {"episodes": found, "seconds an action": seconds}


def errors(task: PlanarTask, model: Joined, data: Triples, seed: int) -> dict[str, float]:
    """In pixels, how far the state of the nearest code of the data is from the true state.

    Of codes of new pictures, and of predictions of one step: their mean and the worst.
    """
    new = task.walks(np.random.default_rng([2021, seed]), 100)
    places = model.encode(torch.as_tensor(data.obs))
    seen = model.encode(torch.as_tensor(new.obs))
    ahead = model.step(seen[None], torch.as_tensor(new.action)[None], noise=None).state[0]

    def off(codes: Tensor, truth: np.ndarray) -> np.ndarray:
        nearest = [torch.cdist(some, places).argmin(-1) for some in codes.split(1000)]
        return np.linalg.norm(data.state[torch.cat(nearest)] - truth, axis=-1)

    predicted = off(ahead, new.next_state)
    return {
        "code": float(off(seen, new.state).mean()),
        "prediction": float(predicted.mean()),
        "worst": float(predicted.max()),
    }


GRID = 56


def steps_from(task: PlanarTask, paths: StoredPaths, aim: Any) -> list[list[float]]:
    """Steps to the task's goal from a grid of places, row by row."""
    aim(np.array(task.goal))
    at = np.linspace(5.5, 59.5, GRID)
    places = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    steps = paths.steps(paths.encode(torch.as_tensor(task.frames(places))))
    return steps.view(GRID, GRID).tolist()


def percent(found: list[dict[str, Any]]) -> float:
    """Share of episodes that reach their goal."""
    return 100 * float(np.mean([one["reached"] for one in found]))


def picture(answers: Mapping[Any, Any], path: Path) -> None:
    """Ways of the dot by cost, and steps to one goal from everywhere, by the first model."""
    own = answers[0]
    each = {CEILING: answers[CEILING]["episodes"], **own["episodes"]}
    figure, axes = plots.panels("Two rooms, from pictures", 1, 4, (16.0, 4.8))
    walls = envs.PLANAR[TASK].frames(np.zeros(2))[..., 1]
    for ax, (name, found) in zip(axes, each.items(), strict=False):
        ax.imshow(walls, cmap="Greys", vmax=400)
        for one, colour in zip(found[:SHOWN], plots.COLOURS, strict=False):
            way = np.array(one["path"])
            ax.plot(*way.T, color=colour, lw=1.6)
            ax.plot(*way[0], "o", color=colour, ms=5)
            ax.plot(*one["goal"], "*", color=colour, ms=11)
        plots.note(ax, f"{name}: {percent(found):.0f} %")
    ax = axes[3]
    steps = np.array(own["map"])
    ax.imshow(walls, cmap="Greys", vmax=400)
    drawn = ax.imshow(steps, extent=(5, 60, 60, 5), cmap="viridis", alpha=0.9)
    ax.imshow(np.ma.masked_less(walls, 1), cmap="Greys", vmax=400)
    ax.plot(*envs.PLANAR[TASK].goal, "*", color="white", ms=11)
    figure.colorbar(drawn, ax=ax, shrink=0.8)
    plots.note(ax, "steps to the star")
    for ax in axes:
        ax.set_axis_off()
    plots.save(figure, path)
