"""The actor-critic with a replay buffer; the learner is in `mbrl.learners.actor_critic`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbrl.agents.schedules import OffPolicySchedule, with_discount
from mbrl.learners.on_policy_configs import OffPolicyActorCriticConfig

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.off_policy import OffPolicy
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(OffPolicySchedule):
    """The actor-critic that learns from all steps so far, with actions drawn anew."""

    learner: OffPolicyActorCriticConfig = field(default_factory=OffPolicyActorCriticConfig)
    """Settings of policy and critic."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> OffPolicy:
    """An agent with an `OffPolicyActorCritic`.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.off_policy import OffPolicy
    from mbrl.agents.on_policy import actions_of
    from mbrl.learners.actor_critic import OffPolicyActorCritic
    from mbrl.spaces import Vectors

    own = with_discount(config.learner, spec, 0.99)
    assert own.discount is not None
    learner = OffPolicyActorCritic(
        Vectors(spec.obs).size,
        actions_of(spec.action, "off-policy-actor-critic", device),
        own,
        generator=generator,
        device=device,
    )
    return OffPolicy(
        spec, learner, config, discount=own.discount, generator=generator, device=device
    )
