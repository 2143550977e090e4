"""Images as observations, and their augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from gymnasium.spaces import Box, Space
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from mbrl.data.frames import channels_first


def is_image(space: Space) -> bool:
    """Whether observations are images: a box of uint8 with three dimensions."""
    return isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) == 3


class Images:
    """Takes observations that are images to a device, as uint8.

    Args:
        shape: *O, of an image.
        device: where the images are to be.

    Attributes:
        size: *O.
    """

    def __init__(self, shape: Sequence[int], *, device: torch.device | str = "cpu") -> None:
        self.size, self._device = tuple(shape), device

    def __call__(self, obs: np.ndarray | Tensor) -> UInt8[Tensor, " N *O"]:
        """The images (N, *O).

        Raises:
            ValueError: numbers that are not uint8.
        """
        images = torch.as_tensor(obs, device=self._device)
        if images.dtype != torch.uint8:
            raise ValueError(f"images: want uint8, got {images.dtype}")
        return images


def planes(images: UInt8[Tensor, " B *O"], dtype: torch.dtype) -> Float[Tensor, "B C H W"]:
    """Images as floats from 0 to 1, channels first, whichever way they are stored.

    Raises:
        ValueError: numbers that are not uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images: want uint8, got {images.dtype}")
    first = channels_first(images.shape[1:])
    return (images if first else images.permute(0, 3, 1, 2)).to(dtype).div_(255)


def random_shift(
    images: UInt8[Tensor, " B *O"], most: int, *, generator: Generator
) -> UInt8[Tensor, " B *O"]:
    """Each image shifted by up to `most` pixels in each direction (DrQ; Yarats et al. 2021).

    Shifts are drawn uniformly for each image; pixels from outside are those of the nearest edge.

    Args:
        images: (B, H, W, C) or (B, C, H, W), see `channels_first`.
        most: the greatest shift.
        generator: draws the shifts.
    """
    first = channels_first(images.shape[1:])
    x = images.permute(0, 2, 3, 1) if first else images
    shifts = torch.randint(
        -most, most + 1, (2, len(x), 1), generator=generator, device=generator.device
    ).to(x.device)
    if x.is_cpu and most:
        shifted = torch.from_numpy(_cut(x.numpy(), shifts[..., 0].T.tolist(), most))
        return shifted.permute(0, 3, 1, 2) if first else shifted
    rows, columns = (
        (torch.arange(length, device=x.device) + shift).clamp(0, length - 1)
        for length, shift in zip(x.shape[1:3], shifts, strict=True)
    )
    each = torch.arange(len(x), device=x.device)[:, None, None]
    shifted = x[each, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2) if first else shifted


def _cut(x: np.ndarray, shifts: Sequence[tuple[int, int]], most: int) -> np.ndarray:
    """The part of each image (H, W, C) that is shifted, after its edges are repeated.

    A tenth of the time that indices of all pixels take.
    """
    count, height, width, channels = x.shape
    wide = np.empty((count, height + 2 * most, width + 2 * most, channels), x.dtype)
    wide[:, most:-most, most:-most] = x
    wide[:, :most] = wide[:, most : most + 1]
    wide[:, -most:] = wide[:, -most - 1 : -most]
    wide[:, :, :most] = wide[:, :, most : most + 1]
    wide[:, :, -most:] = wide[:, :, -most - 1 : -most]
    out = np.empty_like(x, order="C")
    for k, (row, column) in enumerate(shifts):
        top, left = most + row, most + column
        out[k] = wide[k, top : top + height, left : left + width]
    return out
