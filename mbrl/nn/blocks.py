"""E residual networks of inverted bottlenecks, the body of FlashSAC (2026, arXiv 2604.04539)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl.nn.affine import affine
from mbrl.nn.stacked import ACTIVATIONS, BatchNorm, Stack, unit_columns
from planners.checks import check_memory


class StackedBlocks(Stack):
    """E networks of the same shape: a linear layer, residual blocks, a norm, and an output layer.

    x -> D: batch norm and linear. Each block: x + act(norm(act(norm(x W₁)) W₂)), with W₁ of
    (D, expansion · D) and W₂ back, and norms over the batch. At the end the rows get a root mean
    square of 1 (RMSNorm), so that large features of a few rows cannot make large outputs, and a
    linear layer with a bias gives the outputs. Other layers have none, for the norms have one.

    Args:
        members: E, the number of networks.
        sizes: input size, D once for each block, output size.
        activation: one of `ACTIVATIONS`.
        expansion: how much wider a block is inside.
        generator: draws the weights.

    Raises:
        ValueError: a size or member count below one, no block, blocks of different widths, an
            unknown activation, or an expansion below one.
    """

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        *,
        activation: str = "relu",
        expansion: int = 4,
        generator: Generator,
    ) -> None:
        super().__init__()
        if members < 1 or len(sizes) < 3 or min(sizes) < 1 or expansion < 1:
            raise ValueError(
                "members, expansion and sizes must be >= 1, with one block or more: got "
                f"{members}, {expansion} and {tuple(sizes)}"
            )
        if len(set(sizes[1:-1])) > 1:
            raise ValueError(f"sizes: blocks must have one width, got {tuple(sizes[1:-1])}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is unknown; take one of {[*ACTIVATIONS]}")
        self.sizes, self.activation, self.expansion = tuple(sizes), activation, expansion
        (first, width, *_), last, blocks = sizes, sizes[-1], len(sizes) - 2
        pairs = [(first, width)]
        pairs += [(width, expansion * width), (expansion * width, width)] * blocks
        pairs += [(width, last)]
        count = members * sum(i * o for i, o in pairs)
        check_memory(f"{members} nets with blocks of {width}: their fit", 5 * 4 * count)
        self.weights = nn.ParameterList(torch.empty(members, i, o) for i, o in pairs)
        self.bias = nn.Parameter(torch.empty(members, 1, last))
        # before the first layer, and after each layer of the blocks
        normed = [first, *(o for _, o in pairs[1:-1])]
        self.norms = nn.ModuleList(BatchNorm(members, size) for size in normed)
        self.rms = nn.Parameter(torch.empty(members, 1, width))
        self.reset(generator=generator)

    @torch.no_grad()
    def reset(self, *, generator: Generator) -> None:
        """Draw fresh initial weights: orthogonal ones."""
        for weight in self.weights:
            fresh = torch.empty(weight.shape)
            for member in fresh:
                nn.init.orthogonal_(member, generator=generator)
            weight.copy_(fresh)
        self.bias.zero_()
        self.rms.fill_(1.0)
        for norm in self.norms:
            cast(BatchNorm, norm).reset()

    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B O"]:
        """Each member's output on its own rows."""
        weights = cast(list[Tensor], [*self.weights._parameters.values()])
        act, (at_input, *norms) = ACTIVATIONS[self.activation], [*self.norms]
        x = affine(at_input(x), weights[0], None)
        inner = zip(weights[1:-1:2], weights[2:-1:2], norms[::2], norms[1::2], strict=True)
        for up, down, wide, narrow in inner:
            x = x + act(narrow(affine(act(wide(affine(x, up, None))), down, None)))
        x = self.rms * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return affine(x, weights[-1], self.bias)

    @torch.no_grad()
    def to_unit_weights(self) -> None:
        """Scale each unit's incoming weights to length 1, and those of norms to root mean square 1.

        As FlashSAC's code does after each update: a batch norm's scales and shifts together, with
        the square root of their number as length. The bias of the output layer stays as it is.
        """
        for weight in self.weights:
            unit_columns(weight)
        for norm in self.norms:
            _to_unit_mean_square(cast(BatchNorm, norm).weight, cast(BatchNorm, norm).bias)
        _to_unit_mean_square(self.rms)


def _to_unit_mean_square(*vectors: Float[Tensor, "E 1 D"]) -> None:
    """Scale vectors of D numbers together, so that their squares sum to D, in place."""
    squares = torch.cat(vectors, -1).square().sum(-1, keepdim=True)
    factor = math.sqrt(vectors[0].shape[-1]) * (squares + 1e-8).rsqrt()
    for vector in vectors:
        vector.mul_(factor)
