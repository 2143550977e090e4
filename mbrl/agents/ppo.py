"""Proximal policy optimisation; the learner is `mbrl.learners.ppo`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mbrl.agents.makers import on_policy
from mbrl.agents.schedules import RolloutSchedule
from mbrl.learners.on_policy_configs import PPOConfig


@dataclass(frozen=True)
class Config(RolloutSchedule):
    """Settings of PPO; the defaults are those of its code for continuous actions."""

    learner: PPOConfig = field(default_factory=PPOConfig)
    """Settings of the learner."""


make = on_policy("ppo", Config, "mbrl.learners.ppo:PPO")
