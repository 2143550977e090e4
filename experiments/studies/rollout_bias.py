"""Policy gradients from whole rollouts in a learned model: their error against the horizon.

The gradient of the H-step return under a model is compared with that under the truth. Neither has
sampling error: in a linear-Gaussian world both are closed forms, and on the pendulum both are
derivatives through the same rollouts without noise, so what is left is the model's bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.common import measured
from experiments.studies.lab import Lab, Report
from mbrl.dynamics import Ensemble, EnsembleConfig
from mbrl.dynamics.analytic import Analytic
from mbrl.imagination import rollout
from mbrl.nn import StackedMLP
from mbrl.types import Transition

HORIZONS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100)
SHOWN = (1, 10, 30, 100)
"""Horizons of the table."""

WORLDS: Mapping[str, tuple[int, ...]] = {"two carts": (50, 200, 1000), "pendulum": (300, 3000)}
"""Real steps that models are fitted to, by world."""

NOISE, EXPLORATION = 0.05, 0.3
"""Std of the carts' noise in each dimension, and of the policy's actions."""

MODEL = EnsembleConfig(hidden=(64, 64), activation="silu", epochs=150, batch=64, holdout=0.2)
STARTS, DT, GRAVITY = 50, 0.05, 10.0


def rollout_bias(lab: Lab) -> Report:
    """Cosine and relative error of model-based policy gradients by horizon and amount of data."""
    horizons = tuple(h for h in HORIZONS if not lab.fast or h <= 10)
    sizes = {name: counts[:2] if lab.fast else counts for name, counts in WORLDS.items()}
    work = {"two carts": carts_bias, "pendulum": pendulum_bias}
    found: dict[str, dict[int, np.ndarray]] = {}
    for world, counts in sizes.items():
        asked = {
            f"{world}, {count} steps": [
                (count, seed, horizons, lab.fast) for seed in range(lab.seeds)
            ]
            for count in counts
        }
        answers = measured(lab, work[world], asked)
        found[world] = {n: np.array(answers[f"{world}, {n} steps"]) for n in counts}
    numbers = {
        "horizons": horizons,
        **{
            world: {
                str(count): {
                    name: [labs.summary(array[:, i, column].tolist()) for i in range(len(horizons))]
                    for column, name in enumerate(("cosine", "relative error"))
                }
                for count, array in by_count.items()
            }
            for world, by_count in found.items()
        },
    }
    picture(found, horizons, lab.folder / "rollout_bias.png")
    return Report(numbers, page(numbers, horizons, lab.seeds))


def page(numbers: Mapping[str, Any], horizons: tuple[int, ...], seeds: int) -> str:
    """The study's page, in Markdown."""
    columns = [i for i, horizon in enumerate(horizons) if horizon in SHOWN]
    head = ["world", "real steps", *(f"H = {horizons[i]}" for i in columns)]
    tables = {
        name: labs.table(
            head,
            [
                [world, count, *(labs.shown(own[name][i], 3) for i in columns)]
                for world in WORLDS
                for count, own in numbers[world].items()
            ],
        )
        for name in ("cosine", "relative error")
    }
    return f"""# Bias of policy gradients from whole rollouts in a learned model

Interquartile mean over {seeds} models [95 % bootstrap interval], each fitted to random steps of its
own. The gradient is that of the undiscounted H-step return; sampling adds no error to it.

## Cosine with the true gradient

{tables["cosine"]}

## Relative error: |model's gradient - true gradient| / |true gradient|

{tables["relative error"]}

A model's error at one step enters all states that follow, so the error of the gradient grows with
the horizon, and less with more data. On the carts, whose model is linear as the world is, only the
number of steps limits it. On the pendulum small differences are amplified wherever it passes the
top, for the truth as for the model: over long horizons the two gradients then have little to do
with one another, which more data put off but do not prevent. Where the relative error is large and
the cosine still high, the direction is of use and the length is not; TRPO and PPO bound the step.
"""


