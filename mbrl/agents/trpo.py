"""Trust region policy optimisation; the learner is `mbrl.learners.trpo`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mbrl.agents.makers import on_policy
from mbrl.agents.schedules import RolloutSchedule
from mbrl.learners.on_policy_configs import TRPOConfig


@dataclass(frozen=True)
class Config(RolloutSchedule):
    """Settings of TRPO."""

    learner: TRPOConfig = field(default_factory=TRPOConfig)
    """Settings of the learner."""


make = on_policy("trpo", Config, "mbrl.learners.trpo:TRPO")
