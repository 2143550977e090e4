"""Settings of models with a learned latent state. No torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planners.checks import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    check_fields,
)


@dataclass(frozen=True)
class LocallyLinearConfig:
    """Settings of a latent space for control, in which dynamics are close to linear.

    The defaults are those of PC3 on its planar task.
    """

    loss: Literal["pc3", "pcc", "e2c"] = "pc3"
    """pc3: a code tells which code and action it came from (Shu et al. 2020), without a decoder.
    pcc: the next observation is predicted, with a backward encoder (Levine et al. 2020). e2c:
    observation and next observation are reconstructed (Watter et al. 2015), and transitions are
    A(z) z + B(z) u + o(z)."""
    latent: PositiveInt = 2
    """Z, the size of a code."""
    hidden: tuple[PositiveInt, ...] = (300, 300)
    """Widths of the encoder's hidden layers; a decoder has them in reverse order. () is a linear
    map."""
    transition_hidden: tuple[PositiveInt, ...] = (20, 20)
    """Widths of the transition's hidden layers."""
    activation: Literal["silu", "relu", "elu", "tanh"] = "relu"
    """The function between layers."""
    prediction: NonNegativeFloat = 1.0
    """Weight of the prediction of the next code (pc3) or observation (pcc, e2c)."""
    consistency: NonNegativeFloat = 1.0
    """Weight of what holds the transition's code of the next observation to the encoder's."""
    curvature: NonNegativeFloat = 7.0
    """Weight of the error of the linearised transition; not used by e2c, which is linear."""
    centre: NonNegativeFloat = 0.1
    """Weight of the squared length of the mean code."""
    noise: PositiveFloat | None = None
    """Std of the Gaussian likelihood of an observation that is a vector, in stds of its dimensions;
    learned if unset. Not used by pc3, nor for images, whose numbers are probabilities of white."""
    code_noise: NonNegativeFloat = 0.1
    """Std of the noise on the next code in training; pc3 only, whose encoder has none of its own.
    It is the unit of codes: they spread as far as pays with this noise."""
    curvature_noise: PositiveFloat = 0.1
    """Std of the changes of code and action with which curvature is measured."""
    action_scale: PositiveFloat = 1.0
    """What actions are multiplied by, in the transition and in the cost."""
    state_cost: NonNegativeFloat = 10.0
    """q of the reward -q (z' - z*)ᵀ M (z' - z*) - r |u|²."""
    action_cost: NonNegativeFloat = 1.0
    """r of the reward, for scaled actions."""
    metric: Literal["euclidean", "mahalanobis"] = "euclidean"
    """M of the reward: the identity, as published, or the inverse covariance of the codes of the
    data, in units of their mean variance. Codes may spread farther in one direction than in
    others; the latter then counts all alike."""
    learning_rate: PositiveFloat = 5e-4
    """Step size of Adam."""
    last_learning_rate: NonNegativeFloat | None = None
    """The step size falls to this by a half cosine over the fit; it is constant if unset."""
    weight_decay: NonNegativeFloat = 1e-3
    """Adam's L2 term."""
    batch: PositiveInt = 256
    """Transitions in a batch; with pc3 also the number of codes that are told apart."""
    epochs: PositiveInt = 2000
    """Passes over the data."""
    dtype: Literal["float32", "float64"] = "float64"
    """Of all weights and codes."""

    def __post_init__(self) -> None:
        check_fields(self)