def picture(
    found: Mapping[str, Mapping[int, np.ndarray]], horizons: tuple[int, ...], path: Path
) -> None:
    """Cosine and relative error by horizon, a row for each world."""
    title = "Policy gradients from whole rollouts in a model"
    figure, axes = plots.panels(title, len(found), 2, (11.5, 7.6))
    grid = np.asarray(axes).reshape(len(found), 2)
    for row, (world, by_count) in zip(grid, found.items(), strict=True):
        for column, (ax, name) in enumerate(zip(row, ("cosine", "relative error"), strict=True)):
            for (count, array), colour in zip(by_count.items(), plots.COLOURS, strict=False):
                ends = [labs.interval(own.tolist()) for own in array[:, :, column].T]
                line = plots.Curve.intervals(horizons, ends)
                plots.draw_curve(ax, line, color=colour, lw=2.2, label=f"{count} real steps")
            ax.set(xlabel="horizon H", ylabel=f"{name} of the gradient")
            if column:
                ax.set_yscale("log")
            plots.note(ax, world)
            ax.legend(frameon=False, fontsize=9.5)
    plots.save(figure, path)


def compared(model: Sequence[Tensor], truth: Sequence[Tensor]) -> tuple[float, float]:
    """Cosine of two gradients, and their distance in units of the second's length."""
    one, other = (torch.cat([part.flatten() for part in each]).double() for each in (model, truth))
    cosine = float(one @ other / (one.norm() * other.norm()).clamp_min(1e-300))
    return cosine, float((one - other).norm() / other.norm())


class Linear(NamedTuple):
    """s' = A s + B a + noise of covariance W."""

    state: Float[Tensor, "S S"]
    action: Float[Tensor, "S A"]
    noise: Float[Tensor, "S S"]


def carts() -> Linear:
    """Two carts that a spring joins, and their positions and speeds after 0.1 s."""
    pull, drag, dt = 4.0, 0.2, 0.1
    a = torch.eye(4, dtype=torch.double)
    a[0, 2] = a[1, 3] = dt
    a[2, :2] = dt * pull * torch.tensor([-1.0, 1.0], dtype=torch.double)
    a[3, :2] = -a[2, :2]
    a[2, 2] = a[3, 3] = 1 - dt * drag
    b = torch.zeros(4, 2, dtype=torch.double)
    b[2, 0] = b[3, 1] = dt
    return Linear(a, b, NOISE**2 * torch.eye(4, dtype=torch.double))


GAIN = torch.tensor([[-0.4, 0.0, -0.3, 0.0], [0.0, -0.4, 0.0, -0.3]], dtype=torch.double)
"""K of the policy a = K s + exploration, which damps both carts."""


def returns(world: Linear, gain: Float[Tensor, "A S"], horizon: int) -> list[Tensor]:
    """Expected returns of 1, 2, ..., H steps from s ~ N(0, I), for the reward -|s'|² - 0.1 |a|²."""
    explored = EXPLORATION**2 * torch.eye(len(gain), dtype=gain.dtype)
    closed = world.state + world.action @ gain
    added = world.noise + world.action @ explored @ world.action.T
    second, total, found = torch.eye(len(closed), dtype=gain.dtype), torch.zeros(()), []
    for _ in range(horizon):
        effort = torch.trace(gain @ second @ gain.T + explored)
        second = closed @ second @ closed.T + added
        total = total - torch.trace(second) - 0.1 * effort
        found.append(total)
    return found


def carts_bias(
    count: int, seed: int, horizons: tuple[int, ...], fast: bool
) -> list[tuple[float, float]]:
    """Cosine and relative error by horizon, for a linear model of so many random steps."""
    draw, world = torch.Generator().manual_seed(seed), carts()
    return biases(lambda gain: returns(fitted(world, count, draw), gain, max(horizons)), horizons)


def biases(
    under_model: Callable[[Tensor], list[Tensor]], horizons: tuple[int, ...]
) -> list[tuple[float, float]]:
    """Cosine and relative error on the carts, of returns under a model."""
    gain = GAIN.clone().requires_grad_()
    model, truth = under_model(gain), returns(carts(), gain, max(horizons))
    return [
        compared(*(
            torch.autograd.grad(each[h - 1], [gain], retain_graph=True) for each in (model, truth)
        ))
        for h in horizons
    ]  # fmt: skip


