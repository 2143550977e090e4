"""Tuned settings of TD3 by environment."""

from __future__ import annotations

from dataclasses import replace

from experiments.presets import DISCOUNTS
from mbrl.agents.td3 import Config
from mbrl.learners.value_configs import TD3Config

_PENDULUM = Config(
    learning_starts=1000,
    batch=128,
    learner=TD3Config(hidden=(128, 128), learning_rate=1e-3, discount=0.98),
)

_MUJOCO = Config(learning_starts=25_000, learner=TD3Config(hidden=(256, 256), learning_rate=3e-4))
"""Those of the authors' code."""

_ROBOT = Config(normalise_obs=True, learner=TD3Config(hidden=(256, 256)))

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (20_000, _PENDULUM),
    **{
        f"{name}-v5": (1_000_000, _MUJOCO)
        for name in ("Ant", "HalfCheetah", "Hopper", "Humanoid", "Swimmer", "Walker2d")
    },
    **{
        env: (
            100_000,
            replace(
                _ROBOT,
                learner=replace(_ROBOT.learner, discount=discount),
                scale_reward=env == "cartpole-servo",  # costs of 20 a step
            ),
        )
        for env, discount in DISCOUNTS.items()
    },
    **{
        f"{name}-v5": (1_000_000, Config(learner=_MUJOCO.learner))
        for name in ("InvertedPendulum", "InvertedDoublePendulum", "Reacher")
    },
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (100_000, Config())
"""For environments without a preset."""
