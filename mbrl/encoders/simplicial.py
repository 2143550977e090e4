"""Encoders into simplices, of vectors and of images, which need no decoder (TD-MPC2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl.encoders.configs import ImageConfig
from mbrl.encoders.convolution import ImageEncoder
from mbrl.encoders.encoder import Encoder
from mbrl.nn import StackedMLP, simnorm
from mbrl.nn.stacked import LayerNorm


class Simplices(nn.Module):
    """Layer norm with a learned scale and shift, then the softmax over each group of numbers.

    Args:
        size: Z, how many numbers.
        group: V, those of a group.

    Raises:
        ValueError: a V that does not divide Z.
    """

    def __init__(self, size: int, group: int) -> None:
        super().__init__()
        if size % group:
            raise ValueError(f"group: want a divisor of the {size} latent numbers, got {group}")
        self.group, self.norm = group, LayerNorm(1, size)

    def forward(self, x: Float[Tensor, "1 B Z"]) -> Float[Tensor, "1 B Z"]:
        """Numbers of which those of each group are positive and sum to 1."""
        return simnorm(self.norm(x), self.group)


class SimplicialEncoder(Encoder):
    """Latent states of TD-MPC2 (Hansen et al. 2024): Z numbers in groups on simplices.

    Vectors go through layers with layer norm and Mish; images through those of `ImageEncoder`,
    whose features then have one layer more. Scaling of vectors is left to the first layer norm.

    Args:
        shape: *O, of a vector (S,) or an image.
        latent: Z.
        group: V.
        hidden: widths of the hidden layers, for vectors.
        images: settings, for images.
        generator: draws the weights.

    Raises:
        ValueError: a shape of another number of dimensions; images that are too small; a V that
            does not divide Z.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        group: int,
        hidden: Sequence[int],
        images: ImageConfig,
        generator: Generator,
    ) -> None:
        super().__init__(tuple(shape), latent)
        image = None
        if len(self.shape) > 1:
            image = ImageEncoder(self.shape, images, generator=generator)
            sizes = (images.features, latent)
        else:
            sizes = (*self.shape, *hidden, latent)
        self.image = image
        self.layers = StackedMLP(1, sizes, activation="mish", norm="layer", generator=generator)
        self.simplices = Simplices(latent, group)

    def forward(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead Z"]:
        """Latent states of observations."""
        x = obs if self.image is None else self.image(obs)
        rows = x.reshape(1, -1, x.shape[-1]).to(torch.float32)
        out = self.simplices(self.layers(rows))
        return out.view(*x.shape[:-1], self.features)
