"""Convolutional encoders of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor, nn
from torch.nn.utils import skip_init

from mbrl.encoders.configs import ImageConfig
from mbrl.encoders.encoder import Encoder
from mbrl.encoders.images import channels_first, planes

# of each layer: kernel and stride; and channels as multiples of the first layer's
_LAYERS = {
    "drq": (((3, 2), (3, 1), (3, 1), (3, 1)), (1, 1, 1, 1)),
    "nature": (((8, 4), (4, 2), (3, 1)), (1, 2, 2)),
}


def least_size(network: str) -> int:
    """The least height and width of images for a network, one of those of `ImageConfig`."""
    least = 1
    for kernel, stride in reversed(_LAYERS[network][0]):
        least = (least - 1) * stride + kernel
    return least


class ImageEncoder(Encoder):
    """Features of images, by convolutions and a linear layer.

    Numbers 0 to 255 become -1/2 to 1/2 first (DrQ-v2; Yarats et al. 2022). With `network="drq"`
    four convolutions of 3 x 3, the first of stride 2, are followed by a linear layer, layer norm
    and tanh (Yarats et al. 2021, arXiv 2004.13649; their sizes are those of SAC-AE, arXiv
    1910.01741); with "nature" three convolutions by a linear layer and ReLU (Mnih et al. 2015).
    Weights are orthogonal, biases 0.

    Args:
        shape: of an image: (H, W, C), as gymnasium's renderings and most environments have it.
            (C, H, W), as stacked grey frames have it, if the first number is less than the last.
        config: settings.
        generator: draws the weights.

    Raises:
        ValueError: a shape of other than 3 dimensions; images that are too small for the network.
    """

    def __init__(self, shape: Sequence[int], config: ImageConfig, *, generator: Generator) -> None:
        super().__init__(tuple(shape), config.features)
        if len(self.shape) != 3:
            raise ValueError(f"shape: want that of an image, of 3 dimensions, got {self.shape}")
        self.channels_first = channels_first(self.shape)
        *size, channels = self.shape[1:] + self.shape[:1] if self.channels_first else self.shape
        layers, widths = _LAYERS[config.network]
        least = least_size(config.network)
        if min(size) < least:
            other = ", for which there is drq" if min(size) >= least_size("drq") else ""
            raise ValueError(
                f"images.network: {config.network} needs images of at least {least} x {least} "
                f"pixels, got {size[0]} x {size[1]}{other}"
            )
        self.normed = config.network == "drq"
        convolutions = []
        sizes = [channels, *(config.channels * width for width in widths)]
        for (before, after), (kernel, stride) in zip(pairwise(sizes), layers, strict=True):
            # without torch's own initial weights, which draw from its global random stream
            layer = skip_init(nn.Conv2d, before, after, kernel, stride=stride)
            convolutions.append(cast(nn.Conv2d, layer))
            size = [(length - kernel) // stride + 1 for length in size]
        self.convolutions = nn.ModuleList(convolutions)
        flat = sizes[-1] * math.prod(size)
        self.linear = cast(nn.Linear, skip_init(nn.Linear, flat, config.features))
        self.norm = nn.LayerNorm(config.features) if self.normed else nn.Identity()
        for layer in (*convolutions, self.linear):
            gain = 1.0 if layer is self.linear and self.normed else math.sqrt(2)
            nn.init.orthogonal_(layer.weight, gain, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, obs: UInt8[Tensor, "*lead *O"]) -> Float[Tensor, "*lead F"]:
        """Features of images; those of "drq" lie within ±1.

        Raises:
            ValueError: images of another shape, or whose numbers are not uint8.
        """
        lead = obs.shape[: max(0, obs.ndim - 3)]
        if obs.dtype != torch.uint8 or tuple(obs.shape[len(lead) :]) != self.shape:
            raise ValueError(
                f"images: want uint8 of shape (*lead, {', '.join(map(str, self.shape))}), "
                f"got {obs.dtype} of shape {tuple(obs.shape)}"
            )
        x = planes(obs.reshape(-1, *self.shape), self.linear.weight.dtype) - 0.5
        for layer in self.convolutions:
            x = layer(x).relu()
        x = self.linear(x.flatten(1))
        x = self.norm(x).tanh() if self.normed else x.relu()
        return x.view(*lead, self.features)
