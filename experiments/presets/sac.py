"""Tuned settings of soft actor-critic by environment."""

from __future__ import annotations

from mbrl.agents.sac import Config
from mbrl.learners.configs import SACConfig

_PENDULUM = Config(learning_starts=100, learner=SACConfig(learning_rate=1e-3))

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (20_000, _PENDULUM),
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (100_000, Config())
"""For environments without a preset."""
