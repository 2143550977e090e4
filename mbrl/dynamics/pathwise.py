"""Functions drawn from the posterior of a Gaussian process, by Matheron's rule.

Wilson et al. 2020, "Efficiently sampling functions from Gaussian process posteriors" (arXiv
2002.09309):

    f(x) + k(x, X) (K + σ² 1)⁻¹ (y - f(X) - ε),   f drawn from the prior, ε ~ N(0, σ² 1),

where f is a sum of random Fourier features (Rahimi and Recht 2007) with frequencies that are drawn
anew for each function. Mean and covariance of such functions are those of the posterior however few
features there are; with more of them each function is closer to a Gaussian process.

Inputs u are in units of length scales.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 2**17
"""Kernels of rows and points are computed so many at a time, which stay in a core's cache."""


class Function(NamedTuple):
    """One output of E functions, or of one function."""

    kernel: str
    length: Float[Tensor, " I"]  # length scales
    points: Float[Tensor, "_ n"]  # X, see `beside`
    update: Float[Tensor, "*E n 1"]  # s² (K + σ² 1)⁻¹ (y - f(X) - ε), s the prior's std
    directions: Float[Tensor, "*E I F"]  # frequencies of f, float32
    weights: Float[Tensor, "*E 2F 1"]  # of its cosines, and then of its sines; float32

    def __call__(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B 1"]:
        """Values of each function at its own rows, float64."""
        u = x / self.length
        each = max(CHUNK // max(self.update.shape[-2], self.weights.shape[-2]), 1)
        if u.shape[0] * u.shape[1] <= each:
            return self._at(u)
        members = (
            Function(self.kernel, self.length, self.points, *one)
            for one in zip(self.update, self.directions, self.weights, strict=True)
        )
        return torch.stack(
            [
                torch.cat([one._at(part) for part in rows.split(each)])
                for one, rows in zip(members, u, strict=True)
            ]
        )

    def _at(self, u: Float[Tensor, "*E B I"]) -> Float[Tensor, "*E B 1"]:
        value = prior_value(u, self.directions, self.weights)
        if not self.update.shape[-2]:
            return value
        return value + correlation(self.kernel, u, self.points) @ self.update


def prior_value(
    u: Float[Tensor, "*E B I"],
    directions: Float[Tensor, "*E I F"],
    weights: Float[Tensor, "*E 2F 1"],
) -> Float[Tensor, "*E B 1"]:
    """f(u): a sum of cosines and sines, in float32, which is exact enough and quick."""
    phase = u.float() @ directions
    return (torch.cat((phase.cos(), phase.sin()), -1) @ weights).to(u.dtype)


def beside(points: Float[Tensor, "n I"]) -> Float[Tensor, "_ n"]:
    """Points, ones and -|point|² / 2, as columns: the right factor in `correlation`."""
    half = -0.5 * points.square().sum(-1, keepdim=True)
    return torch.cat((points, torch.ones_like(half), half), -1).mT.contiguous()


def correlation(
    kernel: str, u: Float[Tensor, "*lead B I"], points: Float[Tensor, "_ n"]
) -> Float[Tensor, "*lead B n"]:
    """Of function values under the prior (Rasmussen and Williams 2006, equations 4.9 and 4.17).

    Args:
        kernel: as in `GPConfig`.
        u: rows.
        points: what `beside` makes of the points.
    """
    square = -0.5 * u.square().sum(-1, keepdim=True)
    half = torch.cat((u, square, torch.ones_like(square)), -1) @ points  # -|u - point|² / 2
    if kernel == "se":
        return half.exp_()
    distance = (-10 * half).clamp_min(1e-30).sqrt()  # the root has no gradient at 0
    return (1 + distance + distance.square() / 3) * (-distance).exp()
