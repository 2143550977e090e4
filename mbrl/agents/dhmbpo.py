"""Double horizon model-based policy optimisation (DHMBPO; Kubo et al. 2025).

Long rollouts without gradients give the states that the policy visits; from these, short rollouts
through the model give the targets of the critics and the gradient of the policy.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbrl.agents.through_model_config import DoubleHorizonSchedule

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.through_model import DoubleHorizon
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(DoubleHorizonSchedule):
    """DHMBPO: critics and policy learn from short rollouts that begin in long ones."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> DoubleHorizon:
    """An agent that learns by DHMBPO.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.through_model import DoubleHorizon, through_model

    return through_model(
        "dhmbpo", spec, config, DoubleHorizon, discount=0.995, generator=generator, device=device
    )
