"""Settings of agents whose policy is improved by gradients through a learned model.

No torch is imported, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from mbrl.agents.dyna_config import ModelSchedule
from mbrl.dynamics.configs import NormedEnsembleConfig
from mbrl.dynamics.own import OwnModel
from mbrl.dynamics.table import ModelConfig
from mbrl.learners.svg_config import SVGConfig
from planners.checks import NonNegativeInt, PositiveInt, require

if TYPE_CHECKING:
    from typing import Self

    from mbrl.types import Spec


@dataclass(frozen=True)
class GradientSchedule(ModelSchedule):
    """When a model is refitted, and a learner updated that imagines with it.

    The reward is learned even where it is known as a function, because the policy follows its
    gradient: that of a known one may be 0 almost everywhere.
    """

    LEARNS_REWARD: ClassVar[bool] = True

    learner: SVGConfig = field(default_factory=SVGConfig)
    """Settings of policy and critics."""
    model: ModelConfig | OwnModel = field(default_factory=NormedEnsembleConfig)
    """The model and its fit, or a model of your own."""
    fit_every: PositiveInt = 1000
    """Environment steps from one fit of the model to the next; the first is when learning
    starts."""
    batch: PositiveInt = 256
    """Transitions in each update, in whose states imagined steps begin; rounded up to a multiple of
    the model's members."""
    normalise_obs: bool = True
    """Whether the networks' inputs are scaled to mean 0 and std 1 on the real states, at each
    fit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.scale_reward, "scale_reward: the model's rewards are not scaled; want False"
        )
        require(
            self.learner.tail or not self.planning,
            "planning: plans need the value of critics; want learner.tail",
        )

    @classmethod
    def suited(cls, spec: Spec) -> Self:
        """The defaults; the reward is learned, and a termination that is not known."""
        made = cls()
        model = replace(made.model, learn_reward=True, learn_termination=spec.ends)
        return replace(made, model=model)


@dataclass(frozen=True)
class DoubleHorizonSchedule(GradientSchedule):
    """When an iteration of DHMBPO takes place, and what is done in it."""

    learning_starts: PositiveInt = 5000
    """Environment steps before the first iteration."""
    fit_every: PositiveInt = 1000
    """Environment steps from one iteration to the next. In each the model is refitted, and all
    updates are done."""
    critic_updates: NonNegativeInt = 250
    """Updates of the critics alone, at the beginning of an iteration."""
    updates: PositiveInt | None = 1000
    """Updates of critics and policy in an iteration. If unset, `fit_every`."""
    first: PositiveInt = 5
    """The first iteration has so many times as many."""
    batch: PositiveInt = 256
    """States of an update, where training rollouts begin; rounded up to a multiple of the model's
    members."""
    visit_every: PositiveInt = 20
    """Updates from one distribution rollout to the next."""
    visit_steps: PositiveInt = 20
    """Steps of a distribution rollout."""
    starts: PositiveInt = 256
    """Real states where each distribution rollout begins; rounded up like `batch`."""
    states: PositiveInt = 51_200
    """Most states of distribution rollouts that are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.learner.critic_steps == "imagined",
            "learner.critic_steps: no real transition enters an update; want imagined",
        )
        require(self.train_every == 1, "train_every: updates are done at each fit; set fit_every")
