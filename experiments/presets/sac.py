"""Tuned settings of soft actor-critic by environment."""

from __future__ import annotations

from mbrl.agents.sac import Config
from mbrl.learners.configs import SACConfig

_PENDULUM = Config(learning_starts=100, learner=SACConfig(learning_rate=1e-3))

# Random actions for longer, because a half-cheetah that learns from few starts stays on its back.
_MUJOCO = Config(learning_starts=5000)

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (20_000, _PENDULUM),
    "HalfCheetah-v5": (100_000, _MUJOCO),
    "Hopper-v5": (100_000, _MUJOCO),
    "Walker2d-v5": (100_000, _MUJOCO),
    "Ant-v5": (200_000, _MUJOCO),
    "Humanoid-v5": (200_000, _MUJOCO),
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (100_000, Config())
"""For environments without a preset."""
