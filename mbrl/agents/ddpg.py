"""Deep deterministic policy gradient, for a box of actions; see `mbrl.learners.ddpg`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbrl.agents.schedules import OffPolicySchedule, with_discount
from mbrl.encoders.configs import ImageConfig
from mbrl.learners.value_configs import DDPGConfig

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.off_policy import OffPolicy
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(OffPolicySchedule):
    """Deep deterministic policy gradient: off-policy, with a policy that follows its critic."""

    learner: DDPGConfig = field(default_factory=DDPGConfig)
    """Settings of policy and critics."""
    images: ImageConfig = field(default_factory=ImageConfig)
    """The encoder of observations that are images: uint8, of three dimensions."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> OffPolicy:
    """An agent with a `DDPG`; with the settings of `TD3Config` it is TD3.

    Raises:
        ValueError: actions that are not in a bounded box; observations that are neither a box nor
            indices.
    """
    from gymnasium.spaces import Box

    from mbrl.agents.off_policy import OffPolicy, states_of
    from mbrl.distributions import Bounds
    from mbrl.learners.ddpg import DDPG
    from mbrl.spaces import bounds

    if not isinstance(spec.action, Box):
        raise ValueError(
            f"a deterministic policy needs a bounded box of actions, not {spec.action}"
        )
    own = with_discount(config.learner, spec, 0.99)
    assert own.discount is not None
    box = Bounds(*bounds(spec.action, device=device))
    size, encoder = states_of(spec, config.images, generator=generator)
    learner = DDPG(size, box, own, encoder=encoder, generator=generator)
    return OffPolicy(
        spec,
        learner,
        config,
        images=None if encoder is None else config.images,
        discount=own.discount,
        generator=generator,
        device=device,
    )
