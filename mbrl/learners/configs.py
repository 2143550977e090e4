"""Settings of learners. No torch is imported, so the command's help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from annotated_types import Ge, Interval

from planners.checks import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Share,
    check_fields,
    require,
)

Activation = Literal["relu", "silu", "elu", "tanh"]
Rate = PositiveFloat


class Discounted(Protocol):
    """Settings with a discount."""

    @property
    def discount(self) -> float | None:
        """γ; None: unset."""
        ...


def discount_of(config: Discounted) -> float:
    """γ.

    Raises:
        ValueError: it is unset.
    """
    if config.discount is None:
        raise ValueError("discount: want a number, it is unset")
    return config.discount


@dataclass(frozen=True)
class SACConfig:
    """Settings of soft actor-critic and its family; the defaults are the paper's.

    REDQ, DroQ, CrossQ and XQC are settings of it: see `experiments/presets/sac.py`.
    """

    hidden: tuple[PositiveInt, ...] = (256, 256)
    """Widths of the policy's layers."""
    critic_hidden: tuple[PositiveInt, ...] | None = None
    """Widths of the critics' layers. If unset, those of the policy."""
    activation: Activation = "relu"
    """Activation of all networks."""
    discount: PositiveShare | None = None
    """γ. If unset, that of the environment, or 0.99 if it defines none."""
    learning_rate: Rate = 3e-4
    """Adam's step size for the policy and the temperature."""
    critic_learning_rate: Rate | None = None
    """Adam's step size for the critics. If unset, that of the policy."""
    beta1: Share = 0.9
    """Adam's decay rate of the mean gradient; 0.5 in CrossQ."""
    polyak: PositiveShare = 0.005
    """Share of the critics that goes into their targets at each update."""
    target: bool = True
    """Whether critics have target copies. Without, both states go through the critics in one batch,
    as in CrossQ, which needs a norm over the batch."""
    critics: PositiveInt = 2
    """Number of critics."""
    subset: PositiveInt | None = None
    """Number of critics, drawn anew for each update, whose minimum is the target (REDQ). If unset,
    all of them."""
    mean_of_critics: bool = False
    """Whether the policy maximises the mean of the critics, as in REDQ, or their minimum."""
    norm: Literal["layer", "batch", "batch-after"] | None = None
    """Normalisation in the critics: over the features (DroQ), over the batch before activations
    (XQC), or over the batch at the input and after activations (CrossQ)."""
    policy_norm: Literal["layer", "batch", "batch-after"] | None = None
    """Normalisation in the policy."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the critics' units that is dropped in updates (DroQ)."""
    unit_weights: bool = False
    """Whether each unit's incoming weights are scaled to length 1 after each update (XQC)."""
    atoms: Annotated[int, Ge(1)] = 1
    """Atoms of the distribution of returns that a critic predicts (C51); 1: only the mean."""
    value_range: tuple[float, float] = (-5.0, 5.0)
    """Least and greatest return of the atoms, in units of the scaled reward."""
    temperature: NonNegativeFloat | None = None
    """Weight of the entropy. If unset, it is tuned to the target entropy, from 1 on."""
    first_temperature: PositiveFloat = 1.0
    """The tuned temperature before the first update."""
    target_entropy: float | None = None
    """In nats. If unset, minus the number of action dimensions; for discrete actions 0.98 of the
    greatest entropy."""
    target_std: PositiveFloat | None = None
    """Gives the target entropy as that of a Gaussian of this std in each dimension of an action in
    [-1, 1], as in FlashSAC."""
    actor_every: PositiveInt = 1
    """Number of updates of the critics for one of the policy."""
    clip: PositiveFloat | None = None
    """Greatest norm of a gradient. If unset, gradients are not clipped."""

    def __post_init__(self) -> None:
        check_fields(self)
        low, high = self.value_range
        require(low < high, f"value_range: want low < high, got {low} and {high}")
        require(
            self.subset is None or self.subset <= self.critics,
            f"subset: there are {self.critics} critics, got {self.subset}",
        )
        require(
            self.target or self.norm in ("batch", "batch-after"),
            "target: critics without target copies need norm batch or batch-after",
        )
