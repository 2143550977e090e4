"""Tuned settings of the actor-critic by environment."""

from __future__ import annotations

from mbrl.agents.actor_critic import Config
from mbrl.learners.on_policy_configs import ActorCriticConfig

PRESETS: dict[str, tuple[int, Config]] = {
    "CartPole-v1": (200_000, Config(learner=ActorCriticConfig(learning_rate=3e-3))),
}
"""Environment steps and settings."""

ENVS: dict[str, int] = {}
"""Environments stepped side by side, where not one."""

OTHERS: tuple[int, Config] = (1_000_000, Config(normalise_obs=True, normalise_reward=True))
"""For environments without a preset."""
