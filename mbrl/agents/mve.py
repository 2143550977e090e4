"""Model-based value expansion (MVE; Feinberg et al. 2018), and STEVE (Buckman et al. 2018).

An off-policy learner whose targets look some steps of a learned model ahead; see
`mbrl.agents.expanding`. No torch is imported until an agent is made, so the command's help is
quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from mbrl.agents.dyna_config import ExpansionSchedule
from mbrl.dynamics.configs import EnsembleConfig
from mbrl.learners.configs import SACConfig
from mbrl.learners.value_configs import DDPGConfig, TD3Config
from planners.checks import require

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.expanding import Expanding
    from mbrl.types import Spec

LEARNERS = {
    "ddpg": {"box": "mbrl.learners.ddpg:DDPG"},
    "td3": {"box": "mbrl.learners.ddpg:DDPG"},
    "sac": {"box": "mbrl.learners.sac:SAC", "index": "mbrl.learners.sac:DiscreteSAC"},
}
"""The learners of each base, by kind of actions."""


@dataclass(frozen=True)
class Config(ExpansionSchedule):
    """Value expansion: the targets of a learner look some steps of a learned model ahead."""

    base: Literal["ddpg", "td3", "sac"] = "td3"
    """The learner. ddpg and td3 need a box of actions; sac takes indices too."""
    ddpg: DDPGConfig = field(default_factory=DDPGConfig)
    """Settings of ddpg."""
    td3: TD3Config = field(default_factory=TD3Config)
    """Settings of td3."""
    sac: SACConfig = field(default_factory=SACConfig)
    """Settings of sac."""

    def __post_init__(self) -> None:
        super().__post_init__()
        critics = getattr(self, self.base).critics
        require(
            not self.steve or critics > 1,
            f"{self.base}.critics: steve needs 2 or more, whose variance weights the target "
            f"without imagined steps, got {critics}",
        )


VARIANTS: Mapping[str, Callable[[Config], Config]] = {
    "mve": lambda config: replace(config, base="ddpg", imagined_states=True),
    "steve": lambda config: replace(
        config,
        base="ddpg",
        steve=True,
        ddpg=replace(config.ddpg, critics=4),
        model=replace(config.model, members=4, elites=None)
        if isinstance(config.model, EnsembleConfig)
        else config.model,
    ),
}
"""Settings as published: MVE with DDPG and the TD-k trick, and STEVE with four models and four
critics."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> Expanding:
    """An agent with the learner that `config.base` names.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.expanding import Expanding
    from mbrl.agents.model_learning import model_learning

    settings, learners = getattr(config, config.base), LEARNERS[config.base]
    made = partial(model_learning, Expanding, f"mve with {config.base}", spec, config)
    return made(settings, learners, generator=generator, device=device)
