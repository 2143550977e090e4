"""Tuned settings of A2C by environment: those of rl-baselines3-zoo."""

from __future__ import annotations

from mbrl.agents.a2c import Config
from mbrl.learners.on_policy_configs import A2CConfig

PRESETS: dict[str, tuple[int, Config]] = {
    "CartPole-v1": (500_000, Config()),
    "Acrobot-v1": (500_000, Config(normalise_obs=True, normalise_reward=True)),
    "Pendulum-v1": (
        1_000_000,
        Config(
            learner=A2CConfig(
                last_learning_rate=0.0,
                discount=0.9,
                trace_decay=0.9,
                value_weight=0.8,
                gsde=True,
                first_std=0.135,
                orthogonal=False,
            ),
            rollout=8,
            normalise_obs=True,
            normalise_reward=True,
        ),
    ),
}
"""Environment steps and settings."""

ENVS = {"CartPole-v1": 8, "Acrobot-v1": 16, "Pendulum-v1": 8}
"""Environments stepped side by side, where not one."""

OTHERS: tuple[int, Config] = (1_000_000, Config(normalise_obs=True, normalise_reward=True))
"""For environments without a preset."""
