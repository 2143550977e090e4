"""The actor-critic with a replay buffer; the learner is in `mbrl.learners.actor_critic`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mbrl.agents.makers import off_policy
from mbrl.agents.schedules import OffPolicySchedule
from mbrl.learners.on_policy_configs import OffPolicyActorCriticConfig


@dataclass(frozen=True)
class Config(OffPolicySchedule):
    """The actor-critic that learns from all steps so far, with actions drawn anew."""

    learner: OffPolicyActorCriticConfig = field(default_factory=OffPolicyActorCriticConfig)
    """Settings of the learner."""


make = off_policy(
    "off-policy-actor-critic",
    Config,
    dict.fromkeys(("box", "index", "indices"), "mbrl.learners.actor_critic:OffPolicyActorCritic"),
)
