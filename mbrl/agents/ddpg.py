"""Deep deterministic policy gradient; the learner is `mbrl.learners.ddpg`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mbrl.agents.makers import off_policy
from mbrl.agents.schedules import OffPolicySchedule
from mbrl.learners.value_configs import DDPGConfig


@dataclass(frozen=True)
class Config(OffPolicySchedule):
    """Deep deterministic policy gradient: off-policy, with a policy that follows its critic."""

    learner: DDPGConfig = field(default_factory=DDPGConfig)
    """Settings of the learner."""


make = off_policy("ddpg", Config, {"box": "mbrl.learners.ddpg:DDPG"})
