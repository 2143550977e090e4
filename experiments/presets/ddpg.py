"""Tuned settings of deep deterministic policy gradient by environment."""

from __future__ import annotations

from mbrl.agents.ddpg import Config
from mbrl.learners.value_configs import DDPGConfig

_PENDULUM = Config(
    learning_starts=1000,
    batch=128,
    learner=DDPGConfig(hidden=(128, 128), learning_rate=1e-3, discount=0.98),
)

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (20_000, _PENDULUM),
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (100_000, Config())
"""For environments without a preset."""
