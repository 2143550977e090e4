"""Double horizon model-based policy optimisation (DHMBPO; Kubo et al. 2025).

Long rollouts without gradients give the states that the policy visits; from these, short rollouts
through the model give the targets of the critics and the gradient of the policy.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mbrl.agents.schedules import with_discount
from mbrl.agents.through_model_config import DoubleHorizonSchedule

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.through_model import DoubleHorizon
    from mbrl.types import Spec

DISCOUNT = 0.995
"""γ where neither the settings nor the environment give one."""


@dataclass(frozen=True)
class Config(DoubleHorizonSchedule):
    """DHMBPO: critics and policy learn from short rollouts that begin in long ones."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> DoubleHorizon:
    """An agent that learns by DHMBPO.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.model_learning import model_learning
    from mbrl.agents.through_model import DoubleHorizon

    settings = with_discount(config.learner, spec, DISCOUNT)
    learners = {"box": "mbrl.learners.svg:SVG"}
    made = partial(model_learning, DoubleHorizon, "dhmbpo", spec, config)
    return made(settings, learners, generator=generator, device=device)
