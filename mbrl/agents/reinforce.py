"""REINFORCE; the learner is `mbrl.learners.reinforce`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mbrl.agents.makers import on_policy
from mbrl.agents.schedules import EpisodeSchedule
from mbrl.learners.on_policy_configs import ReinforceConfig


@dataclass(frozen=True)
class Config(EpisodeSchedule):
    """Settings of REINFORCE."""

    learner: ReinforceConfig = field(default_factory=ReinforceConfig)
    """Settings of the learner."""


make = on_policy("reinforce", Config, "mbrl.learners.reinforce:Reinforce")
