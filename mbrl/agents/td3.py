"""Twin delayed deep deterministic policy gradient (TD3): `ddpg` with other defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from mbrl.agents.makers import off_policy
from mbrl.agents.schedules import OffPolicySchedule
from mbrl.learners.value_configs import TD3Config


@dataclass(frozen=True)
class Config(OffPolicySchedule):
    """TD3: DDPG with the least of two critics, smoothed targets and a policy updated less often."""

    learner: TD3Config = field(default_factory=TD3Config)
    """Settings of the learner."""


make = off_policy("td3", Config, {"box": "mbrl.learners.ddpg:DDPG"})
