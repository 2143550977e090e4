"""Tuned settings of the policy gradient in a learned model by environment."""

from __future__ import annotations

from mbrl.agents.mb_pg import Config
from mbrl.dynamics.configs import EnsembleConfig
from mbrl.learners.on_policy_configs import PPOConfig, TRPOConfig

_SMALL = EnsembleConfig(hidden=(200, 200), holdout=0.2, patience=5)

_PENDULUM = Config(
    base="ppo",
    ppo=PPOConfig(learning_rate=1e-3, discount=0.95, gsde=True, first_std=0.5),
    model=_SMALL,
    learning_starts=400,
    fit_every=400,
    rollouts=20,
    validation=0.0,  # of four starts for each member the comparison is mostly noise
)

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (4000, _PENDULUM),
    "pendulum-swingup": (4000, _PENDULUM),
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (
    50_000,
    Config(trpo=TRPOConfig(trace_decay=0.97), normalise_obs=True, scale_reward=True),
)
"""For environments without a preset; `preset` adds what the model has to learn of them."""
