"""Settings of TRPO by environment: those of rl-baselines3-zoo; on Pendulum γ is that of PPO."""

from __future__ import annotations

from mbrl.agents.trpo import Config
from mbrl.learners.on_policy_configs import TRPOConfig

PRESETS: dict[str, tuple[int, Config]] = {
    "CartPole-v1": (
        100_000,
        Config(learner=TRPOConfig(trace_decay=0.98, value_updates=20), rollout=512),
    ),
    "Acrobot-v1": (100_000, Config(rollout=1024, normalise_obs=True, normalise_reward=True)),
    "Pendulum-v1": (
        100_000,
        Config(
            learner=TRPOConfig(discount=0.95, value_updates=15, gsde=True, first_std=0.5),
            rollout=1024,
            noise_every=4,
        ),
    ),
}
"""Environment steps and settings."""

ENVS = {"CartPole-v1": 2, "Acrobot-v1": 2, "Pendulum-v1": 2}
"""Environments stepped side by side, where not one."""

OTHERS: tuple[int, Config] = (1_000_000, Config(normalise_obs=True, normalise_reward=True))
"""For environments without a preset."""
