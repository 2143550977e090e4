"""Advantage actor-critic; the learner is `mbrl.learners.a2c`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mbrl.agents.makers import on_policy
from mbrl.agents.schedules import RolloutSchedule
from mbrl.learners.on_policy_configs import A2CConfig
from planners.checks import PositiveInt


@dataclass(frozen=True)
class Config(RolloutSchedule):
    """Settings of A2C."""

    learner: A2CConfig = field(default_factory=A2CConfig)
    """Settings of the learner."""
    rollout: PositiveInt = 5
    """T, the steps of each environment between updates. An update learns from T · N steps."""


make = on_policy("a2c", Config, "mbrl.learners.a2c:A2C")
