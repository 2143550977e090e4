"""Settings of the recurrent state-space model. No torch is imported, so help texts are quick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mbrl.encoders.configs import RepresentationConfig
from mbrl.parts import of_module
from planners.checks import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share

if TYPE_CHECKING:
    from torch import Generator


@dataclass(frozen=True)
class RecurrentConfig(RepresentationConfig):
    """Settings of a recurrent state-space model and of its fit (Hafner et al. 2019).

    The defaults are those of PlaNet, but for the smaller decoder and the activation.
    """

    MODEL: ClassVar[str] = "mbrl.dynamics.recurrent:RecurrentDynamics"
    """The class that `make` imports and builds."""

    latent: PositiveInt = 30
    """Z, the size of the stochastic part of a state."""
    deterministic: PositiveInt = 200
    """D, the size of the deterministic part, the memory of a GRU."""
    width: NonNegativeInt = 200
    """Width of the layers between state, action and memory, and of the reward's; 0: none, so that
    prior and posterior are linear."""
    hidden: tuple[PositiveInt, ...] = (200,)
    """Widths of the hidden layers for observations that are vectors; the decoder has them in
    reverse order."""
    learn_reward: bool = True
    """Whether to predict the reward too."""
    learn_termination: bool = False
    """Whether to predict termination too."""
    noise: PositiveFloat | None = 1.0
    """Std of each number of an observation around the decoder's mean, where a range of colours, or
    the std of a vector's dimension, is 1. If unset it is learned, one number for all."""
    reward_noise: PositiveFloat | None = 0.3
    """Likewise of the reward, whose std in the data is 1."""
    min_std: PositiveFloat = 0.1
    """Least std of prior and posterior."""
    beta: NonNegativeFloat = 1.0
    """Weight of the divergence between posterior and prior in the loss."""
    free_nats: NonNegativeFloat = 3.0
    """Nats of the divergence of a step that cost nothing, on average over a batch."""
    balance: Share | None = None
    """α of KL balancing (Hafner et al. 2021): the share of the divergence's gradient that goes to
    the prior, the rest goes to the posterior. If unset, both have all of it."""
    batch: PositiveInt = 50
    """B, sequences in an update."""
    length: PositiveInt = 50
    """L, steps of a sequence."""
    updates: PositiveInt = 100
    """Updates in a fit; each fit goes on from the last one."""
    learning_rate: PositiveFloat = 1e-3
    """Learning rate of Adam."""
    clip: PositiveFloat = 100.0
    """Largest norm of the gradient; larger ones are scaled down."""
    activation: Literal["silu", "relu", "elu", "tanh"] = "elu"
    """The function between layers."""

    def make(self, shape: Sequence[int], action_size: int, *, generator: Generator) -> Any:
        """A new `RecurrentDynamics` of observations (*O) and actions (A,)."""
        kind = of_module("model", self.MODEL)
        return kind(shape, action_size, self, generator=generator)
