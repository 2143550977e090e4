"""Encoders that learn by a loss of their own."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl.encoders.configs import RepresentationConfig
from mbrl.encoders.encoder import Encoder, leading
from mbrl.encoders.networks import ImageScaling, VectorScaling, coder, networks
from mbrl.types import Transition


class Learned(Encoder):
    """An encoder into codes z of Z numbers that learns from transitions by a loss of its own.

    Observations are vectors, or images of uint8. The code of an observation is the first Z outputs
    of the encoder's network.

    Args:
        shape: *O, of an observation.
        latent: Z.
        scaling: of observations.
        network: from scaled observations to K outputs.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        scaling: ImageScaling | VectorScaling,
        network: nn.Module,
    ) -> None:
        super().__init__(tuple(shape), latent)
        self.scaling, self.network = scaling, network

    def rescale(self, obs: Shaped[Tensor, " T *O"]) -> None:
        """Fit to data before learning: vectors are scaled to mean 0 and std 1 on these.

        Images have a scale of their own. A decoder of images starts from their mean.
        """
        if isinstance(self.scaling, VectorScaling):
            self.scaling.normaliser.fit(obs)

    def forward(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead Z"]:
        """The codes.

        Raises:
            ValueError: observations of another shape, or images that are not uint8.
        """
        return self.encoded(obs)[..., : self.features]

    def encoded(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead K"]:
        """All outputs of the encoder's network."""
        lead = leading(obs, self.shape)
        out = self.network(self.scaling(obs.reshape(-1, *self.shape)))
        return out.view(*lead, out.shape[-1])

    @abstractmethod
    def batch_loss(
        self, batch: Transition, *, slow: Encoder, generator: Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """What learning from transitions (B,) minimises, and numbers to log.

        Args:
            batch: the transitions.
            slow: an encoder of the same codes that follows this one slowly, or this one itself.
            generator: draws whatever the loss draws.
        """


class DecoderFree(Learned):
    """A `Learned` encoder whose network has Z outputs, and which nothing decodes.

    Args:
        shape: *O, of an observation.
        config: sizes.
        generator: draws the weights.

    Raises:
        ValueError: a shape that is neither a vector's nor an image's, or images that are too small.
    """

    def __init__(
        self, shape: Sequence[int], config: RepresentationConfig, *, generator: Generator
    ) -> None:
        parts = coder(shape, config.latent, config, generator=generator)
        super().__init__(shape, config.latent, *parts)


class Representation(Learned):
    """An encoder into codes z of Z numbers, with a decoder, that learns by a loss of its own.

    Observations are vectors, or images of uint8. A subclass has the loss, and says what the outputs
    of the encoder's network are; the code of an observation is the first Z of them.

    Args:
        shape: *O, of an observation.
        config: sizes.
        outputs: of the encoder's network; Z or more.
        generator: draws the weights.

    Attributes:
        background: (C, H, W), what the decoder's outputs for images are added to; 0 before
            `rescale`.
        spread: what they are multiplied by before; 1 before `rescale`, and for vectors.

    Raises:
        ValueError: a shape that is neither a vector's nor an image's, or images that are too small.
    """

    background: Tensor
    spread: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        config: RepresentationConfig,
        outputs: int,
        *,
        generator: Generator,
    ) -> None:
        scaling, network, decoder = networks(shape, outputs, config, generator=generator)
        super().__init__(shape, config.latent, scaling, network)
        self.decoder = decoder
        if isinstance(scaling, ImageScaling):
            self.register_buffer("background", torch.zeros(scaling.size))
        self.register_buffer("spread", torch.ones(()))

    @torch.no_grad()
    def rescale(self, obs: Shaped[Tensor, " T *O"]) -> None:
        """Scale vectors; for images, scale the decoder's outputs.

        These are then added to the mean image, in units of the std of all pixels around it. Where
        little of an image ever changes, a decoder otherwise learns what does not change first.
        """
        super().rescale(obs)
        if isinstance(self.scaling, ImageScaling):
            parts, whole = obs.split(64), len(obs) * math.prod(self.shape)
            mean = sum((self.scaling(part).double().sum(0) for part in parts), torch.zeros(()))
            mean = mean / len(obs)
            rest = sum(float((self.scaling(part) - mean).square().sum()) for part in parts)
            spread = math.sqrt(rest / whole)
            self.background.copy_(self.outputs(mean))
            self.spread.fill_(self.unit(spread) if spread > 0 else 1.0)

    def drawn(self, z: Float[Tensor, "B Z"]) -> Float[Tensor, " B *D"]:
        """Outputs of the decoder, in the shape of what `scaling` gives."""
        out = self.decoder(z)
        if isinstance(self.scaling, VectorScaling):
            return out
        return out * self.spread + self.background

    def scaled(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead D"]:
        """Observations as the decoder has them, flat."""
        lead = leading(obs, self.shape)
        return self.scaling(obs.reshape(-1, *self.shape)).reshape(*lead, -1)

    def decoded(self, z: Float[Tensor, "*lead Z"]) -> Float[Tensor, "*lead D"]:
        """Outputs of the decoder, flat, in the order of `scaled`.

        Raises:
            ValueError: codes of another size.
        """
        if z.shape[-1] != self.features:
            raise ValueError(f"z: want codes of {self.features} numbers, got {tuple(z.shape)}")
        return self.drawn(z.reshape(-1, self.features)).reshape(*z.shape[:-1], -1)

    def reconstruct(self, z: Float[Tensor, "*lead Z"]) -> Float[Tensor, "*lead *O"]:
        """The observations that codes stand for: vectors, or images from 0 to 1.

        Raises:
            ValueError: codes of another size.
        """
        flat = self.means(self.decoded(z))
        return self.scaling.back(flat.view(-1, *self.scaling.size)).reshape(
            *z.shape[:-1], *self.shape
        )

    def means(self, decoded: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """What the decoder's outputs say of scaled observations; by default they are these."""
        return decoded

    def outputs(self, means: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """The inverse of `means`."""
        return means

    def unit(self, spread: float) -> float:
        """What the decoder's outputs for images are multiplied by, if pixels have this std."""
        return spread

    @abstractmethod
    def loss(
        self, obs: Shaped[Tensor, " B *O"], *, generator: Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """What the fit minimises, in nats for each observation, and numbers to log."""

    def batch_loss(
        self, batch: Transition, *, slow: Encoder, generator: Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of the observations."""
        return self.loss(batch.obs, generator=generator)
