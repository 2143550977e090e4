"""PlaNet: planning in the latent space of a recurrent model (Hafner et al. 2019, arXiv 1811.04551).

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from mbrl.agents.mpc import MPCConfig, PlannerConfig
from mbrl.dynamics.recurrent_config import RecurrentConfig
from planners.checks import PositiveInt, check_fields

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.latent_planning import LatentPlanning
    from mbrl.types import Spec

PLAN = MPCConfig(
    PlannerConfig("cem", horizon=12, population=1000, iterations=10, elites=100),
    propagation="expectation",
    noise=0.3,
)
"""The search of PlaNet, and its exploration."""


@dataclass(frozen=True)
class Config:
    """Plan through a recurrent state-space model, of vectors or of images.

    The defaults are those of PlaNet, for a GPU.
    """

    LEARNS_REWARD: ClassVar[bool] = True

    mpc: MPCConfig = PLAN
    """Settings of planning through the model."""
    model: RecurrentConfig = field(default_factory=RecurrentConfig)
    """The model and its fit."""
    random_steps: Annotated[int, Ge(2)] = 1000
    """Number of environment steps with uniformly random actions before the first fit."""
    fit_every: PositiveInt | None = None
    """Number of steps within an episode after which to refit. If unset, the model is fitted only
    at the ends of episodes, or after `random_steps` if they have no time limit."""
    capacity: PositiveInt | None = None
    """Maximum number of transitions kept; the oldest are dropped. If unset, 1,000,000 of vectors
    or 500,000 of images."""

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """Default settings for an environment; terminations are learned where not known."""
        model = RecurrentConfig(learn_termination=spec.ends)
        if spec.episode_steps is not None:
            model = replace(model, length=min(model.length, spec.episode_steps))
        return cls(model=model)


def make(
    spec: Spec, config: Config, *, generator: Generator, device: str = "cpu"
) -> LatentPlanning:
    """An agent that plans in latent space.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.latent_planning import LatentPlanning

    return LatentPlanning(spec, config, generator=generator, device=device)
