"""Dyna: how many steps a model saves, and what an outdated model costs.

Sutton and Barto 2018, chapter 8: steps per episode on the Dyna maze by planning steps (figure 8.2),
and mazes that change, with and without a bonus for actions not tried for long (figures 8.4 and
8.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from envs.tabular import SeededOnce
from envs.worlds import CHANGES, dyna_maze, world_env
from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl.agents.tabular import Tabular
from mbrl.statistics import mean_error
from mbrl.tabular import Dyna, DynaConfig
from mbrl.training.collect import Episodes, collect, vector
from mbrl.training.executor import Work, stop_if_asked

PLANNING = (0, 5, 50)
MAZE = DynaConfig(step_size=0.1, discount=0.95, epsilon=0.1)
CHANGING = DynaConfig(planning=10, step_size=0.5, discount=0.95, epsilon=0.1)
KINDS = {"Dyna-Q": CHANGING, "Dyna-Q+": replace(CHANGING, actions="any", bonus=1e-3)}
LASTS = {"blocking-maze": 3000, "shortcut-maze": 6000}  # real steps
EVERY = 20  # real steps from one point of a picture to the next
FIRST, OPTIMAL = 1700, 14
"""Steps of the first episode as published, and of the shortest path."""
Taken = Mapping[int, np.ndarray]
"""Steps of each episode, (runs, episodes), by number of planning steps."""
Rewards = Mapping[str, Mapping[str, np.ndarray]]
"""Cumulative reward (runs, points), every `EVERY` real steps, by maze and agent."""


def dyna(lab: Lab) -> Report:
    """Steps per episode by number of planning steps; reward in mazes that change."""
    episodes = 6 if lab.fast else 50
    lasts = {name: steps // 6 if lab.fast else steps for name, steps in LASTS.items()}
    work: dict[Any, Work] = {
        n: Work(lengths, (n, episodes, lab.seeds), f"maze, {n} planning steps") for n in PLANNING
    }
    for name, steps in lasts.items():
        change = min(CHANGES[name], steps // 2)
        for kind in KINDS:
            arguments = (name, kind, steps, change, lab.seeds)
            work[name, kind] = Work(earned, arguments, f"{name}, {kind}")
    answers = lab.answers(work)
    taken = {n: np.array(answers[n]) for n in PLANNING}
    rewards = {name: {kind: np.array(answers[name, kind]) for kind in KINDS} for name in lasts}
    picture(taken, rewards, lasts, lab.folder / "dyna.png")
    numbers: dict[str, Any] = {
        "settings": {
            "maze": vars(MAZE), "changing": {kind: vars(config) for kind, config in KINDS.items()},
            "episodes": episodes, "steps": lasts, "runs": lab.seeds,
        },
        "steps per episode": {str(n): mean_of(array) for n, array in taken.items()},
        "cumulative reward": {
            name: {kind: mean_of(array) for kind, array in by_kind.items()}
            for name, by_kind in rewards.items()
        },
    }  # fmt: skip
    return Report(numbers, page(taken, rewards, lasts))


def page(taken: Taken, rewards: Rewards, lasts: Mapping[str, int]) -> str:
    """The study's page, in Markdown."""
    runs, episodes = taken[0].shape
    steps = [
        [n, *(shown(array[:, i]) for i in (0, 1, 2)), shown(array[:, -5:].mean(1)), soon(array)]
        for n, array in taken.items()
    ]
    changed = [
        [name, kind, shown(array[:, -1]), shown(late(array))]
        for name, by_kind in rewards.items()
        for kind, array in by_kind.items()
    ]
    curious = KINDS["Dyna-Q+"]
    head = ["planning steps", *(f"episode {i}" for i in (1, 2, 3)), "last five", "below 20 from"]
    return f"""# Dyna: what a model saves

Means over {runs} runs [95 % interval]. α {MAZE.step_size}, γ {MAZE.discount}, ε {MAZE.epsilon}.

## Steps per episode on the Dyna maze, {episodes} episodes (Sutton and Barto, figure 8.2)

{labs.table(head, steps)}

Published: about {FIRST} in the first episode for any number of planning steps, as nothing is known
until the goal is reached once; with 0, 5 and 50 planning steps it takes about 25, five and three
episodes to come near the shortest path. The first episode is a random walk, which takes
{wandering():.0f} in the mean, by a linear solve. The shortest path has {OPTIMAL} steps, and ε makes
episodes a little longer. All agents act by the same random numbers, so their first episodes are the
same.

## Mazes that change (figures 8.4 and 8.5)

{labs.table(["maze", "agent", "reward in all", "in the last sixth"], changed)}

{" and ".join(f"{steps} steps of the {name}" for name, steps in lasts.items())}, planning steps
{CHANGING.planning}, α {CHANGING.step_size}, κ {curious.bonus:g}. In the blocking maze the learned
path is closed and a longer one is opened, which both agents have to find. In the shortcut maze a
shorter path is opened and the old one stays. The model is still right about all tried actions, so
only the bonus for actions not tried for long makes an agent look for the shortcut.
"""


def wandering() -> float:
    """Expected steps of a random walk through the Dyna maze."""
    mdp = dyna_maze()
    return mdp.expected_steps(mdp.uniform_policy)


