"""REINFORCE; the learner is `mbrl.learners.reinforce`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbrl.learners.on_policy_configs import ReinforceConfig
from planners.checks import NonNegativeInt, PositiveInt, check_fields

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.on_policy import OnPolicy
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config:
    """Settings of REINFORCE."""

    learner: ReinforceConfig = field(default_factory=ReinforceConfig)
    """Settings of the learner."""
    episodes: PositiveInt = 10
    """Whole episodes between updates. Those under way at an update are left out, for an older
    policy began them; with one environment there are none."""
    normalise_obs: bool = False
    """Whether observations are scaled to mean 0 and standard deviation 1, with running
    statistics, and clipped to [-10, 10]."""
    normalise_reward: bool = False
    """Whether rewards are divided by the running standard deviation of the discounted return, and
    clipped to [-10, 10]."""
    noise_every: NonNegativeInt = 0
    """With gsde, the steps between draws of the noise's weights; 0: only after an update."""

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """The defaults, which suit bounded boxes of actions and indices."""
        return cls()


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> OnPolicy:
    """An agent that learns by REINFORCE.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.on_policy import on_policy
    from mbrl.learners.reinforce import Reinforce

    return on_policy("reinforce", spec, config, Reinforce, generator=generator, device=device)
