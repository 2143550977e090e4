"""Dyna with any off-policy learner: `imagining` with a choice of the learner.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from mbrl.agents.dyna_config import DynaSchedule
from mbrl.learners.configs import SACConfig
from mbrl.learners.value_configs import DDPGConfig, DQNConfig, TD3Config

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.imagining import Imagining
    from mbrl.types import Spec

LEARNERS = {
    "sac": {"box": "mbrl.learners.sac:SAC", "index": "mbrl.learners.sac:DiscreteSAC"},
    "td3": {"box": "mbrl.learners.ddpg:DDPG"},
    "ddpg": {"box": "mbrl.learners.ddpg:DDPG"},
    "dqn": {"index": "mbrl.learners.dqn:DQN"},
}
"""The learners of each base, by kind of actions."""


@dataclass(frozen=True)
class Config(DynaSchedule):
    """Dyna: a learner of your choice learns from real steps and from those of a learned model."""

    base: Literal["sac", "td3", "ddpg", "dqn"] = "sac"
    """The learner. dqn needs actions that are indices, td3 and ddpg a box; sac takes both."""
    sac: SACConfig = field(default_factory=SACConfig)
    """Settings of sac."""
    td3: TD3Config = field(default_factory=TD3Config)
    """Settings of td3."""
    ddpg: DDPGConfig = field(default_factory=DDPGConfig)
    """Settings of ddpg."""
    dqn: DQNConfig = field(default_factory=DQNConfig)
    """Settings of dqn."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> Imagining:
    """An agent with the learner that `config.base` names.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.imagining import Imagining
    from mbrl.agents.model_learning import model_learning

    made = partial(model_learning, Imagining, f"dyna with {config.base}", spec, config)
    settings, learners = getattr(config, config.base), LEARNERS[config.base]
    return made(settings, learners, generator=generator, device=device)