def shown(values: np.ndarray) -> str:
    """Mean and 95 % interval over runs."""
    return labs.shown_mean(*map(float, mean_error(values)))


def soon(array: np.ndarray) -> str:
    """The first of three episodes in a row that take fewer than 20 steps on average."""
    mean = array.mean(0)
    three = np.convolve(mean, np.ones(3) / 3, "valid") < 20
    return f"episode {three.argmax() + 1}" if three.any() else "not reached"


def late(array: np.ndarray) -> np.ndarray:
    """Reward (runs,) in the last sixth of the steps."""
    return array[:, -1] - array[:, -1 - array.shape[1] // 6]


def mean_of(array: np.ndarray) -> dict[str, list[float]]:
    """Mean over runs and its standard error, for `results.json`."""
    mean, error = mean_error(array)
    return {"mean": mean.tolist(), "error": error.tolist()}


def lengths(planning: int, episodes: int, runs: int) -> list[list[int]]:
    """Steps of each episode (runs, episodes) on the Dyna maze."""
    config, found = replace(MAZE, planning=planning), []
    for seed in range(runs):
        taken: list[int] = []
        for _, episode in steps_of(dyna_maze().env(), config, seed):
            if episode.over[0]:
                taken.append(int(episode.lengths[0]))
                if len(taken) == episodes:
                    break
        found.append(taken)
    return found


def earned(name: str, kind: str, steps: int, change: int, runs: int) -> list[list[float]]:
    """Cumulative reward (runs, points) in a maze that changes, every `EVERY` steps."""
    found = []
    for seed in range(runs):
        rewards = [
            reward
            for reward, _ in steps_of(world_env(name, change_at=change), KINDS[kind], seed, steps)
        ]
        found.append(np.cumsum(rewards)[EVERY - 1 :: EVERY].tolist())
    return found


def steps_of(
    env: gymnasium.Env, config: DynaConfig, seed: int, steps: int | None = None
) -> Iterator[tuple[float, Episodes]]:
    """For each step of an agent that learns from it: the reward and the state of its episodes."""
    acting, imagining = (torch.Generator().manual_seed(2 * seed + i) for i in range(2))
    spaces: Any = env.observation_space, env.action_space
    states, actions = (int(space.n) for space in spaces)
    agent = Tabular(Dyna(states, actions, config), acting=acting, learning=imagining)
    running = Episodes(seed)
    for step in collect(agent, vector(SeededOnce(env)), running, steps=steps):
        stop_if_asked()
        agent.observe(step)
        yield float(step.reward), running


def picture(taken: Taken, rewards: Rewards, lasts: Mapping[str, int], path: Path) -> None:
    """Steps per episode, then cumulative reward in each maze that changes."""
    figure, axes = plots.panels("Dyna: what a model saves", 1, 3, (14.5, 4.7))
    ax = axes[0]
    for (n, array), colour in zip(taken.items(), plots.COLOURS, strict=False):
        line = plots.Curve.means(np.arange(1, array.shape[1] + 1), *mean_error(array))
        line = line._replace(low=np.maximum(np.asarray(line.low), 1))  # the axis is logarithmic
        name = "no planning: Q-learning" if n == 0 else f"{n} planning steps"
        plots.draw_curve(ax, line, color=colour, lw=2.2, label=name)
    ax.axhline(OPTIMAL, color=plots.GREY, lw=1.3, ls=(0, (5, 3)))
    ax.annotate(
        f"shortest path: {OPTIMAL}", (1, OPTIMAL), xytext=(0, -12), textcoords="offset points",
        fontsize=9, color=plots.GREY,
    )  # fmt: skip
    ax.set(xlabel="episode", ylabel="steps in the episode (log scale)", yscale="log")
    ax.set_ylim(10, None)
    plots.plain_log(ax.yaxis)
    plots.note(ax, f"Dyna maze; mean of {len(taken[0])} runs, 95 % interval")
    ax.legend(frameon=False, fontsize=9.5)
    for ax, (name, by_kind) in zip(axes[1:], rewards.items(), strict=True):
        for (kind, array), colour in zip(by_kind.items(), plots.COLOURS[3:], strict=False):
            line = plots.Curve.means(EVERY * np.arange(1, array.shape[1] + 1), *mean_error(array))
            plots.draw_curve(ax, line, color=colour, lw=2.2, label=kind)
        change = min(CHANGES[name], lasts[name] // 2)
        ax.axvline(change, color=plots.GREY, lw=1.3, ls=(0, (5, 3)))
        what = "the path is blocked" if name == "blocking-maze" else "a shortcut opens"
        ax.annotate(
            what, (change, 0.97), xycoords=("data", "axes fraction"), xytext=(5, 0),
            textcoords="offset points", fontsize=9, color=plots.GREY, va="top",
        )  # fmt: skip
        ax.set(xlabel="real steps", ylabel="cumulative reward")
        ax.set_ylim(0, None)
        ax.set_xlim(0, lasts[name])
        plots.note(ax, name.replace("-", " "))
        ax.legend(frameon=False, fontsize=9.5, loc="upper left", bbox_to_anchor=(0, 0.92))
    plots.save(figure, path)
