"""Settings of value expansion by environment."""

from __future__ import annotations

from mbrl.agents.mve import Config
from mbrl.dynamics.configs import EnsembleConfig
from mbrl.learners.configs import SACConfig
from mbrl.learners.value_configs import DDPGConfig, TD3Config

_MODEL = EnsembleConfig(
    members=5, hidden=(128, 128, 128), batch=64, holdout=0.2, patience=5, weight_decay=1e-5
)
_SMALL = Config(
    model=_MODEL,
    ddpg=DDPGConfig(hidden=(128, 128)),
    td3=TD3Config(hidden=(128, 128), learning_rate=1e-3),
    sac=SACConfig(learning_rate=1e-3),
    learning_starts=200,
    fit_every=100,
    batch=128,
)

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (3000, _SMALL),
    "cartpole-swingup": (5000, _SMALL),
    "pendulum-swingup": (5000, _SMALL),
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (100_000, Config(td3=TD3Config(hidden=(256, 256), learning_rate=3e-4)))
"""For environments without a preset; `preset` adds what the model has to learn of them."""
