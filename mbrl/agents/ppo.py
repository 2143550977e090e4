"""Proximal policy optimisation; the learner is `mbrl.learners.ppo`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbrl.learners.on_policy_configs import PPOConfig, RolloutConfig

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.on_policy import OnPolicy
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(RolloutConfig):
    """Settings of PPO; the defaults are those of its code for continuous actions."""

    learner: PPOConfig = field(default_factory=PPOConfig)
    """Settings of the learner."""

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """The defaults, which suit bounded boxes of actions and indices."""
        return cls()


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> OnPolicy:
    """An agent that learns by PPO.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.on_policy import on_policy
    from mbrl.learners.ppo import PPO

    return on_policy("ppo", spec, config, PPO, generator=generator, device=device)
