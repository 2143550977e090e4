"""Scaling of columns to mean 0 and standard deviation 1, with statistics in float64."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

ROUNDING = 1e-16
"""A standard deviation below this is rounding error of float64 arithmetic on numbers near 1."""


class Normaliser(nn.Module):
    """Mean and standard deviation of D columns, as buffers; 0 and 1 before `fit`.

    A column that is constant in the data has `std` 0: `scale` only subtracts its mean, and
    `unscale` returns the mean for any input.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @property
    def unit(self) -> Float[Tensor, " D"]:
        """The standard deviation to divide by: 1 for a constant column."""
        return torch.where(self.std > 0, self.std, 1.0)

    def fit(self, x: Float[Tensor, "T D"]) -> None:
        """Set mean and standard deviation to those of these rows."""
        mean, std = moments(x)
        self.mean.copy_(mean)
        self.std.copy_(std)

    def scale(self, x: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """(x - mean) / std."""
        return (x - self.mean) / self.unit

    def unscale(self, x: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """x · std + mean."""
        return x * self.std + self.mean


def moments(x: Float[Tensor, "T D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Mean and standard deviation of each column in float64.

    The standard deviation is set to 0 if it is only rounding error: below 1e-8 of the column's
    mean, or below `ROUNDING`. Above that, scaled columns do not depend on their units.
    """
    x = x.double()
    mean, std = x.mean(0), x.std(0, correction=0)
    return mean, torch.where(std > (1e-8 * mean.abs()).clamp_min(ROUNDING), std, 0.0)
