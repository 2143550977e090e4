"""Settings of PETS, and its versions. No torch is imported, so the command's help is quick."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from mbrl.agents.mpc import MPCConfig
from mbrl.dynamics.configs import EnsembleConfig
from mbrl.dynamics.own import OwnModel
from mbrl.dynamics.table import ModelConfig
from mbrl.learners.configs import SACConfig
from planners.checks import PositiveInt, check_fields, require

if TYPE_CHECKING:
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config:
    """Probabilistic ensembles with trajectory sampling: plan through a learned model."""

    mpc: MPCConfig = field(default_factory=lambda: MPCConfig(particles=20))
    """Settings of planning through the model."""
    model: ModelConfig | OwnModel = field(default_factory=EnsembleConfig)
    """The ensemble and its fit, or a model of your own."""
    guide: bool = False
    """Whether soft actor-critic learns from the same steps, and guides the plans: its critic values
    the state in which a plan ends, and its policy proposes plans."""
    sac: SACConfig = field(default_factory=SACConfig)
    """Settings of this soft actor-critic, whose step sizes must be constant."""
    sac_updates: PositiveInt = 1
    """Its updates for each environment step."""
    random_steps: Annotated[int, Ge(2)] = 200
    """Number of environment steps with uniformly random actions before the first fit."""
    aggregate: bool = True
    """Whether to refit to all data after every episode. Otherwise the model is fitted once, to the
    random steps."""
    fit_every: PositiveInt | None = None
    """Number of steps within an episode after which to refit. If unset, the model is not refitted
    within an episode, or after `random_steps` if episodes have no time limit."""
    capacity: PositiveInt = 1_000_000
    """Maximum number of transitions kept; the oldest are dropped."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.sac.last_learning_rate is None,
            "sac.last_learning_rate: step sizes of a guide are constant; want it unset",
        )

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """Default settings for an environment; unknown rewards and terminations are learned."""
        reward, ends = spec.reward is None, spec.ends
        return cls(model=EnsembleConfig(learn_reward=reward, learn_termination=ends))


def version(name: Literal["0.5", "1.0", "1.5"], config: Config) -> Config:
    """`config` as one of the versions in this module's table."""
    replan_every = config.mpc.replan_every or 1 if name == "1.5" else 0
    return replace(
        config, aggregate=name != "0.5", mpc=replace(config.mpc, replan_every=replan_every)
    )
