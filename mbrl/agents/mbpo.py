"""Model-based policy optimisation (MBPO; Janner et al. 2019, arXiv 1906.08253).

Soft actor-critic on short rollouts of an ensemble from real states, with many updates for each
environment step: `imagining` with the published settings.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from mbrl.agents.dyna_config import DynaSchedule
from mbrl.learners.configs import SACConfig
from planners.checks import PositiveInt

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.imagining import Imagining
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(DynaSchedule):
    """Settings of MBPO; the defaults are those that all published tasks share."""

    learner: SACConfig = field(default_factory=SACConfig)
    """Settings of policy and critics."""
    learning_starts: PositiveInt = 5000
    """Environment steps before the first fit and the first update."""
    updates: PositiveInt | None = 20
    """Updates for each environment step."""
    starts: PositiveInt = 100_000
    """Rollouts in a burst, each from a state of the replay buffer."""


VARIANTS: Mapping[str, Callable[[Config], Config]] = {
    "macura": lambda config: replace(config, trust="macura", horizon=10, last_horizon=None),
    "infoprop": lambda config: replace(
        config, trust="infoprop", horizon=100, last_horizon=None, starts=-(-config.starts // 10)
    ),
}
"""Rules of trust instead of a schedule of lengths: MACURA (Frauenknecht et al. 2024), and Infoprop
(2025), with fewer rollouts because they are longer."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> Imagining:
    """An agent that learns by MBPO.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.imagining import Imagining
    from mbrl.agents.model_learning import model_learning

    made = partial(model_learning, Imagining, "mbpo", spec, config)
    learners = {"box": "mbrl.learners.sac:SAC", "index": "mbrl.learners.sac:DiscreteSAC"}
    return made(config.learner, learners, generator=generator, device=device)
