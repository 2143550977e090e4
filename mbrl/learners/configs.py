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

Activation = Literal["relu", "silu", "elu", "mish", "tanh"]
Rate = PositiveFloat
Normalisation = Literal["layer", "batch", "batch-after", "renorm-after"]


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
class StepSizes:
    """Step sizes that may change over a run, of a learner from replayed transitions."""

    learning_rate: Rate = 3e-4
    """Adam's step size."""
    last_learning_rate: NonNegativeFloat | None = None
    """Step size at the end; if there are several, all change in proportion. If unset, they are
    constant."""
    decay: Literal["linear", "cosine"] = "linear"
    """How the step sizes go from the first to the last."""
    decay_steps: PositiveInt | None = None
    """Environment steps until the last step size. If unset, those of the run, `--steps`: whoever
    trains the agent tells it (`run_for`). A run that is continued with more steps goes on at the
    step size that the longer run has there."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.decay_steps is None or self.last_learning_rate is not None,
            "decay_steps: needs last_learning_rate",
        )


@dataclass(frozen=True)
class SACConfig(StepSizes):
    """Settings of soft actor-critic and its family; the defaults are the paper's.

    REDQ, DroQ, CrossQ, XQC and FlashSAC are settings of it: see `mbrl.agents.sac.VARIANTS`.
    """

    body: Literal["mlp", "blocks"] = "mlp"
    """What policy and critics are made of: layers, or residual blocks that are four times as wide
    inside and have batch norms (FlashSAC)."""
    hidden: tuple[PositiveInt, ...] = (256, 256)
    """Widths of the policy's layers; of its blocks, which must have one width."""
    critic_hidden: tuple[PositiveInt, ...] | None = None
    """Widths of the critics' layers or blocks. If unset, those of the policy."""
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
    """Whether critics have target copies. Without, `joint` holds, as in CrossQ."""
    joint: bool = False
    """Whether both states of a transition go through the critics, and through their targets, in one
    batch, so that the moments of batch norms are those of both (CrossQ, XQC, FlashSAC)."""
    critics: PositiveInt = 2
    """Number of critics."""
    subset: PositiveInt | None = None
    """Number of critics, drawn anew for each update, whose minimum is the target (REDQ). If unset,
    all of them."""
    mean_of_critics: bool = False
    """Whether the policy maximises the mean of the critics, as in REDQ, or their minimum."""
    norm: Normalisation | None = None
    """Normalisation in the critics' layers: over the features (DroQ), or over the batch at the
    input and before activations (XQC), after activations, or after them by batch renormalisation
    (CrossQ)."""
    policy_norm: Normalisation | None = None
    """Normalisation in the policy's layers."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the critics' units that is dropped in updates (DroQ)."""
    unit_weights: bool = False
    """Whether the weights into each unit of policy and critics are scaled to length 1 after each
    update (XQC, FlashSAC)."""
    smooth_std: bool = False
    """Whether the log of the policy's std is squashed by tanh into [-10, 2], as in FlashSAC, or
    clipped to [-20, 2]."""
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
        super().__post_init__()
        low, high = self.value_range
        require(low < high, f"value_range: want low < high, got {low} and {high}")
        require(
            self.subset is None or self.subset <= self.critics,
            f"subset: there are {self.critics} critics, got {self.subset}",
        )
        plain = (self.norm, self.policy_norm, self.dropout) == (None, None, 0.0)
        require(
            self.body == "mlp" or plain,
            "body: blocks have norms of their own; want no norm, policy_norm or dropout",
        )
        for name in ("hidden", "critic_hidden"):
            widths = getattr(self, name)
            require(
                self.body == "mlp" or widths is None or len(set(widths)) == 1,
                f"{name}: want one width for all blocks, got {widths}",
            )
        for name, joint in (("target: critics without target copies", not self.target),
                            ("joint: states in one batch", self.joint)):  # fmt: skip
            require(
                self.batch_norm or not joint,
                f"{name} need norm batch, batch-after or renorm-after, or blocks",
            )

    @property
    def batch_norm(self) -> bool:
        """Whether the critics have a norm over the batch."""
        return self.body == "blocks" or self.norm not in (None, "layer")


@dataclass(frozen=True)
class SACAEConfig(SACConfig):
    """Settings of SAC with an encoder that also learns by a loss of its own.

    The defaults are those of SAC+AE (Yarats et al. 2019).
    """

    hidden: tuple[PositiveInt, ...] = (1024, 1024)
    """Widths of the policy's layers."""
    learning_rate: Rate = 1e-3
    """Adam's step size for the policy and the temperature."""
    first_temperature: PositiveFloat = 0.1
    """The tuned temperature before the first update."""
    actor_every: PositiveInt = 2
    """Number of updates of the critics for one of the policy."""
    polyak: PositiveShare = 0.01
    """Share of the critics that goes into their targets at each update."""
    encoder_polyak: PositiveShare = 0.05
    """The same of their encoder."""
    represent_every: PositiveInt = 1
    """Number of updates of the critics for one by the loss of the representation."""
    representation_learning_rate: Rate = 1e-3
    """Adam's step size for that loss."""
