"""Random draws and checks shared by `bandits` and `linear_bandits`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor


def argmax_random_ties(index: Tensor, generator: Generator) -> Tensor:
    """The index of the largest entry of each row, (R,); ties broken at random."""
    best, arms = index.max(-1, keepdim=True)
    tied = index == best
    if int(tied.sum()) > len(index):  # rare after the first plays
        uniform_draws = torch.rand(index.shape, generator=generator, device=index.device)
        return uniform_draws.masked_fill_(~tied, -1.0).argmax(-1)
    return arms[:, 0]


def draw_rewards(mean: Tensor, noise: float | None, generator: Generator) -> Tensor:
    """Rewards with these means: Bernoulli, or Gaussian with std `noise` if that is given."""
    if noise is None:
        return (uniform(mean, generator) < mean).to(mean)
    return mean + noise * normal(mean, generator)


def uniform(like: Tensor, generator: Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def normal(like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def numpy_generator(generator: Generator) -> np.random.Generator:
    """A numpy generator seeded by a draw from torch's."""
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return np.random.Generator(np.random.PCG64(int(seed)))


def apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Products (R, N) of R matrices (R, N, M) with R vectors (R, M)."""
    return (matrices @ vectors[..., None])[..., 0]


def check_rewards(rewards: Tensor, runs: int, bounded: bool) -> None:
    """Raise ValueError unless rewards are (R,), finite and, if `bounded`, in [0, 1]."""
    low, high = extremes(rewards) if rewards.shape == (runs,) else (math.nan, math.nan)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"rewards must be finite, (R,) = ({runs},), got {tuple(rewards.shape)}")
    if bounded and not 0 <= low <= high <= 1:
        raise ValueError("rewards must lie in [0, 1], which this algorithm assumes")


def extremes(values: Tensor) -> tuple[float, float]:
    """The minimum and maximum; NaN if any value is NaN."""
    low, high = values.aminmax()
    return low.item(), high.item()


def at_least_one(**counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
