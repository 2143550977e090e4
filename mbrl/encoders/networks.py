"""Networks from observations to numbers and back, for vectors and for images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn
from torch.nn.utils import skip_init

from mbrl.data import Normaliser
from mbrl.encoders.configs import RepresentationConfig
from mbrl.encoders.images import channels_first, planes
from mbrl.nn import ACTIVATIONS, StackedMLP

KERNEL, STRIDE = 4, 2


class MLP(nn.Module):
    """One multi-layer perceptron, for any leading dimensions.

    Args:
        sizes: input size, hidden sizes, output size.
        activation: one of `ACTIVATIONS`.
        generator: draws the weights, those of torch's linear layers.
    """

    def __init__(self, sizes: Sequence[int], activation: str, *, generator: Generator) -> None:
        super().__init__()
        self.stack = StackedMLP(
            1, sizes, activation=activation, init="uniform", generator=generator
        )

    def forward(self, x: Float[Tensor, "*lead I"]) -> Float[Tensor, "*lead O"]:
        """The outputs."""
        out = self.stack(x.reshape(1, -1, x.shape[-1]))
        return out.view(*x.shape[:-1], out.shape[-1])


class ImageScaling(nn.Module):
    """Between images of uint8 and (B, C, H, W) of floats from 0 to 1.

    Args:
        shape: of an image, (H, W, C) or (C, H, W); see `channels_first`.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.first = channels_first(self.shape)
        *size, channels = self.shape[1:] + self.shape[:1] if self.first else self.shape
        self.size = (channels, *size)  # (C, H, W)

    def forward(self, images: Shaped[Tensor, " B *O"]) -> Float[Tensor, "B C H W"]:
        """The images for convolutions.

        Raises:
            ValueError: numbers that are not uint8.
        """
        return planes(images, torch.get_default_dtype())

    def back(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, " B *O"]:
        """Images in the shape of observations, still from 0 to 1."""
        return x if self.first else x.permute(0, 2, 3, 1)


class VectorScaling(nn.Module):
    """Scales vectors to mean 0 and std 1 on data, by `scale`.

    Args:
        size: O.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.normaliser = Normaliser(size)
        self.size = (size,)

    def forward(self, x: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        """In units of the data's std."""
        return self.normaliser.scale(x)

    def back(self, x: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        """In units of observations."""
        return self.normaliser.unscale(x)


class Down(nn.Module):
    """Convolutions of 4 x 4, each of which halves height and width, then a linear layer.

    Args:
        size: (C, H, W).
        outputs: number of outputs.
        config: channels and number of layers.
        generator: draws the weights.

    Raises:
        ValueError: images that are too small for so many layers.
    """

    def __init__(
        self,
        size: Sequence[int],
        outputs: int,
        config: RepresentationConfig,
        *,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.act = ACTIVATIONS[config.activation]
        sizes, widths = halved(size, config), channels(size[0], config)
        self.convolutions = nn.ModuleList(
            cast(nn.Conv2d, skip_init(nn.Conv2d, before, after, KERNEL, STRIDE, 1))
            for before, after in pairwise(widths)
        )
        flat = widths[-1] * math.prod(sizes[-1])
        self.linear = cast(nn.Linear, skip_init(nn.Linear, flat, outputs))
        draw([*self.convolutions, self.linear], generator)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """The outputs."""
        x = x - 0.5
        for layer in self.convolutions:
            x = self.act(layer(x))
        return self.linear(x.flatten(1))


class Up(nn.Module):
    """The mirror image of `Down`: a linear layer, then transposed convolutions.

    Args:
        inputs: number of inputs.
        size: (C, H, W) of an image.
        config: as in `Down`.
        generator: draws the weights.
    """

    def __init__(
        self,
        inputs: int,
        size: Sequence[int],
        config: RepresentationConfig,
        *,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.act = ACTIVATIONS[config.activation]
        sizes, widths = halved(size, config), channels(size[0], config)
        self.first = (widths[-1], *sizes[-1])
        self.linear = cast(nn.Linear, skip_init(nn.Linear, inputs, math.prod(self.first)))
        layers = []
        for (small, large), (before, after) in zip(
            pairwise(reversed(sizes)), pairwise(reversed(widths)), strict=True
        ):
            odd = [b - 2 * a for a, b in zip(small, large, strict=True)]
            layer = skip_init(nn.ConvTranspose2d, before, after, KERNEL, STRIDE, 1, tuple(odd))
            layers.append(cast(nn.ConvTranspose2d, layer))
        self.convolutions = nn.ModuleList(layers)
        draw([self.linear, *self.convolutions], generator)

    def forward(self, z: Float[Tensor, "B I"]) -> Float[Tensor, "B C H W"]:
        """Numbers for each pixel."""
        x = self.act(self.linear(z)).view(-1, *self.first)
        if x.is_cpu:  # convolutions are faster so, and images (H, W, C) lie so too
            x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.convolutions[:-1]:
            x = self.act(layer(x))
        return self.convolutions[-1](x)


def halved(size: Sequence[int], config: RepresentationConfig) -> list[tuple[int, int]]:
    """Height and width before and after each convolution."""
    sizes = [(int(size[1]), int(size[2]))]
    for _ in range(config.layers):
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    if min(sizes[-1]) < 1:
        raise ValueError(
            f"layers: {config.layers} halvings need images of at least {2**config.layers} x "
            f"{2**config.layers} pixels, got {size[1]} x {size[2]}"
        )
    return sizes


def channels(first: int, config: RepresentationConfig) -> list[int]:
    """Channels of the image, and of each convolution's output."""
    return [first, *(config.channels * 2**layer for layer in range(config.layers))]


@torch.no_grad()
def draw(layers: Sequence[nn.Module], generator: Generator) -> None:
    """Set the initial weights: orthogonal matrices times sqrt(2), and biases 0."""
    for layer in layers:
        weight, bias = cast(Tensor, layer.weight), cast(Tensor, layer.bias)
        nn.init.orthogonal_(weight, math.sqrt(2), generator=generator)
        nn.init.zeros_(bias)


def coder(
    shape: Sequence[int], outputs: int, config: RepresentationConfig, *, generator: Generator
) -> tuple[ImageScaling | VectorScaling, nn.Module]:
    """The scaling of observations, and an encoder from scaled ones.

    Args:
        shape: *O: of a vector, or of an image.
        outputs: of the encoder.
        config: sizes.
        generator: draws the weights.

    Raises:
        ValueError: a shape that is neither a vector's nor an image's, or images that are too small.
    """
    if len(shape) == 1:
        size = int(shape[0])
        sizes = (size, *config.hidden, outputs)
        return VectorScaling(size), MLP(sizes, config.activation, generator=generator)
    if len(shape) != 3:
        raise ValueError(f"shape: want that of a vector or an image, got {tuple(shape)}")
    scaling = ImageScaling(shape)
    return scaling, Down(scaling.size, outputs, config, generator=generator)


def networks(
    shape: Sequence[int], outputs: int, config: RepresentationConfig, *, generator: Generator
) -> tuple[ImageScaling | VectorScaling, nn.Module, nn.Module]:
    """What `coder` returns, and a decoder of codes to scaled observations.

    Raises:
        ValueError: see `coder`.
    """
    scaling, encoder = coder(shape, outputs, config, generator=generator)
    if isinstance(scaling, VectorScaling):
        back = (config.latent, *reversed(config.hidden), *scaling.size)
        return scaling, encoder, MLP(back, config.activation, generator=generator)
    return scaling, encoder, Up(config.latent, scaling.size, config, generator=generator)
