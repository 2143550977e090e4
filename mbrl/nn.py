"""Networks: E independent MLPs run as one stack of matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "elu": F.elu,
    "tanh": lambda x, inplace=False: x.tanh_() if inplace else x.tanh(),
}


def stacked_mlp(
    x: Float[Tensor, "E B I"],
    weights: Sequence[Float[Tensor, "E I O"]],
    biases: Sequence[Float[Tensor, "E 1 O"]],
    activation: str,
) -> Float[Tensor, "E B O"]:
    """The forward pass of E multi-layer perceptrons, each on its own rows."""
    act = ACTIVATIONS[activation]
    inplace = not torch.is_grad_enabled()
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = act(torch.baddbmm(bias, x, weight), inplace=inplace)
    return torch.baddbmm(biases[-1], x, weights[-1])


class StackedMLP(nn.Module):
    """E multi-layer perceptrons of the same shape: layer l holds (E, I, O) and (E, 1, O).

    Args:
        members: E, how many networks.
        sizes: input size, hidden sizes, output size.
        activation: one of `ACTIVATIONS`, between layers.
        generator: draws the weights; truncated normal of std 1/(2 sqrt(I)), as PETS
            (Chua et al. 2018, their code) initialises.

    Raises:
        ValueError: a size or member count below one, or an unknown activation.
    """

    def __init__(
        self, members: int, sizes: Sequence[int], *, activation: str = "silu", generator: Generator
    ) -> None:
        super().__init__()
        if members < 1 or len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"members and sizes must be >= 1, got {members} and {tuple(sizes)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is unknown; take one of {[*ACTIVATIONS]}")
        self.members, self.sizes, self.activation = members, tuple(sizes), activation
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(torch.empty(members, i, o) for i, o in pairs)
        self.biases = nn.ParameterList(torch.empty(members, 1, o) for _, o in pairs)
        self.reset(slice(None), generator=generator)

    @torch.no_grad()
    def reset(self, members: slice, *, generator: Generator) -> None:
        """Draw the weights of some members anew."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            std = 1 / (2 * math.sqrt(weight.shape[1]))
            fresh = torch.empty(weight[members].shape)
            nn.init.trunc_normal_(fresh, std=std, a=-2 * std, b=2 * std, generator=generator)
            weight[members] = fresh.to(weight)
            bias[members] = 0.0

    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B O"]:
        """Each member's output on its own rows."""
        return stacked_mlp(x, list(self.weights), list(self.biases), self.activation)
