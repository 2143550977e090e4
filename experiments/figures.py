"""What `mbrl plot` and `mbrl compare` draw, and the numbers behind it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from experiments import plots
from experiments.build import Loaded, RunConfig, load_run
from experiments.statistics import probability_of_improvement, summarise
from mbrl.agents.pets import PETS, Controller
from mbrl.checkpoint import Run, RunError, written_whole
from mbrl.imagination import rollout
from mbrl.metrics import METRICS, read_metrics
from mbrl.training import episode_seed, generator, play
from mbrl.uncertainty import calibration_curve, calibration_error, particle_spread, spread

SPREAD_PARTICLES = 100
"""Particles per member for the spread along a plan."""


class Episode(NamedTuple):
    """One fresh episode, and what the plans along it promised."""

    obs: Tensor  # (T, O)
    action: Tensor  # (T, A)
    reward: Tensor  # (T,)
    next_obs: Tensor  # (T, O)
    promises: list[tuple[int, float]]  # (step, score) of each plan


def learning(path: Path) -> tuple[list[int], list[float]]:
    """Environment steps and returns of a run's episodes.

    Raises:
        RunError: no episode has ended yet.
    """
    lines = read_metrics(path / METRICS, "episode") if (path / METRICS).exists() else []
    if not lines:
        raise RunError(f"run {path} has no finished episode to draw yet")
    return [line["env_steps"] for line in lines], [line["return"] for line in lines]


def plot_runs(
    paths: Sequence[Path], *, episodes: int, seed: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """All figures of each run into RUN/plots, with their numbers in RUN/plots/numbers.json.

    The returns of several runs of one environment share one figure, in the first run's folder.

    Raises:
        RunError: see `load_run` and `learning`.
        EnvironmentError: see `mbrl.training.play`.
    """
    configs = [RunConfig.from_json(Run.open(path).config) for path in paths]
    curves: dict[str, list[Any]] = {}
    for path, config in zip(paths, configs, strict=True):
        curves.setdefault(f"{config.algo} on {config.env}", []).append(learning(path))
    target = paths[0] / "plots"
    target.mkdir(exist_ok=True)
    tell(str(plots.learning_curve(curves, target / "return.png")))
    numbers: dict[str, Any] = {}
    for path, config in zip(paths, configs, strict=True):
        (path / "plots").mkdir(exist_ok=True)
        steps, returns = learning(path)
        found: dict[str, Any] = {"env_steps": steps, "returns": returns}
        if config.algo == "pets":
            found |= model_figures(load_run(path), episodes=episodes, seed=seed, tell=tell)
        with written_whole(path / "plots" / "numbers.json") as temporary:
            temporary.write_text(json.dumps(found, indent=2) + "\n")
        numbers[str(path)] = found
    return numbers


def model_figures(
    loaded: Loaded, *, episodes: int, seed: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """The model of a PETS run, measured on fresh episodes of its own controller."""
    agent, folder = loaded.agent, loaded.run.path / "plots"
    assert isinstance(agent, PETS)
    if not agent.fits:
        tell("the model is not fitted yet: no figures of it")
        return {}
    controller = agent.controller(generator=generator(seed, 1))
    assert isinstance(controller, Controller)
    played = [
        record(controller, loaded, seed=episode_seed(seed, episode)) for episode in range(episodes)
    ]
    horizon = min(agent.mpc.planner.horizon * agent.mpc.action_repeat, len(played[0].obs))
    own = generator(seed, 2)
    errors, baseline = horizon_errors(agent, played, horizon, generator=own)
    numbers: dict[str, Any] = {
        "error_by_horizon": np.median(errors, 0).tolist(),
        "no_change_error_by_horizon": np.median(baseline, 0).tolist(),
    }
    tell(str(plots.model_error({"model": errors}, folder / "model_error.png", baseline=baseline)))

    predicted, realised = promises(agent, played)
    if len(predicted) > 1:
        numbers |= {"promised": predicted, "realised": realised}
        tell(str(plots.predicted_return(predicted, realised, folder / "predicted_return.png")))

    mean, std, target = one_step(agent, played)
    if agent.config.model.probabilistic:
        levels = torch.linspace(0.05, 0.95, 19, dtype=mean.dtype)
        observed = calibration_curve(mean, std, target, levels)
        numbers["calibration_error"] = float(calibration_error(levels, observed.mean(-1)))
        curve = {"one step, fresh episodes": observed.numpy()}
        tell(str(plots.calibration(levels.numpy(), curve, folder / "calibration.png")))

    length = len(played[0].obs)
    first = spread(mean[:, :length], std[:, :length])
    shown = list(range(min(mean.shape[-1], 6)))
    tell(
        str(
            plots.spread(
                np.arange(length) * step_seconds(loaded),
                first.aleatoric[:, shown].numpy(),
                first.epistemic[:, shown].numpy(),
                (target - mean.mean(0))[:length, shown].numpy(),
                folder / "episode_spread.png",
                [f"observation {i}" for i in shown],
            )
        )
    )
    tell(str(plan_spread(agent, played[0], horizon, folder / "plan_spread.png", generator=own)))
    return numbers


def record(controller: Controller, loaded: Loaded, *, seed: int) -> Episode:
    """Play one episode and keep what each plan promised."""
    steps, promised, plans = [], [], 0
    for step in play(controller, loaded.world.env, seed=seed):
        plan = controller.state.plan
        if controller.plans > plans and plan is not None:
            promised.append((len(steps), float(plan.score)))
            plans = controller.plans
        steps.append(step)
    columns = [
        torch.as_tensor(np.stack([np.asarray(getattr(step, name)) for step in steps])).double()
        for name in ("obs", "action", "reward", "next_obs")
    ]
    return Episode(*columns, promises=promised)


def horizon_errors(
    agent: PETS, played: Sequence[Episode], horizon: int, *, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Error (starts, H) of the particles' mean, and of predicting no change.

    Root mean square over observations, each in units of its std over the episodes.
    """
    scale = torch.cat([episode.obs for episode in played]).std(0).clamp_min(1e-6)
    errors, unchanged = [], []
    for episode in played:
        starts = range(0, len(episode.obs) - horizon + 1, 3)
        if not starts:
            continue
        obs = torch.stack([episode.obs[t] for t in starts]).float()
        actions = torch.stack([episode.action[t : t + horizon] for t in starts]).float()
        truth = torch.stack([episode.next_obs[t : t + horizon] for t in starts])
        imagined = rollout(
            agent.model,
            obs.to(agent.low.device),
            actions.to(agent.low.device),
            particles=4 * agent.model.members,
            reward=lambda obs, action, next_obs: next_obs[..., 0],
            generator=generator,
        )
        mean = imagined.state[:, :, 1:].mean(0).cpu().double()
        errors.append(((mean - truth) / scale).square().mean(-1).sqrt())
        unchanged.append(((obs.unsqueeze(1) - truth) / scale).square().mean(-1).sqrt())
    return torch.cat(errors).numpy(), torch.cat(unchanged).numpy()


