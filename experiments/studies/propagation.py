"""The five propagations against Monte Carlo truth, on a system with one unknown parameter.

A ball on a ridge: x'' = θ sin x - v / 2 + noise, with θ one of E equally probable values, constant
along a trajectory. The ball rolls down one side or the other, so the states have two modes; a
steeper ridge pulls harder at every step, so the steps of a trajectory are correlated.

The library's learned models follow, fitted to steps of a ball on a ridge of one steepness: their
errors are those of the fit, which members of a model do not share, and of the propagation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies import learned
from experiments.studies.lab import Lab, Report
from mbrl.dynamics import Analytic
from mbrl.dynamics.fitting import FitDiverged
from mbrl.dynamics.table import ModelConfig
from mbrl.imagination import Propagation, objective, rollout
from mbrl.training.executor import Work, stop_if_asked
from mbrl.types import Transition

VALUES = (0.5, 1.0, 1.5, 2.0, 2.5)  # θ
DT = 0.1  # s
NOISE = (0.02, 0.1)  # std of the noise on x and v a step
HORIZON = 30
TAIL = 0.1
STATISTICS = ("mean", "std", f"CVaR {TAIL:g}")
AGAIN = "truth, drawn again"
THETA = 1.5
"""θ of the ball that models learn."""
ROWS = 300
"""Steps that they are fitted to."""


def propagation(lab: Lab) -> Report:
    """Errors in mean, std and CVaR of the return by horizon, for each propagation."""
    starts, particles, draws = (5, 100, 2000) if lab.fast else (30, 1000, 20_000)
    errors: dict[str, list[np.ndarray]] = {}  # each (starts, H, statistics)
    for seed in range(lab.seeds):
        rng = np.random.default_rng(seed)
        start = rng.uniform((-0.5, -0.3), (0.5, 0.3), (starts, 2))
        truth = statistics(brute_force(start, draws, rng))
        found = {AGAIN: statistics(brute_force(start, particles, rng))}
        for name in get_args(Propagation):
            found[name] = statistics(imagined(start, name, particles, seed))
        # In stds of the true return: a prediction without any spread has an error of 1 in std.
        for name, values in found.items():
            errors.setdefault(name, []).append(np.abs(values - truth) / truth[..., 1:2])
    every = {name: np.concatenate(parts) for name, parts in errors.items()}
    last = {name: np.median(error[:, -1], 0) for name, error in every.items()}
    ranked = sorted(get_args(Propagation), key=lambda name: last[name].sum())
    figure = plots.curves(
        {
            f"error in the {statistic}, in stds of the true return": {
                name: plots.Curve.quartiles(every[name][..., i]) for name in (*ranked, AGAIN)
            }
            for i, statistic in enumerate(STATISTICS)
        },
        title="Propagations against Monte Carlo truth",
        xlabel="horizon (steps)",
        log="y",
    )
    plots.save(figure, lab.folder / "propagation.png")
    rows = [[name, *(f"{value:.3f}" for value in last[name])] for name in (*ranked, AGAIN)]
    found, failed = models(lab, starts, particles, draws)
    own = [
        {"model": model, "propagation": name, **dict(zip(STATISTICS, errors[-1], strict=True))}
        for model, by_name in found.items()
        for name, errors in by_name.items()
    ]
    picture(found, lab.folder / "models.png")
    numbers: dict[str, Any] = {
        "models": {
            model: {
                name: dict(zip(STATISTICS, np.transpose(errors).tolist(), strict=True))
                for name, errors in by_name.items()
            }
            for model, by_name in found.items()
        },
        "failed": failed,
        "settings": {
            "values": VALUES, "dt": DT, "noise": NOISE, "horizon": HORIZON,
            "starts": starts, "particles": particles, "draws": draws,
        },
        "ranked": ranked,
        "median error by horizon": {
            name: dict(zip(STATISTICS, np.median(error, 0).T.tolist(), strict=True))
            for name, error in every.items()
        },
        "quartiles by horizon": {
            name: dict(
                zip(STATISTICS, np.quantile(error, (0.25, 0.75), 0).T.tolist(), strict=True)
            )
            for name, error in every.items()
        },
    }  # fmt: skip
    text = f"""# Propagations against Monte Carlo truth

A ball on a ridge of unknown but constant steepness with {len(VALUES)} equally probable values, and
known noise. Median over {starts * lab.seeds} starts of the error after {HORIZON} steps, in standard
deviations of the true return; {particles} particles (expectation takes one), truth from {draws}
draws a start. Best first.

{labs.table(["propagation", *STATISTICS], rows)}

"{AGAIN}" is the sampling error of {particles} draws of the truth itself. The steepness does not
change along a trajectory, which is what TS∞ assumes; TS1 and distribution sampling treat it as
noise that averages out. Moment matching fits one Gaussian, which has one mode instead of two, and
redraws all particles at each step, so no particle's return is that of a trajectory.

## Learned models

Models fitted to {ROWS} random steps of a ball on a ridge of steepness {THETA:g}; the same errors.

{
        labs.table(
            ["model", "propagation", *STATISTICS],
            [
                [row["model"], row["propagation"], *(f"{row[key]:.3f}" for key in STATISTICS)]
                for row in own
            ],
        )
    }

