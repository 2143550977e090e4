"""Tuned settings of deep Q-learning by environment."""

from __future__ import annotations

from dataclasses import replace

from mbrl.agents.dqn import Config
from mbrl.learners.value_configs import DQNConfig

_CARTPOLE = Config(
    learning_starts=1000,
    train_every=256,
    updates=128,
    batch=64,
    capacity=100_000,
    n_step=3,  # without it, and without the decay, the last policy's return is anything from 100 on
    learner=DQNConfig(
        hidden=(128, 128),
        learning_rate=1e-3,
        last_learning_rate=1e-5,
        discount=0.99,
        double=True,
        target_every=128,
        last_exploration=0.04,
        exploration_steps=8000,
    ),
)

_ACROBOT = Config(
    train_every=4,
    batch=128,
    capacity=50_000,
    learner=DQNConfig(
        learning_rate=6.3e-4,
        discount=0.99,
        target_every=250,
        last_exploration=0.1,
        exploration_steps=12_000,
    ),
)

PRESETS: dict[str, tuple[int, Config]] = {
    "CartPole-v1": (50_000, _CARTPOLE),
    "Acrobot-v1": (100_000, _ACROBOT),
    "LunarLander-v3": (100_000, replace(_ACROBOT, learning_starts=1)),  # the zoo's, for both
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (100_000, _ACROBOT)
"""For environments without a preset."""
