"""Factors of dropout, from few random numbers."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor


def kept(x: Tensor, share: float, *, generator: Generator) -> Tensor:
    """Factors of dropout in the shape of `x`: 0 with probability `share`, else 1 / (1 - share).

    Cells are struck K times with replacement, K drawn from a Poisson distribution of mean
    -n log(1 - share). Strikes of different cells are then independent, and a cell is struck at all
    with probability `share` (Poisson splitting). For small shares that needs far fewer random
    numbers than one a cell.
    """
    mean = torch.tensor(-x.numel() * math.log1p(-share), dtype=torch.double)
    strikes = int(torch.poisson(mean.to(generator.device), generator=generator))
    struck = torch.randint(x.numel(), (strikes,), generator=generator, device=generator.device)
    factors = torch.full((x.numel(),), 1 / (1 - share), dtype=x.dtype, device=x.device)
    return factors.index_fill_(0, struck.to(x.device), 0.0).view(x.shape)