![Errors by horizon of each model and propagation](models.png)
"""
    return Report(numbers, text + "".join(f"\n{line}\n" for line in failed), own)


def models(
    lab: Lab, starts: int, particles: int, draws: int
) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """Median errors (H, statistics) by learned model and propagation; and fits that diverged."""
    names = ("ensemble", "laplace") if lab.fast else tuple(learned.OWN)
    answers = lab.answers(
        {
            (name, seed): Work(
                learned_errors,
                (learned.settings(name, fast=lab.fast), starts, particles, draws, seed),
                f"{name}, seed {seed}",
            )
            for name in names
            for seed in range(lab.seeds)
        }
    )
    found, failed = {}, []
    for name in names:
        own = [answers[name, seed] for seed in range(lab.seeds)]
        failed += [
            f"The fit of {name}, seed {seed}, diverged: {one['failed']}"
            for seed, one in enumerate(own)
            if "failed" in one
        ]
        good = [one for one in own if "failed" not in one]
        if good:
            found[name] = {
                key: np.median(np.concatenate([one[key] for one in good]), 0) for key in good[0]
            }
    return found, failed


def learned_errors(
    config: ModelConfig, starts: int, particles: int, draws: int, seed: int
) -> dict[str, Any]:
    """Errors (starts, H, statistics) of a learned model by propagation, in stds of the return."""
    rng, draw = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    at = rng.uniform((-2, -2), (2, 2), (ROWS, 2))
    after = stepped(at[:, 0], at[:, 1], THETA, rng)
    obs, next_obs = (torch.from_numpy(part).float() for part in (at, np.stack(after, -1)))
    never = torch.zeros(ROWS, dtype=torch.bool)
    data = Transition(obs, torch.zeros(ROWS, 1), torch.zeros(ROWS), next_obs, never, never)
    model = config.make(2, 1, generator=draw)
    try:
        model.fit(data, generator=draw)
    except FitDiverged as error:
        return {"failed": str(error)}
    start = rng.uniform((-0.5, -0.3), (0.5, 0.3), (starts, 2))
    truth = statistics(brute_force(start, draws, rng, values=(THETA,)))
    found: dict[str, Any] = {}
    for name in get_args(Propagation):
        stop_if_asked()
        values = statistics(imagined(start, name, particles, seed, model))
        found[name] = (np.abs(values - truth) / truth[..., 1:2]).tolist()
    return found


def picture(found: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """Errors by horizon: a panel for each propagation and statistic, a curve for each model."""
    steps = np.arange(1, HORIZON + 1)
    panels = {
        f"{name}: error in the {statistic}": {
            model: plots.Curve(steps, errors[name][:, i]) for model, errors in found.items()
        }
        for i, statistic in enumerate(STATISTICS)
        for name in get_args(Propagation)
    }
    figure = plots.curves(
        panels, title="Learned models against Monte Carlo truth, in stds of the return",
        xlabel="horizon (steps)", log="y", columns=len(get_args(Propagation)), size=(17, 10),
    )  # fmt: skip
    columns = len(get_args(Propagation))
    for row in range(len(STATISTICS)):
        axes = figure.axes[row * columns : (row + 1) * columns]
        low, high = zip(*(ax.get_ylim() for ax in axes), strict=True)
        for ax in axes:
            ax.set_ylim(min(low), max(high))
    plots.save(figure, path)


def reward(obs: Any, action: Any, next_obs: Any) -> Any:
    """The ball's height, cos x, (...)."""
    return torch.cos(next_obs[..., 0])


def stepped(
    x: np.ndarray, v: np.ndarray, theta: np.ndarray | float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """x and v one noisy step later."""
    pull = theta * np.sin(x) - 0.5 * v
    noise = [std * rng.standard_normal(x.shape) for std in NOISE]
    return x + DT * v + noise[0], v + DT * pull + noise[1]


def brute_force(
    start: np.ndarray,
    draws: int,
    rng: np.random.Generator,
    *,
    values: Sequence[float] = VALUES,
) -> np.ndarray:
    """Returns (starts, draws, H) up to each step, simulated without the library."""
    theta = rng.choice(values, (len(start), draws))
    x, v = (np.repeat(column[:, None], draws, 1) for column in start.T)
    gains = np.empty((HORIZON, *x.shape))
    for t in range(HORIZON):
        x, v = stepped(x, v, theta, rng)
        gains[t] = np.cos(x)
    return np.moveaxis(gains.cumsum(0), 0, -1)


def imagined(
    start: np.ndarray, name: Propagation, particles: int, seed: int, model: Any = None
) -> np.ndarray:
    """Returns (starts, P, H) up to each step, of `rollout` with a propagation.

    The model is the formula with all values of θ if None.
    """

    def mean(state: torch.Tensor, _: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        x, v = state.unbind(-1)
        return torch.stack((x + DT * v, v + DT * (theta * x.sin() - 0.5 * v)), -1)

    model = model or Analytic(mean, torch.tensor(NOISE), torch.tensor(VALUES))
    trajectories = rollout(
        model,
        torch.as_tensor(start, dtype=torch.float32),
        torch.zeros(len(start), HORIZON, 1),
        particles=particles,
        propagation=name,
        reward=reward,
        generator=torch.Generator().manual_seed(seed),
    )
    return trajectories.reward.double().cumsum(-1).transpose(0, 1).numpy()


def statistics(returns: np.ndarray) -> np.ndarray:
    """Mean, std and CVaR (starts, H, 3) of returns (starts, P, H)."""
    tail = objective(f"cvar:{TAIL}")
    flat = torch.as_tensor(np.moveaxis(returns, 1, 0).reshape(returns.shape[1], -1))
    cvar = tail(flat).numpy().reshape(returns.shape[0], -1)
    return np.stack((returns.mean(1), returns.std(1), cvar), -1)
