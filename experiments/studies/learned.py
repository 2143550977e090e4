"""Models and data of the studies that compare what learned models know: calibration and ood."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

import envs
from experiments.studies import regression
from experiments.studies.lab import Lab
from mbrl.dynamics.table import MODELS, ModelConfig
from mbrl.training.executor import Work
from mbrl.types import Transition

SHARED: Mapping[str, Any] = {
    "hidden": (64, 64), "batch": 64, "learning_rate": 2e-3, "epochs": 60, "patience": 10,
    "members": 5,
}  # fmt: skip
"""What models share, as far as they do not say otherwise."""

SAMPLED: Mapping[str, Any] = {"members": 10, "epochs": 100, "patience": 20}
"""Of models whose members are samples of the weights."""

OWN: Mapping[str, Mapping[str, Any]] = {
    "ensemble": {},
    "normed-ensemble": {"homoscedastic": False, "batches_per_epoch": None, "patience": 5,
                        "epochs": 30},
    "anchored": {"bootstrap": True},
    "bayes-by-backprop": {**SAMPLED, "first_std": 0.02, "kl_weight": 0.1},
    "conditional-vae": {"epochs": 100, "patience": 20},
    "dropout": {**SAMPLED, "dropout": 0.02},
    "gp": {"members": 10, "points": 1000, "tuning_points": 500},
    "langevin": {**SAMPLED, "hidden": (16, 16), "networks": 2, "tuning_steps": 1000,
                 "samples": 20},
    "laplace": {**SAMPLED, "networks": 2},
    "sgmcmc": {**SAMPLED, "networks": 2, "cycles": 2, "cycle_steps": 1000, "cycle_samples": 5},
    "swag": {**SAMPLED, "networks": 2, "swag_epochs": 20,
             "swag_learning_rate": 1e-5},
}  # fmt: skip
"""What each model has of its own."""

EPISODE = 150
"""Steps of an episode."""

HOLDS = (1, 2, 5, 10)
"""Steps for which an action is held, in turn by episode."""


def settings(name: str, *, fast: bool = False) -> ModelConfig:
    """Settings of a model of the library."""
    kind = MODELS[name]
    known = {field.name for field in fields(kind)}
    config = kind(**{k: v for k, v in {**SHARED, **OWN[name]}.items() if k in known})
    return regression.fast(config) if fast else config


def compared(
    lab: Lab,
    environments: Iterable[str],
    measure: Callable[..., dict[str, Any]],
    budget: Any,
    pooled: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What is measured of every model in every environment; the names are `ENVIRONMENT MODEL`.

    Args:
        lab: chooses among them, and has the seeds.
        environments: names.
        measure: `measure(environment, config, budget, seed)`; its result has `failed`, a reason, if
            the model could not be fitted.
        budget: handed to it.
        pooled: makes one result of those of all seeds.

    Returns:
        The results by name, with `model` and `environment`; and a line for each failure.

    Raises:
        ValueError: no model could be fitted.
    """
    cells = {f"{env} {model}": (model, env) for env in environments for model in OWN}
    cells = {name: cells[name] for name in lab.chosen(cells)}
    answers = lab.answers(
        {
            (name, seed): Work(
                measure,
                (env, settings(model, fast=lab.fast), budget, seed),
                f"{name}, seed {seed}",
            )
            for name, (model, env) in cells.items()
            for seed in range(lab.seeds)
        }
    )
    found: dict[str, dict[str, Any]] = {}
    failed = []
    for name, (model, env) in cells.items():
        good = []
        for seed in range(lab.seeds):
            one = answers[name, seed]
            if "failed" in one:
                failed.append(f"The fit of {name}, seed {seed}, diverged: {one['failed']}")
            else:
                good.append(one)
        if good:
            found[name] = {"model": model, "environment": env, **pooled(good)}
    if not found:
        raise ValueError("no model could be fitted: " + "; ".join(failed))
    return found, failed


class Played(NamedTuple):
    """Episodes of equal length."""

    obs: Float[Tensor, "N T+1 O"]
    action: Float[Tensor, "N T A"]

    def transitions(self) -> Transition:
        """All steps, as rows."""
        before, after = self.obs[:, :-1].flatten(0, 1), self.obs[:, 1:].flatten(0, 1)
        never = torch.zeros(len(before), dtype=torch.bool)
        action = self.action.flatten(0, 1)
        return Transition(before, action, torch.zeros(len(before)), after, never, never)

    def pieces(self, steps: int, every: int) -> Played:
        """Pieces of `steps` steps, one from each `every` steps of each episode."""
        starts = range(0, self.action.shape[1] - steps + 1, every)
        return Played(
            torch.cat([self.obs[:, t : t + steps + 1] for t in starts]),
            torch.cat([self.action[:, t : t + steps] for t in starts]),
        )


def play(
    name: str,
    episodes: int,
    *,
    seed: int,
    steps: int = EPISODE,
    holds: Sequence[int] = HOLDS,
    size: float = 1.0,
    corners: bool = False,
    gravity: float = 1.0,
) -> Played:
    """Episodes of random actions, each held for some steps, in an environment of `envs`.

    Args:
        name: an environment whose episodes do not terminate.
        episodes: N.
        seed: of environment and actions.
        steps: T.
        holds: for how many steps an action is held, in turn by episode.
        size: share of the range of actions that is used.
        corners: whether actions are at the ends of this range, rather than uniform in it.
        gravity: factor of the world's gravity.
    """
    env: Any = envs.make(name)
    rng = np.random.default_rng((seed, 77))
    if gravity != 1.0:
        env.unwrapped.model.opt.gravity[:] *= gravity
    high = size * env.action_space.high
    seen, moves = [], []
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed * 100_000 + episode)
        hold, own, did, action = holds[episode % len(holds)], [obs], [], high
        for t in range(steps):
            if t % hold == 0:
                draw = rng.uniform(-1, 1, high.shape)
                action = (high * (np.sign(draw) if corners else draw)).astype(np.float32)
            obs, _, ended, _, _ = env.step(action)
            assert not ended
            own.append(obs)
            did.append(action)
        seen.append(own)
        moves.append(did)
    env.close()
    return Played(*(torch.from_numpy(np.array(part)).float() for part in (seen, moves)))


def fitted(config: ModelConfig, played: Played, *, generator: Generator) -> Any:
    """A model fitted to all steps of episodes.

    Raises:
        mbrl.dynamics.fitting.FitDiverged: the fit diverged.
    """
    sizes = played.obs.shape[-1], played.action.shape[-1]
    model = config.make(*sizes, generator=generator)
    model.fit(played.transitions(), generator=generator)
    return model
