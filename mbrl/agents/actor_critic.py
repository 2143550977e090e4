"""The actor-critic, in batches or online; the learner is `mbrl.learners.actor_critic`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbrl.learners.on_policy_configs import ActorCriticConfig, RolloutConfig
from planners.checks import PositiveInt

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.on_policy import OnPolicy
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(RolloutConfig):
    """Settings of an actor-critic."""

    learner: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    """Settings of the learner."""
    rollout: PositiveInt = 128
    """T, the steps of each environment between updates; 1: the online actor-critic."""

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """The defaults, which suit bounded boxes of actions and indices."""
        return cls()


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> OnPolicy:
    """An agent that learns by an actor-critic.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.on_policy import on_policy
    from mbrl.learners.actor_critic import ActorCritic

    return on_policy("actor-critic", spec, config, ActorCritic, generator=generator, device=device)
