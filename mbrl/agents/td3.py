"""Twin delayed deep deterministic policy gradient (TD3): `ddpg` with other defaults.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbrl.agents import ddpg
from mbrl.learners.value_configs import TD3Config

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.off_policy import OffPolicy
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(ddpg.Config):
    """TD3: DDPG with the least of two critics, smoothed targets and a policy updated less often."""

    learner: TD3Config = field(default_factory=TD3Config)
    """Settings of policy and critics."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> OffPolicy:
    """An agent with a `DDPG` whose settings make it TD3; raises as `ddpg.make`."""
    return ddpg.make(spec, config, generator=generator, device=device)
