"""Stochastic value gradients with a learned model; see `mbrl.learners.svg`.

SAC-SVG(H) (Amos et al. 2021, arXiv 2008.12775): critics learn from real steps, and the policy from
gradients through H imagined ones with the critics' value of the last state. The variant "bptt" is
plain backpropagation through the model, without critics.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from mbrl.agents.through_model_config import GradientSchedule
from mbrl.learners.svg_config import SVGConfig

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.through_model import ThroughModel
    from mbrl.types import Spec

LEARNER = SVGConfig(
    horizon=3,
    critic_steps="real",
    hidden=(256, 256),
    critics=2,
    subset=2,
    critic_eps=0.0,
    dropout=0.0,
    bounded=False,
)
"""The learner of SAC-SVG(H)."""


@dataclass(frozen=True)
class Config(GradientSchedule):
    """Stochastic value gradients: the policy's gradient goes through a learned model."""

    learner: SVGConfig = LEARNER
    """Settings of policy and critics."""


def _bptt(config: Config) -> Config:
    return replace(config, learner=replace(config.learner, tail=False, horizon=25))


VARIANTS: Mapping[str, Callable[[Config], Config]] = {"bptt": _bptt}
"""Backpropagation through the model for 25 steps, without critics."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> ThroughModel:
    """An agent that learns by stochastic value gradients.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.model_learning import model_learning
    from mbrl.agents.through_model import ThroughModel

    learners = {"box": "mbrl.learners.svg:SVG"}
    made = partial(model_learning, ThroughModel, "svg", spec, config)
    return made(config.learner, learners, generator=generator, device=device)
