"""Tuned settings of REINFORCE by environment."""

from __future__ import annotations

from mbrl.agents.reinforce import Config
from mbrl.learners.on_policy_configs import ReinforceConfig

PRESETS: dict[str, tuple[int, Config]] = {
    "CartPole-v1": (500_000, Config(learner=ReinforceConfig(learning_rate=3e-3), episodes=5)),
}
"""Environment steps and settings."""

ENVS: dict[str, int] = {}
"""Environments stepped side by side, where not one."""

OTHERS: tuple[int, Config] = (500_000, Config())
"""For environments without a preset."""