def promises(agent: PETS, played: Sequence[Episode]) -> tuple[list[float], list[float]]:
    """Each plan's score, and the return over its horizon when it was made and kept to by MPC."""
    span = agent.mpc.planner.horizon * agent.mpc.action_repeat
    powers = agent.config.discount ** torch.arange(span, dtype=torch.double)
    predicted, realised = [], []
    for episode in played:
        for start, score in episode.promises:
            rewards = episode.reward[start : start + span]
            if len(rewards) == span:
                predicted.append(score)
                realised.append(float((rewards * powers).sum()))
    return predicted, realised


def one_step(agent: PETS, played: Sequence[Episode]) -> tuple[Tensor, Tensor, Tensor]:
    """Members' mean and std (E, T, O) of every next observation, and the observation (T, O)."""
    obs, action, target = (
        torch.cat([getattr(episode, name) for episode in played])
        for name in ("obs", "action", "next_obs")
    )
    members, device = agent.model.members, agent.low.device
    with torch.no_grad():
        gaussian = agent.model.predict(
            obs.float().to(device).expand(members, -1, -1),
            action.float().to(device).expand(members, -1, -1),
        )
    size = obs.shape[-1]
    mean, std = (part[..., :size].cpu().double() for part in gaussian)
    return mean, std, target


