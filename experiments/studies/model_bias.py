"""How far can a model's returns be trusted? Their bias and variance by length of the rollout.

A policy is trained by MBPO; models are fitted to parts of its data, and their returns are compared
with those that the policy really has from the same states, by the pendulum's exact physics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import envs
from experiments import plots
from experiments.plots.lines import Curve
from experiments.studies import lab as labs
from experiments.studies.common import measured
from experiments.studies.lab import Lab, Report
from experiments.studies.pendulum import ENV, Pendulum
from experiments.studies.wrong_model import config
from mbrl.imagination import rollout
from mbrl.training.executor import stop_if_asked
from mbrl.training.runs import load_run
from mbrl.types import Transition

AMOUNTS = (250, 500, 1000, 2000)
LENGTH, STARTS, PARTICLES, SHOWN = 50, 200, 20, (1, 5, 10, 25, 50)
MEASURES = {
    "bias": "mean of predicted less real return",
    "error": "root mean square of their difference, of the particles' mean",
    "spread": "std of the particles' returns",
}


def model_bias(lab: Lab) -> Report:
    """Bias, error and spread of predicted returns by length and amount of data."""
    run = config(lab, 3, None)
    paths = lab.train({"mbpo": run})["mbpo"]
    amounts = (100, 200) if lab.fast else AMOUNTS
    sizes = (5, 20) if lab.fast else (LENGTH, STARTS)
    asked = {
        str(amount): [(path, amount, *sizes, seed) for seed, path in enumerate(paths)]
        for amount in amounts
    }
    answers = measured(lab, errors, asked)
    lengths = np.arange(1, sizes[0] + 1)
    curves = {name: {f"{n} steps": _curve(lengths, answers[n], name) for n in asked}
              for name in MEASURES}  # fmt: skip
    figure = plots.curves(
        {f"{name}: {said}": curves[name] for name, said in MEASURES.items()},
        title="Returns by a learned model, Pendulum-v1",
        xlabel="length of the rollout, steps",
        ylabel="in units of the return",
        size=(16, 4.8),
    )
    plots.save(figure, lab.folder / "model_bias.png")
    shown = [k for k in SHOWN if k <= sizes[0]]
    numbers: dict[str, Any] = {
        "starts": sizes[1],
        "particles": PARTICLES,
        **{
            f"{n} steps": {
                name: {
                    str(k): labs.summary([one[name][k - 1] for one in answers[n]])
                    for k in (*shown, sizes[0])
                }
                for name in (*MEASURES, "return")
            }
            for n in asked
        },
    }
    rows = [
        [n, name, *(labs.shown(numbers[f"{n} steps"][name][str(k)], 2) for k in shown)]
        for n in asked
        for name in (*MEASURES, "return")
    ]
    text = f"""# Returns by a learned model

A policy of MBPO after {run.steps:,} steps in {ENV}, and ensembles fitted to the first of its
steps. Undiscounted returns of k steps from {sizes[1]} real states: predicted by {PARTICLES}
particles, each step by a member drawn anew, less the real ones of the same policy. Interquartile
mean over {lab.seeds} seeds [95 % bootstrap interval].

{labs.table(["data", "", *(f"k {k}" for k in shown)], rows)}
"""
    return Report(numbers, text)


def errors(path: Path, amount: int, length: int, starts: int, seed: int) -> dict[str, list[float]]:
    """Measures for k = 1 ... `length`, of a model fitted to the first `amount` steps of a run."""
    loaded = load_run(path, make_env=envs.make)
    agent, generator = loaded.agent, torch.Generator().manual_seed(seed)
    data = agent.replay.all()
    some = Transition(*(column[:amount] for column in data))
    model = agent.config.model.make(3, 1, generator=generator)
    stop_if_asked()
    model.fit(some, generator=generator)
    state = data.obs[torch.randint(len(data.obs), (starts,), generator=generator)]
    return compared(model, agent.policy, state, agent.reward, length=length, generator=generator)


def compared(
    model: Any,
    policy: Any,
    state: torch.Tensor,
    reward: Any,
    *,
    length: int,
    generator: torch.Generator,
) -> dict[str, list[float]]:
    """Measures of a model's returns against those of the exact physics."""
    settings = {"horizon": length, "reward": reward, "explore": False, "generator": generator}
    particles = -(-PARTICLES // model.members) * model.members
    with torch.no_grad():
        predicted = rollout(
            model, state, policy, particles=particles, propagation="ts1", **settings
        )
        real = rollout(Pendulum(3, 1), state, policy, particles=1, **settings)
    returns = predicted.reward.double().cumsum(-1)  # (P, N, H)
    truth = real.reward[0].double().cumsum(-1)  # (N, H)
    off = returns.mean(0) - truth
    return {
        "bias": off.mean(0).tolist(),
        "error": off.square().mean(0).sqrt().tolist(),
        "spread": returns.var(0).mean(0).sqrt().tolist(),
        "return": truth.mean(0).tolist(),
    }


def _curve(lengths: np.ndarray, seeds: list[dict[str, list[float]]], name: str) -> Curve:
    low, middle, high = np.quantile([one[name] for one in seeds], (0.25, 0.5, 0.75), axis=0)
    return Curve(lengths, middle, low, high)
