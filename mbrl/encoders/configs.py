"""Settings of encoders. No torch is imported, so the command's help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planners.checks import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
)


@dataclass(frozen=True)
class ImageConfig:
    """Settings of the encoder of images; used only where observations are images."""

    network: Literal["drq", "nature"] = "drq"
    """drq: four layers of 3 x 3, then features within ±1 (Yarats et al. 2021), for images of at
    least 15 x 15. nature: three layers, then ReLU features (Mnih et al. 2015), for images of at
    least 36 x 36."""
    channels: PositiveInt = 32
    """Channels of each layer of drq, and of the first layer of nature; its others have twice as
    many."""
    features: PositiveInt = 50
    """F, the number of features that an image becomes."""
    shift: NonNegativeInt = 4
    """Most pixels by which an image of a batch is shifted, at random and in each direction (DrQ);
    0: not at all."""

    def __post_init__(self) -> None:
        check_fields(self)


NATURE = ImageConfig(network="nature", features=512, shift=0)
"""The encoder of deep Q-learning (Mnih et al. 2015)."""


@dataclass(frozen=True)
class RepresentationConfig:
    """Settings common to the representations that learn by a loss of their own."""

    latent: PositiveInt = 32
    """Z, the size of a code."""
    hidden: tuple[PositiveInt, ...] = (256, 256)
    """Widths of the hidden layers for observations that are vectors; the decoder has them in
    reverse order."""
    channels: PositiveInt = 32
    """For images: channels of the first convolution; each later one has twice as many."""
    layers: PositiveInt = 4
    """For images: number of convolutions of 4 x 4, each of which halves height and width."""
    activation: Literal["silu", "relu", "elu", "mish", "tanh"] = "silu"
    """The function between layers."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class VAEConfig(RepresentationConfig):
    """Settings of a variational autoencoder."""

    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    """p(x|z) of each number of an observation. bernoulli is for images, whose numbers it takes for
    probabilities of white."""
    noise: PositiveFloat | None = None
    """Std of a Gaussian likelihood, where a range of colours, or the std of a vector's dimension,
    is 1. If unset it is learned, one number for all (Rybkin et al. 2021)."""
    beta: NonNegativeFloat = 1.0
    """Weight of the divergence in the loss (Higgins et al. 2017)."""
    free_bits: NonNegativeFloat = 0.0
    """Nats of each latent dimension that cost nothing, on average over a batch (Kingma et al.
    2016)."""


@dataclass(frozen=True)
class AutoencoderConfig(RepresentationConfig):
    """Settings of a deterministic autoencoder that is regularised (Ghosh et al. 2020).

    The weights are those of SAC+AE (Yarats et al. 2019).
    """

    code_penalty: NonNegativeFloat = 1e-6
    """Weight of half the squared length of a code."""
    decoder_penalty: NonNegativeFloat = 1e-7
    """Weight of half the squared length of all the decoder's parameters."""


@dataclass(frozen=True)
class ContrastiveConfig(RepresentationConfig):
    """Settings of contrastive codes, without a decoder (CURL; Laskin et al. 2020)."""

    shift: PositiveInt = 4
    """Most pixels by which the key of an image is shifted against it, in each direction. A vector
    is its own key."""


@dataclass(frozen=True)
class SelfPredictionConfig(RepresentationConfig):
    """Settings of codes that predict the next one, without a decoder (LeWorldModel; 2026)."""

    predictor: tuple[PositiveInt, ...] = (256,)
    """Widths of the hidden layers from code and action to the next code."""
    isotropy: PositiveFloat = 0.1
    """Weight of the distance of codes from an isotropic Gaussian, without which they would all
    become equal."""
    directions: PositiveInt = 256
    """Number of random directions, drawn anew for each update, along which it is measured."""