def plan_spread(
    agent: PETS, episode: Episode, horizon: int, path: Path, *, generator: torch.Generator
) -> Path:
    """The spread along the first actions of an episode, as predicted from its start."""
    device = agent.low.device
    imagined = rollout(
        agent.model,
        episode.obs[0].float().to(device),
        episode.action[:horizon].float().unsqueeze(0).to(device),
        particles=SPREAD_PARTICLES * agent.model.members,
        reward=lambda obs, action, next_obs: next_obs[..., 0],
        generator=generator,
    )
    states = imagined.state[:, 0, 1:].cpu().double()  # (P, H, O)
    scale = episode.obs.std(0).clamp_min(1e-6)
    parts = particle_spread(states / scale, members=agent.model.members)
    error = ((states.mean(0) - episode.next_obs[:horizon]) / scale).square().mean(-1).sqrt()
    return plots.horizon_spread(
        parts.aleatoric.mean(-1).numpy(),
        parts.epistemic.mean(-1).numpy(),
        path,
        error=error.numpy(),
        ylabel="std of the prediction, in stds of the observations",
    )


def step_seconds(loaded: Loaded) -> float:
    """Seconds in a control step, 1 where the environment does not say."""
    fps = loaded.world.env.metadata.get("render_fps")
    return 1 / fps if fps else 1.0


def compare_runs(
    paths: Sequence[Path], *, labels: Sequence[str] | None, last: int, out: Path
) -> tuple[Table, dict[str, Any]]:
    """A table and a learning-curve figure over runs, those with the same label as seeds.

    Runs are labelled by algorithm and environment, and where settings differ by what differs.

    Raises:
        RunError: not a run, or no finished episode.
        ValueError: runs of different environments.
    """
    configs = [RunConfig.from_json(Run.open(path).config) for path in paths]
    if len({config.env for config in configs}) > 1:
        found = ", ".join(sorted({config.env for config in configs}))
        raise ValueError(f"runs of different environments do not compare: {found}")
    labels = labels or _labels(configs)
    curves: dict[str, list[Any]] = {}
    for path, label in zip(paths, labels, strict=True):
        curves.setdefault(label, []).append(learning(path))
    results = {
        label: [float(np.mean(returns[-last:])) for _, returns in runs]
        for label, runs in curves.items()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    plots.learning_curve(curves, out, title=f"Return on {configs[0].env}")
    table = Table("runs", "seeds", "mean", "std", "IQM", "95 % interval", "better than first")
    numbers: dict[str, Any] = {}
    baseline = next(iter(results.values()))
    for label, values in results.items():
        rng = np.random.default_rng(0)
        numbers[label] = found = {"returns": values} | summarise(values, rng=rng)
        better = probability_of_improvement(values, baseline, rng=rng)
        interval = f"{found['iqm_low']:.1f} to {found['iqm_high']:.1f}"
        chance = "" if values is baseline else f"{better.estimate:.2f}"
        table.add_row(
            label,
            str(len(values)),
            f"{found['mean']:.1f}",
            f"{found['std']:.1f}",
            f"{found['iqm']:.1f}",
            interval,
            chance,
        )
    return table, numbers


def _labels(configs: Sequence[RunConfig]) -> list[str]:
    """Algorithm, and the settings in which runs of that algorithm differ."""
    flat = [_flat(dataclasses.asdict(config.agent)) for config in configs]
    labels = []
    for config, settings in zip(configs, flat, strict=True):
        same = [s for c, s in zip(configs, flat, strict=True) if c.algo == config.algo]
        differing = [name for name in settings if len({repr(s[name]) for s in same}) > 1]
        labels.append(" ".join([config.algo, *(f"{name}={settings[name]}" for name in differing)]))
    return labels


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
