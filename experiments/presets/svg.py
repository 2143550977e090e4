"""Tuned settings of stochastic value gradients by environment.

Where it says so, numbers of steps are those of actions, each taken for two steps (`--env-repeat
2`).
"""

from __future__ import annotations

from dataclasses import replace

from experiments.presets import DISCOUNTS
from mbrl.agents.svg import LEARNER, Config
from mbrl.dynamics import NormedEnsembleConfig

_MODEL = NormedEnsembleConfig(patience=10, epochs=40, learn_reward=True)
_LARGE = Config(model=_MODEL, learning_starts=5000)

# Critics scaled to the range of returns learn large values in fewer updates.
_SMALL = Config(
    learner=replace(
        LEARNER,
        horizon=5,
        hidden=(128, 128),
        learning_rate=1e-3,
        bounded=True,
        range_rate=0.01,
    ),
    model=replace(_MODEL, members=5, hidden=(128, 128)),
    learning_starts=200,
    fit_every=200,
    updates=2,
    batch=125,
    log_every=200,
)

# Rewards are small at first; a temperature of 1 would hide them.
_CART_POLE = replace(
    _SMALL,
    learner=replace(_SMALL.learner, discount=DISCOUNTS["cartpole-swingup"], first_temperature=0.1),
)

_SUITE = replace(_LARGE, learning_starts=2500, fit_every=500)

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (3000, _SMALL),
    "cartpole-swingup": (5000, _CART_POLE),
    "InvertedPendulum-v5": (5000, replace(_SMALL, learning_starts=500)),
    "HalfCheetah-v5": (50_000, _LARGE),
    "Hopper-v5": (50_000, _LARGE),
    "dmc-cartpole-swingup": (10_000, _SUITE),  # --env-repeat 2
    "dmc-ball-in-cup-catch": (10_000, _SUITE),  # --env-repeat 2
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (50_000, _LARGE)
"""For environments without a preset; `preset` adds the termination where it is to be learned."""
