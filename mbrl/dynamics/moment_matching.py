"""Moments of Gaussian processes for a Gaussian input, in closed form.

Deisenroth 2010, "Efficient reinforcement learning using Gaussian processes", section 2.3;
Deisenroth and Rasmussen 2011, "PILCO", section 2.2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Matched(NamedTuple):
    """Moments of K function values, without noise, for an input that is Gaussian."""

    mean: Float[Tensor, " K"]
    cov: Float[Tensor, "K K"]
    cross: Float[Tensor, "I K"]  # covariance of the input and the values


def match(
    rows: Float[Tensor, "n I"],
    weights: Float[Tensor, "K n"],
    inverses: Float[Tensor, "K n n"],
    length: Float[Tensor, "K I"],
    variance: Float[Tensor, " K"],
    mean: Float[Tensor, " I"],
    cov: Float[Tensor, "I I"],
) -> Matched:
    """Exact moments of independent processes with squared exponential kernels.

    Args:
        rows: X, in float64.
        weights: (K + σ² 1)⁻¹ y of each process.
        inverses: (K + σ² 1)⁻¹.
        length: length scales.
        variance: of each process under its prior.
        mean, cov: of the input; the covariance may be singular.
    """
    outputs, inputs = length.shape
    away = rows - mean  # ν, (n, I)
    unit = torch.eye(inputs).to(rows)
    scaled = away / length.unsqueeze(1)  # (K, n, I)
    wide = cov / (length.unsqueeze(2) * length.unsqueeze(1)) + unit  # Λ^-½ Σ Λ^-½ + 1
    solved = torch.linalg.solve(wide, scaled.mT).mT  # (K, n, I)
    exponent = -0.5 * (scaled * solved).sum(-1)
    q = variance.unsqueeze(1) * exponent.exp() / torch.linalg.det(wide).sqrt().unsqueeze(1)
    weighted = weights * q
    middle = weighted.sum(1)
    # Σ (Σ + Λ)⁻¹ ν of each row, weighted
    cross = cov @ ((weighted.unsqueeze(1) @ solved).squeeze(1) / length).mT
    # of kernels at the mean, in logarithms, since their product may underflow
    single = variance.log().unsqueeze(1) - 0.5 * scaled.square().sum(-1)  # (K, n)
    precise = away / length.square().unsqueeze(1)  # Λ⁻¹ ν, (K, n, I)
    second = [[middle.new_zeros(())] * outputs for _ in range(outputs)]
    for a in range(outputs):
        for b in range(a + 1):
            both = cov @ (length[a] ** -2 + length[b] ** -2).diag() + unit  # R
            inner = torch.linalg.solve(both, cov)
            inner = 0.5 * (inner + inner.mT)  # R⁻¹ Σ
            left, right = precise[a] @ inner, precise[b] @ inner
            rows_a = single[a] + 0.5 * (left * precise[a]).sum(-1)
            rows_b = single[b] + 0.5 * (right * precise[b]).sum(-1)
            half = rows_a.unsqueeze(1) + rows_b + left @ precise[b].mT
            joint = half.exp() / torch.linalg.det(both).sqrt()
            value = weights[a] @ joint @ weights[b]
            if a == b:  # the uncertainty of the function
                value = value + variance[a] - (inverses[a] * joint).sum()
            second[a][b] = second[b][a] = value - middle[a] * middle[b]
    return Matched(middle, torch.stack([torch.stack(row) for row in second]), cross)
