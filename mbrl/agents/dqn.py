"""Deep Q-learning and its family, for actions that are indices; see `mbrl.learners.dqn`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbrl.agents.schedules import OffPolicySchedule, with_discount
from mbrl.learners.value_configs import DQNConfig

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.off_policy import OffPolicy
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(OffPolicySchedule):
    """Deep Q-learning: double, dueling, C51 and QR-DQN are settings of it."""

    learner: DQNConfig = field(default_factory=DQNConfig)
    """Settings of the network, its target and exploration."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> OffPolicy:
    """An agent with a `DQN`.

    Raises:
        ValueError: actions that are not indices; observations that are neither a box nor indices.
    """
    from gymnasium.spaces import Discrete

    from mbrl.agents.off_policy import OffPolicy
    from mbrl.learners.dqn import DQN
    from mbrl.spaces import Vectors

    if not isinstance(spec.action, Discrete):
        raise ValueError(f"dqn needs actions that are indices, not {spec.action}")
    own = with_discount(config.learner, spec, 0.99)
    assert own.discount is not None
    learner = DQN(
        Vectors(spec.obs).size, int(spec.action.n), own, generator=generator, device=device
    )
    return OffPolicy(
        spec, learner, config, discount=own.discount, generator=generator, device=device
    )
