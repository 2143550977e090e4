"""Tuned settings of planning in latent space by environment; sizes are for two cores of a CPU."""

from __future__ import annotations

from dataclasses import replace

from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.agents.latent_pets import Config
from mbrl.dynamics.recurrent_config import RecurrentConfig

_PLAN = MPCConfig(
    PlannerConfig("cem", horizon=12, population=120, iterations=4, elites=12),
    propagation="expectation",
    noise=0.3,
)

_VECTORS = Config(
    mpc=_PLAN,
    model=RecurrentConfig(
        latent=16,
        deterministic=128,
        width=128,
        hidden=(128, 128),
        noise=0.1,
        reward_noise=0.1,
        free_nats=1.0,
        batch=32,
        length=32,
    ),
    random_steps=625,
)

# The model remembers, so one frame is enough; three of them are slower.
_VIEWS = ("", "-stack1", "-48-stack1")

# With less noise around images the model predicts rewards worse some steps ahead: it spends its
# states on pixels. ReLU units of a small decoder die in the first updates.
_IMAGES = replace(
    _VECTORS,
    model=replace(
        _VECTORS.model,
        latent=30,
        noise=0.5,
        min_std=0.03,
        channels=8,
        batch=16,
        length=20,
        learning_rate=2e-3,
    ),
)
_TASKS: dict[str, tuple[int, Config]] = {
    "dmc-cartpole-swingup-pixels": (12_500, _IMAGES),  # --env-repeat 8
    "dmc-reacher-easy-pixels": (25_000, replace(_IMAGES, random_steps=1250)),  # --env-repeat 4
    "pendulum-swingup-pixels": (5000, replace(_IMAGES, random_steps=375)),  # --env-repeat 2
}

PRESETS: dict[str, tuple[int, Config]] = {
    "dmc-cartpole-swingup": (6250, _VECTORS),  # --env-repeat 8
    **{f"{name}{view}": found for name, found in _TASKS.items() for view in _VIEWS},
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (20_000, _VECTORS)
"""For environments without a preset; `preset` adds what the model has to learn of them."""
