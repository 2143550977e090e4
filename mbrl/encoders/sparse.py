"""Products with images of which most pixels are always the same."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

SPARSE = 1 / 8
"""Largest share of changed pixels for which `product` is faster than that of whole images."""


class SparseImages(NamedTuple):
    """T images of D pixels from 0 to 1, as their differences from their median.

    The product of a batch with a matrix then takes time for at most K pixels an image.
    """

    index: Int[Tensor, "T K"]
    change: Float[Tensor, "T K"]  # of these pixels; 0 behind an image's last
    common_index: Int[Tensor, " C"]
    common: Float[Tensor, " C"]  # the pixels in which the median is not 0

    @classmethod
    def of(cls, images: UInt8[Tensor, "T D"], dtype: torch.dtype) -> SparseImages | None:
        """The images; None if one of them differs in more than a share `SPARSE` of pixels."""
        median = images.median(0).values
        differs = images != median
        counts = differs.sum(1)
        most = max(int(counts.max()), 1)
        if most > SPARSE * images.shape[1]:
            return None
        image, pixel = differs.nonzero(as_tuple=True)  # in order of images
        before = counts.cumsum(0) - counts
        place = torch.arange(len(pixel), device=images.device) - before[image]
        index = images.new_zeros(len(images), most, dtype=torch.int32)
        change = images.new_zeros(len(images), most, dtype=dtype)
        index[image, place] = pixel.int()
        change[image, place] = (images[image, pixel].to(dtype) - median[pixel].to(dtype)) / 255
        nonzero = median.nonzero().squeeze(-1)
        common = median[nonzero].to(dtype)
        return cls(index, change, nonzero.int(), common / 255)

    def product(
        self, rows: Int[Tensor, " B"], weight: Float[Tensor, "D O"]
    ) -> Float[Tensor, "B O"]:
        """Images in these rows times a matrix; gradients reach the matrix."""
        index = torch.cat((self.index[rows].flatten(), self.common_index))
        values = torch.cat((self.change[rows].flatten(), self.common))
        starts = self.index.shape[1] * torch.arange(len(rows) + 1).to(index)
        bags = F.embedding_bag(index, weight, starts, mode="sum", per_sample_weights=values)
        return bags[:-1] + bags[-1]
