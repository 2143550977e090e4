"""Settings of stochastic value gradients. No torch is imported, so the command's help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from mbrl.learners.configs import Activation, Rate
from mbrl.particles import Propagation
from planners.checks import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    check_fields,
    require,
)


@dataclass(frozen=True)
class SVGConfig:
    """Settings of a policy that is improved by gradients through a model.

    The defaults are those of DHMBPO (Kubo et al. 2025); SAC-SVG(H) (Amos et al. 2021) and plain
    backpropagation through the model are settings of it.
    """

    horizon: PositiveInt = 5
    """H, imagined steps through which the policy's gradient is propagated."""
    tail: bool = True
    """Whether critics value the state after the last step. Without, nothing counts after it, and
    there are no critics."""
    critic_steps: Literal["imagined", "real"] = "imagined"
    """Whether critics learn from the same imagined trajectories, by their discounted sum, or from
    real steps, as in SAC."""
    propagation: Propagation = "ts1"
    """Which member takes a step: one drawn anew for each step (ts1), or one for each trajectory
    (tsinf)."""
    hidden: tuple[PositiveInt, ...] = (256, 256, 256)
    """Widths of the policy's layers."""
    critic_hidden: tuple[PositiveInt, ...] | None = None
    """Widths of the critics' layers. If unset, those of the policy."""
    activation: Activation = "silu"
    """Activation of all networks."""
    discount: PositiveShare | None = None
    """γ. If unset, that of the environment, or the algorithm's if it defines none."""
    learning_rate: Rate = 3e-4
    """Adam's step size for the policy and the temperature."""
    critic_learning_rate: Rate | None = None
    """Adam's step size for the critics. If unset, that of the policy."""
    polyak: PositiveShare = 0.005
    """Share of the critics that goes into their targets at each update."""
    critics: PositiveInt = 5
    """Number of critics."""
    subset: PositiveInt | None = 2
    """Number of critics, drawn anew for each update, whose minimum is the target. If unset, all of
    them."""
    critic_eps: NonNegativeFloat = 1e-5
    """ε of the layer norm before all layers of the critics but the first two; 0: no norm."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 1e-3
    """Share of the critics' units that is dropped while they learn."""
    bounded: bool = True
    """Whether critics are scaled to the range of returns, and their targets clipped to it: low and
    high quantiles of the soft reward over 1 - γ."""
    quantile: Annotated[float, Interval(ge=0, lt=0.5)] = 0.01
    """The low quantile; the high one is as far from 1."""
    range_rate: PositiveShare = 3e-4
    """Share of an update's quantiles in the running range."""
    temperature: NonNegativeFloat | None = None
    """Weight of the entropy. If unset, it is tuned to the target entropy."""
    first_temperature: PositiveFloat = 0.1
    """The tuned temperature before the first update."""
    target_entropy: float | None = None
    """In nats. If unset, minus the number of action dimensions, for actions in [-1, 1]."""
    clip: PositiveFloat | None = None
    """Greatest norm of a gradient. If unset, gradients are not clipped."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.subset is None or self.subset <= self.critics,
            f"subset: there are {self.critics} critics, got {self.subset}",
        )
        require(
            not (self.tail and self.bounded) or self.discount != 1.0,
            "bounded: returns with discount 1 have no range; want False, or a lower discount",
        )
        require(
            self.propagation in ("ts1", "tsinf"),
            f"propagation: want ts1 or tsinf, got {self.propagation}",
        )
