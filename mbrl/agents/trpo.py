"""Trust region policy optimisation; the learner is `mbrl.learners.trpo`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbrl.learners.on_policy_configs import RolloutConfig, TRPOConfig

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.on_policy import OnPolicy
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(RolloutConfig):
    """Settings of TRPO."""

    learner: TRPOConfig = field(default_factory=TRPOConfig)
    """Settings of the learner."""

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """The defaults, which suit bounded boxes of actions and indices."""
        return cls()


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> OnPolicy:
    """An agent that learns by TRPO.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.on_policy import on_policy
    from mbrl.learners.trpo import TRPO

    return on_policy("trpo", spec, config, TRPO, generator=generator, device=device)
