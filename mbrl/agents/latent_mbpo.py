"""Soft actor-critic on imagined steps in the latent space of a recurrent model.

The idea of Dreamer (Hafner et al. 2020, arXiv 1912.01603), to learn behaviour in latent space, with
the short branched rollouts and the learner of MBPO (Janner et al. 2019).

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from mbrl.dynamics.recurrent_config import RecurrentConfig
from mbrl.learners.configs import SACConfig
from planners.checks import PositiveInt, Share, check_fields

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.latent_imagining import LatentImagining
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config:
    """Learn a recurrent model, and policy and critics from its imagination."""

    LEARNS_REWARD: ClassVar[bool] = True

    model: RecurrentConfig = field(default_factory=lambda: RecurrentConfig(updates=20))
    """The model and its fit."""
    learner: SACConfig = field(default_factory=SACConfig)
    """Settings of policy and critics."""
    random_steps: Annotated[int, Ge(2)] = 1000
    """Number of environment steps with uniformly random actions before the first fit."""
    first_updates: PositiveInt = 100
    """Updates of the model in the first fit; later ones have `model.updates`."""
    fit_every: PositiveInt = 25
    """Environment steps from one fit of the model, with a burst of rollouts, to the next."""
    sequences: PositiveInt = 64
    """Sequences of real steps in a burst; a rollout starts from each of their states."""
    horizon: PositiveInt = 5
    """Steps of each rollout."""
    real: Share = 0.2
    """Share of real steps, between filtered states, in each batch of the learner."""
    updates: PositiveInt = 1
    """Updates of the learner for each environment step."""
    batch: PositiveInt = 256
    """Transitions in each of them."""
    capacity: PositiveInt | None = None
    """Maximum number of transitions kept; the oldest are dropped. If unset, 1,000,000 of vectors
    or 500,000 of images."""

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """Default settings for an environment; terminations are learned where not known."""
        made = cls()
        model = replace(made.model, learn_termination=spec.ends)
        if spec.episode_steps is not None:
            model = replace(model, length=min(model.length, spec.episode_steps))
        return replace(made, model=model)


def make(
    spec: Spec, config: Config, *, generator: Generator, device: str = "cpu"
) -> LatentImagining:
    """An agent that learns from imagination in latent space.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.latent_imagining import LatentImagining

    return LatentImagining(spec, config, generator=generator, device=device)
