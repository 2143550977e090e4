"""Checks of predictions, and densities and draws that several files need."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor


def same_shape(mean: Tensor, std: Tensor) -> None:
    if mean.shape != std.shape or mean.ndim < 2 or len(mean) == 0:
        raise ValueError(
            f"std: want mean and std of one shape (E, ..., D) with E >= 1, "
            f"got {tuple(mean.shape)} and {tuple(std.shape)}"
        )


def several(mean: Tensor) -> None:
    if len(mean) < 2:
        raise ValueError(f"mean: want two members or more, got {len(mean)}")


def finite(**values: Tensor) -> None:
    for name, value in values.items():
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name}: has NaN or infinite values; want finite ones")


def dense(std: Tensor) -> None:
    if not bool((std > 0).all()):
        raise ValueError("std: must be positive for a density, got 0 or less")


def check(mean: Tensor, std: Tensor, target: Tensor) -> None:
    same_shape(mean, std)
    if target.shape != mean.shape[1:]:
        raise ValueError(
            f"target: want the shape {tuple(mean.shape[1:])} of one member's mean, "
            f"got {tuple(target.shape)}"
        )
    if target.numel() == 0:
        raise ValueError("target: is empty; want at least one prediction")
    finite(mean=mean, std=std, target=target)
    if bool((std < 0).any()):
        raise ValueError("std: has negative values; want 0 or more")


def positive(std: Tensor) -> Tensor:
    """`std` with 0 replaced by the smallest positive number of the dtype."""
    return std.clamp_min(torch.finfo(std.dtype).tiny)


def log_density(
    x: Float[Tensor, "*lead D"], mean: Float[Tensor, "*lead D"], std: Float[Tensor, "*lead D"]
) -> Float[Tensor, "*lead"]:
    z = (x - mean) / std
    return -(0.5 * z.square() + std.log() + 0.5 * math.log(2 * math.pi)).sum(-1)


def normal_draws(samples: int, like: Float[Tensor, "E *lead D"], generator: Generator) -> Tensor:
    """Standard normal numbers (samples, *lead, D), which members share."""
    if samples < 1:
        raise ValueError(f"samples: must be at least 1, got {samples}")
    shape = (samples, *like.shape[1:])
    noise = torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device)
