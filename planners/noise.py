"""Noise for candidates: power-law coloured, and the truncated normal of PETS."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Generator, Tensor


def coloured_noise(like: Tensor, count: int, beta: float, *, generator: Generator) -> Tensor:
    """`count` draws (N, K, A) with power spectrum 1/f^beta along K, mean 0 and variance 1.

    `like` (K, A) gives the shape, device and dtype. Each of the A sequences is drawn on its
    own. `beta` = 0 is white, 1 pink, 2 Brownian. As in Pinneri et al. 2020 ("Sample-efficient
    cross-entropy method for real-time planning") the zero frequency gets the power of the
    lowest one. Method of Timmer and Koenig 1995; the variance is exact for every K, odd or
    even, and K = 1 gives plain normals.
    """
    steps, size = like.shape
    options = {"generator": generator, "device": like.device, "dtype": like.dtype}
    if beta == 0:
        return torch.randn(count, steps, size, **options)
    waves = _waves(steps, beta, like.dtype, like.device)
    return (torch.randn(count, size, len(waves), **options) @ waves).mT


@lru_cache(maxsize=64)
def _waves(steps: int, beta: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix (2 (K // 2 + 1), K) that turns white noise into coloured.

    Rows are cosine and sine of each frequency in turn, times its standard deviation. For the
    few steps of a plan one product is faster than an FFT.
    """
    # In units of the lowest frequency no power exceeds one, so no exponent overflows.
    power = torch.arange(steps // 2 + 1, dtype=torch.float64).clamp_min(1) ** -beta
    # Each frequency counts twice, for its conjugate too; zero and Nyquist are real and count once.
    real = torch.zeros_like(power, dtype=torch.bool)
    real[0] = True
    real[-1] |= steps % 2 == 0
    power *= steps**2 / torch.where(real, power, 2 * power).sum()
    parts = torch.stack((torch.where(real, power, power / 2), torch.where(real, 0.0, power / 2)), 1)
    spectrum = torch.diag_embed(parts.sqrt().flatten()).view(-1, len(power), 2)
    return torch.fft.irfft(torch.view_as_complex(spectrum), n=steps).to(device, dtype)


def truncated_normal(like: Tensor, count: int, *, generator: Generator) -> Tensor:
    """`count` draws (N, K, A) of the standard normal truncated to [-2, 2].

    `like` (K, A) gives the shape, device and dtype. The standard deviation is 0.880, as in
    PETS (Chua et al. 2018), which does not rescale it.
    """
    draws = torch.empty(count, *like.shape, device=like.device, dtype=like.dtype)
    inside = math.erf(math.sqrt(2))
    return draws.uniform_(-inside, inside, generator=generator).erfinv_().mul_(math.sqrt(2))
