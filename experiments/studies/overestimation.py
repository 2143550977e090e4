"""Overestimation: how far the values of deep Q-learning lie above the true ones, and double too.

Van Hasselt et al. 2016, "Deep reinforcement learning with double Q-learning": a target that takes
the greatest of several noisy estimates is too large on average, and bootstrapping adds this error
up over the steps to the end. Double Q-learning lets one network choose the action and the other
value it. Here worlds are small and known, so the truth is value iteration's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs import worlds
from envs.tabular import FiniteMDP
from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.common import cells, measured
from experiments.studies.lab import Lab, Report
from mbrl.learners.dqn import DQN
from mbrl.learners.value_configs import DQNConfig
from mbrl.tabular import value_iteration
from mbrl.training.executor import stop_if_asked
from mbrl.types import Transition

NOISE = 1.0
"""Std of the normal noise on every reward."""
UPDATES, EVERY, BATCH = 4000, 100, 64
SETTINGS = DQNConfig(hidden=(), learning_rate=0.05, target_every=50, huber=None, clip=None)
"""A linear network of one-hot states, which is a table, so that only the noise is in the way."""
KINDS = {"DQN": False, "double DQN": True}
"""Whether the learner is double, by its name."""


def choice(actions: int = 10) -> FiniteMDP:
    """Two states in a row, then the end; every action does the same, and its expected reward is 0.

    As in Sutton and Barto 2018, example 6.7, with the mean reward 0. The truth is 0 everywhere.
    """
    to = np.zeros((3, actions, 3))
    to[0, :, 1] = to[1, :, 2] = to[2, :, 2] = 1
    end = np.array([False, False, True])
    start = np.array([1.0, 0, 0])
    return FiniteMDP(to, np.zeros((3, actions)), 0.9, start, end, "choice")


WORLDS: Mapping[str, Callable[[], FiniteMDP]] = {
    "ten equal actions, twice": choice,
    "frozen lake, slippery": lambda: worlds.frozen_lake(discount=0.9),
    "garnet, 20 states, 5 actions": lambda: worlds.garnet(
        20, 5, 3, rng=np.random.default_rng(0), discount=0.9
    ),
}
"""The worlds, each with a discount of 0.9."""


def overestimation(lab: Lab) -> Report:
    """Errors of the greatest action value, single and double, over training."""
    updates = 200 if lab.fast else UPDATES
    asked = {
        (world, kind): [(world, kind, updates, seed) for seed in range(lab.seeds)]
        for world in WORLDS
        for kind in KINDS
    }
    found = measured(lab, errors, asked)
    curves = {
        world: {kind: np.array([run["errors"] for run in found[world, kind]]) for kind in KINDS}
        for world in WORLDS
    }
    half = updates // EVERY // 2
    late = {
        world: {kind: labs.summary(runs[:, half:].mean(1).tolist()) for kind, runs in each.items()}
        for world, each in curves.items()
    }
    lost = {
        world: {kind: labs.summary([run["lost"] for run in found[world, kind]]) for kind in KINDS}
        for world in WORLDS
    }
    truths = {world: _truth(make()) for world, make in WORLDS.items()}
    numbers: dict[str, Any] = {
        "settings": {
            "noise": NOISE, "updates": updates, "every": EVERY, "batch": BATCH, "seeds": lab.seeds,
        },
        "error": late,
        "lost": lost,
        "truth": truths,
        "curves": {world: {k: runs.tolist() for k, runs in each.items()} for world, each in
                   curves.items()},
    }  # fmt: skip
    picture(curves, lab.folder / "overestimation.png")
    return Report(numbers, page(late, lost, truths, lab.seeds, updates))


def errors(world: str, kind: str, updates: int, seed: int) -> dict[str, Any]:
    """Train one learner; the errors of its values, and what its final policy loses.

    Each batch has pairs of state and action drawn uniformly, next states drawn by the world, and
    the expected reward with fresh noise.

    Returns:
        `errors`: after every `EVERY` updates, the mean over states of max_a Q(s, a) - V*(s);
        `lost`: the mean over states of V*(s) less the value of the greedy policy.
    """
    mdp = WORLDS[world]()
    truth, live = value_iteration(mdp, tolerance=1e-10).values, np.flatnonzero(~mdp.terminal)
    rows = mdp.transitions.toarray().reshape(mdp.states, mdp.actions, mdp.states)
    cumulated = torch.from_numpy(rows.cumsum(-1))
    # (S, A): expected rewards, whether they depend on the next state or not
    means = torch.from_numpy(mdp.action_values(np.zeros(mdp.states))).float()
    generator = torch.Generator().manual_seed(seed)
    settings = {"double": KINDS[kind], "discount": mdp.discount}
    config = DQNConfig(**{**vars(SETTINGS), **settings})
    learner = DQN(mdp.states, mdp.actions, config, generator=generator)
    hot, ends, found = torch.eye(mdp.states), torch.from_numpy(mdp.terminal), []
    for k in range(1, updates + 1):
        state = torch.from_numpy(live)[torch.randint(len(live), (BATCH,), generator=generator)]
        action = torch.randint(mdp.actions, (BATCH,), generator=generator)
        uniform = torch.rand(BATCH, 1, generator=generator, dtype=torch.float64)
        after = (cumulated[state, action] < uniform).sum(-1).clamp(max=mdp.states - 1)
        reward = means[state, action] + NOISE * torch.randn(BATCH, generator=generator)
        batch = Transition(
            hot[state], action, reward, hot[after], ends[after], torch.zeros_like(ends[after])
        )
        learner.update(batch, generator=generator)
        if k % EVERY == 0:
            stop_if_asked()
            values = learner.values(hot).detach().numpy()
            found.append(float((values.max(-1) - truth)[live].mean()))
    policy = np.eye(mdp.actions)[learner.values(hot).detach().numpy().argmax(-1)]
    lost = float((truth - mdp.evaluate(policy))[live].mean())
    return {"errors": found, "lost": lost}


def _truth(mdp: FiniteMDP) -> float:
    """The mean of V* over states that are not terminal."""
    return float(value_iteration(mdp, tolerance=1e-10).values[~mdp.terminal].mean())


def page(
    late: Mapping[str, Mapping[str, Mapping[str, float]]],
    lost: Mapping[str, Mapping[str, Mapping[str, float]]],
    truths: Mapping[str, float],
    seeds: int,
    updates: int,
) -> str:
    """The study's page, in Markdown."""
    rows = [
        [world, f"{truths[world]:.2f}", kind, *cells(found, lost[world][kind], digits=2)]
        for world, each in late.items()
        for kind, found in each.items()
    ]
    head = ["world", "mean V*", "learner", "max Q - V*", "V* - V of the policy"]
    return f"""# Overestimation by deep Q-learning

{labs.table(head, rows)}

![errors](overestimation.png)

max Q - V* is the mean over states, and over the second half of {updates:,} updates; V* is value
iteration's. The last column is what the greedy policy loses in the end. Interquartile means over
{seeds} seed{"s" if seeds > 1 else ""} [95 % bootstrap interval]. Every reward has normal noise of
std {NOISE:g}, pairs of state and action are drawn uniformly, and γ is 0.9. The network is linear
in one-hot states, a table, with Adam's step size {SETTINGS.learning_rate:g} and batches of {BATCH};
the target network is copied every {SETTINGS.target_every} updates.

The target of DQN takes the greatest of noisy values, which is too large on average, and the error
grows as it is bootstrapped. Double DQN lets the online network choose and the target network value
the choice. The noise of the two differs, so the target is hardly too large; where the best action
is often not the chosen one it is too small. max Q itself is still the greatest of noisy values.
On the garnet the values start at 0, far below the truth, and still rise in the second half.
"""


def picture(curves: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """max Q - V* against updates, a panel for each world, with 95 % intervals over seeds."""
    drawn = {
        world: {kind: _curve(runs) for kind, runs in each.items()} for world, each in curves.items()
    }
    figure = plots.curves(
        drawn,
        title="Error of the greatest action value: 0 is the truth",
        xlabel="updates",
        ylabel="mean over states of max Q - V*",
        size=(13, 4.6),
    )
    for ax, each in zip(figure.axes, curves.values(), strict=False):
        top = max(float(runs.mean(0).max()) for runs in each.values())
        ax.set_ylim(-0.6, max(0.6, 1.25 * top))  # the rise from Q = 0 at the start is cut off
        ax.axhline(0.0, color=plots.INK, lw=1.2, ls=(0, (5, 3)))
    plots.save(figure, path)


def _curve(runs: Sequence[Sequence[float]] | np.ndarray) -> plots.Curve:
    """Means over seeds with normal intervals, from errors (seeds, T)."""
    rows = np.asarray(runs)
    error = rows.std(0, ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else np.zeros(rows.shape[1])
    return plots.Curve.means(EVERY * np.arange(1, rows.shape[1] + 1), rows.mean(0), error)
