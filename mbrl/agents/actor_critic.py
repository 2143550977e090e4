"""The actor-critic, in batches or online; the learner is `mbrl.learners.actor_critic`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mbrl.agents.makers import on_policy
from mbrl.agents.schedules import RolloutSchedule
from mbrl.learners.on_policy_configs import ActorCriticConfig
from planners.checks import PositiveInt


@dataclass(frozen=True)
class Config(RolloutSchedule):
    """Settings of an actor-critic."""

    learner: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    """Settings of the learner."""
    rollout: PositiveInt = 128
    """T, the steps of each environment between updates; 1: the online actor-critic."""


make = on_policy("actor-critic", Config, "mbrl.learners.actor_critic:ActorCritic")
