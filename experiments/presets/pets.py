"""Tuned settings of PETS by environment."""

from __future__ import annotations

from dataclasses import replace

from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.agents.pets import Config
from mbrl.dynamics import EnsembleConfig

_SMALL = EnsembleConfig(
    hidden=(128, 128, 128),
    batch=32,
    learning_rate=2e-3,
    weight_decay=1e-5,
    epochs=40,
)

_CARTPOLE = Config(
    mpc=MPCConfig(
        planner=PlannerConfig(horizon=25, population=40, iterations=3, elites=6),
        replan_every=2,
        particles=5,
    ),
    model=_SMALL,
    random_steps=150,
    fit_every=50,
)

# A small sigma, because the torque cost of wide draws exceeds what the arm needs by far.
_REACHER = Config(
    mpc=MPCConfig(
        planner=PlannerConfig(
            horizon=25, population=60, iterations=5, elites=8, sigma=0.05, answer="mean"
        ),
        replan_every=2,
        particles=5,
    ),
    model=EnsembleConfig(hidden=(200, 200, 200), batch=128, epochs=30),
    random_steps=150,
)

_PUSHER = replace(
    _REACHER,
    mpc=replace(_REACHER.mpc, planner=replace(_REACHER.mpc.planner, iterations=4, sigma=0.1)),
)

_LARGE = Config(
    mpc=MPCConfig(
        planner=PlannerConfig(horizon=30, population=100, iterations=3, elites=10), particles=5
    ),
    model=EnsembleConfig(batch=256),
    random_steps=1000,
)

PRESETS: dict[str, tuple[int, Config]] = {
    "cartpole-swingup": (900, _CARTPOLE),
    "cartpole-swingup-noisy": (1500, _CARTPOLE),
    "pendulum-swingup": (1000, replace(_CARTPOLE, random_steps=200)),
    "arm-reacher": (3000, _REACHER),
    "arm-pusher": (3000, _PUSHER),
    "half-cheetah": (50_000, _LARGE),
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (20_000, _LARGE)
"""For environments without a preset; `preset` adds what the model has to learn of them."""
