"""Soft actor-critic and its family; see `mbrl.learners.sac`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbrl.agents.schedules import OffPolicySchedule, with_discount
from mbrl.learners.configs import SACConfig

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.off_policy import OffPolicy
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(OffPolicySchedule):
    """Soft actor-critic: off-policy, with a stochastic policy whose entropy is rewarded."""

    learner: SACConfig = field(default_factory=SACConfig)
    """Settings of policy and critics."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> OffPolicy:
    """An agent with a `SAC`, or with a `DiscreteSAC` where actions are indices.

    Raises:
        ValueError: actions that are neither in a bounded box nor indices; observations that are
            neither a box nor indices.
    """
    from gymnasium.spaces import Box, Discrete

    from mbrl.agents.off_policy import OffPolicy
    from mbrl.distributions import Bounds
    from mbrl.learners.sac import SAC, DiscreteSAC
    from mbrl.spaces import Vectors, bounds

    own = with_discount(config.learner, spec, 0.99)
    assert own.discount is not None
    size = Vectors(spec.obs).size
    if isinstance(spec.action, Discrete):
        choices = int(spec.action.n)
        learner = DiscreteSAC(size, choices, own, generator=generator, device=device)
    elif isinstance(spec.action, Box):
        learner = SAC(size, Bounds(*bounds(spec.action, device=device)), own, generator=generator)
    else:
        raise ValueError(f"sac needs a bounded box of actions or indices, not {spec.action}")
    return OffPolicy(
        spec, learner, config, discount=own.discount, generator=generator, device=device
    )
