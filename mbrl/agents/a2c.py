"""Advantage actor-critic; the learner is `mbrl.learners.a2c`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbrl.learners.on_policy_configs import A2CConfig, RolloutConfig
from planners.checks import PositiveInt

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.on_policy import OnPolicy
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(RolloutConfig):
    """Settings of A2C."""

    learner: A2CConfig = field(default_factory=A2CConfig)
    """Settings of the learner."""
    rollout: PositiveInt = 5
    """T, the steps of each environment between updates. An update learns from T · N steps."""

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """The defaults, which suit bounded boxes of actions and indices."""
        return cls()


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> OnPolicy:
    """An agent that learns by A2C.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.on_policy import on_policy
    from mbrl.learners.a2c import A2C

    return on_policy("a2c", spec, config, A2C, generator=generator, device=device)
