"""When a policy learns from rollouts in a learned model only, and from which.

No torch is imported, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mbrl.agents.dyna_config import MODEL, learning
from mbrl.agents.schedules import Schedule
from mbrl.dynamics.own import OwnModel
from mbrl.dynamics.table import ModelConfig
from planners.checks import NonNegativeInt, PositiveFloat, PositiveInt, Share

if TYPE_CHECKING:
    from typing import Self

    from mbrl.types import Spec


@dataclass(frozen=True)
class ModelGradientSchedule(Schedule):
    """When a model is refitted, and what is imagined with it between fits."""

    model: ModelConfig | OwnModel = MODEL
    """The model and its fit, or a model of your own."""
    learning_starts: PositiveInt = 1000
    """Environment steps before the first fit and the first update."""
    random_steps: NonNegativeInt | None = None
    """Environment steps with uniformly random actions at the start. If unset, until learning
    starts."""
    fit_every: PositiveInt = 1000
    """Environment steps from one fit of the model to the next. After each fit there are `rounds`
    of rollouts."""
    rounds: PositiveInt = 20
    """Most rounds after a fit. Each rolls out the current policy and updates it once."""
    rollouts: PositiveInt = 50
    """Imagined trajectories in a round, rounded up to a multiple of the model's members."""
    horizon: PositiveInt | None = None
    """Steps of a trajectory, which begins in any state of the replay buffer and is cut off at its
    end. If unset, trajectories are whole episodes from the starts of real ones."""
    propagation: Literal["ts1", "tsinf"] = "ts1"
    """Which member takes a step: one drawn anew for each step (ts1), or one for each trajectory
    (tsinf)."""
    validation: Share = 0.7
    """Rounds end early where the return has improved under less than this share of the members;
    0: they do not."""
    validate_every: PositiveInt = 5
    """Rounds from one such comparison to the next."""
    capacity: PositiveInt = 1_000_000
    """Maximum number of real transitions kept; the oldest are dropped."""
    margin: PositiveFloat = 5.0
    """Imagined trajectories are cut off outside the box of the observations so far, which is wider
    by this many times its width on each side."""
    normalise_obs: bool = False
    """Whether observations are scaled to mean 0 and std 1, with running statistics of real ones."""
    scale_reward: bool = False
    """Whether rewards are divided by the running std of the discounted return of real episodes."""

    @classmethod
    def suited(cls, spec: Spec) -> Self:
        """The defaults; unknown rewards and terminations are learned."""
        made = cls()
        return replace(made, model=learning(made.model, spec))