def fitted(world: Linear, count: int, draw: Generator) -> Linear:
    """Least squares of so many steps from random states by random actions."""
    state = torch.randn(count, 4, dtype=torch.double, generator=draw)
    action = torch.randn(count, 2, dtype=torch.double, generator=draw)
    noise = NOISE * torch.randn(count, 4, dtype=torch.double, generator=draw)
    after = state @ world.state.T + action @ world.action.T + noise
    rows = torch.cat((state, action), -1)
    found = torch.linalg.lstsq(rows, after).solution.T
    off = after - rows @ found.T
    return Linear(found[:, :4], found[:, 4:], off.T @ off / (count - rows.shape[1]))


def swing(state: Tensor, action: Tensor, _: Tensor) -> Tensor:
    """The next observation (cos θ, sin θ, speed) of gymnasium's Pendulum-v1; θ = 0 is upright."""
    cosine, sine, speed = state.unbind(-1)
    torque = action[..., 0].clamp(-2.0, 2.0)
    speed = (speed + DT * (1.5 * GRAVITY * sine + 3 * torque)).clamp(-8.0, 8.0)
    angle = torch.atan2(sine, cosine) + DT * speed
    return torch.stack((angle.cos(), angle.sin(), speed), -1)


def swing_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Pendulum-v1's reward."""
    angle = torch.atan2(obs[..., 1], obs[..., 0])
    return -(angle**2 + 0.1 * obs[..., 2] ** 2 + 0.001 * action[..., 0] ** 2)


def hanging(count: int, draw: Generator) -> Float[Tensor, "N 3"]:
    """Starts as of Pendulum-v1: any angle, speeds in [-1, 1]."""
    angle = math.pi * (2 * torch.rand(count, generator=draw) - 1)
    speed = 2 * torch.rand(count, generator=draw) - 1
    return torch.stack((angle.cos(), angle.sin(), speed), -1)


def pendulum() -> Analytic:
    """The true pendulum as a model."""
    return Analytic(swing, torch.zeros(3), torch.zeros(1))


def pendulum_bias(
    count: int, seed: int, horizons: tuple[int, ...], fast: bool
) -> list[tuple[float, float]]:
    """Cosine and relative error by horizon, for an ensemble of so many random steps."""
    draw, truth = torch.Generator().manual_seed(seed), pendulum()
    episodes = -(-count // 100)
    actions = 4 * torch.rand(episodes, 100, 1, generator=draw) - 2
    seen = rollout(
        truth, hanging(episodes, draw), actions, particles=1, sample=False, generator=draw
    )
    rows = seen.transitions()
    rows = Transition(*(column[:count] for column in rows))
    config = EnsembleConfig(hidden=(16,), epochs=3) if fast else MODEL
    model = Ensemble(3, 1, config, generator=draw)
    model.fit(rows, generator=draw)
    net = StackedMLP(
        1, (3, 16, 1), activation="tanh", init="orthogonal", last_gain=1.0, generator=draw
    )
    starts = hanging(10 if fast else STARTS, draw)
    gradients = [slopes(each, net, starts, horizons, draw) for each in (model, truth)]
    return [compared(*pair) for pair in zip(*gradients, strict=True)]


def slopes(
    model: Any, net: StackedMLP, starts: Tensor, horizons: tuple[int, ...], draw: Generator
) -> list[list[Tensor]]:
    """By horizon, the gradient of the policy's mean return, over members and starts."""

    def policy(state: Tensor, *, generator: Generator, explore: bool) -> Tensor:
        return 2 * net(state.reshape(1, -1, 3)).view(*state.shape[:-1], 1).tanh()

    imagined = rollout(
        model,
        starts,
        policy,
        horizon=max(horizons),
        particles=model.members,
        sample=False,
        reward=swing_reward,
        gradients=True,
        generator=draw,
    )
    totals = imagined.reward.mean((0, 1)).cumsum(0)
    parameters = list(net.parameters())
    return [
        list(torch.autograd.grad(totals[h - 1], parameters, retain_graph=True)) for h in horizons
    ]
