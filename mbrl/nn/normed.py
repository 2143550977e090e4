"""A stack of E multi-layer perceptrons that normalise the inputs of their later layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl.nn.affine import affine
from mbrl.nn.dropout import kept
from mbrl.nn.stacked import ACTIVATIONS, Scaling, Stack


class NormedMLP(Stack):
    """E multi-layer perceptrons: layer l is x -> activation(dropout(norm(x) W + b)).

    The norm is layer norm without a learned scale and shift, (x - mean) / sqrt(variance + ε) over
    the features of each row. A large ε leaves small inputs almost as they are: the norm then only
    bounds them. The last layer has no activation. It is the network of the models and critics of
    DHMBPO (Kubo et al. 2025).

    Args:
        members: E, the number of networks.
        sizes: input size, hidden sizes, output size.
        eps: ε of each layer, the input layer first; 0: its inputs are not normalised.
        dropout: share of each layer's outputs that is dropped in training mode, with masks from the
            generator of the last `resample`.
        activation: function between layers, one of `ACTIVATIONS`.
        zero_last: whether the last layer begins with weights and biases 0.
        generator: draws the weights: normal of std sqrt(2 / I) (He et al. 2015), and biases, normal
            of std 1 / (2 sqrt(I)).

    Raises:
        ValueError: a size or member count below one, numbers of `eps` or `dropout` that are not
            those of the layers or out of range, an unknown activation.
    """

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        *,
        eps: Sequence[float],
        dropout: Sequence[float],
        activation: str = "silu",
        zero_last: bool = False,
        generator: Generator,
    ) -> None:
        super().__init__()
        layers = len(sizes) - 1
        if members < 1 or layers < 1 or min(sizes) < 1:
            raise ValueError(f"members and sizes must be >= 1, got {members} and {tuple(sizes)}")
        for name, values in (("eps", eps), ("dropout", dropout)):
            if len(values) != layers:
                raise ValueError(f"{name} must be {layers} numbers, one a layer, got {len(values)}")
        if min(eps) < 0 or min(dropout) < 0 or max(dropout) >= 1:
            raise ValueError(
                f"eps must be >= 0 and dropout in [0, 1), got {tuple(eps)} and {tuple(dropout)}"
            )
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is unknown; take one of {[*ACTIVATIONS]}")
        self.sizes, self.eps, self.dropout = tuple(sizes), tuple(eps), tuple(dropout)
        self.activation, self.zero_last = activation, zero_last
        self._noise: Generator | None = None
        pairs = self._check_fit(members, sizes)
        self.weights = nn.ParameterList(torch.empty(members, i, o) for i, o in pairs)
        self.biases = nn.ParameterList(torch.empty(members, 1, o) for _, o in pairs)
        self.reset(generator=generator)

    @torch.no_grad()
    def reset(self, *, generator: Generator) -> None:
        """Draw fresh initial weights."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            size = weight.shape[1]
            weight.copy_(torch.randn(weight.shape, generator=generator) * math.sqrt(2 / size))
            bias.copy_(torch.randn(bias.shape, generator=generator) / (2 * math.sqrt(size)))
        if self.zero_last:
            self.weights[-1].zero_()
            self.biases[-1].zero_()

    def resample(self, *, generator: Generator) -> None:
        """Take later dropout masks from this generator."""
        self._noise = generator

    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B O"]:
        """Each member's output on its own rows."""
        # iterating over a ParameterList would take longer than a small matrix product
        weights, biases = (
            cast(list[Tensor], [*layers._parameters.values()])
            for layers in (self.weights, self.biases)
        )
        drop = self._drop if self.training and any(self.dropout) else None
        return normed_mlp(x, weights, biases, self.eps, self.activation, drop)

    def _drop(self, layer: int, x: Tensor) -> Tensor:
        share = self.dropout[layer]
        if not share:
            return x
        if self._noise is None:
            raise ValueError("dropout: call resample before a forward pass in training mode")
        return x * kept(x, share, generator=self._noise)

    def fold(self, members: int, scaling: Scaling) -> Callable[[Tensor], Tensor]:
        """`x -> net(x / in_std) · scale + shift` for the first `members`, without dropout.

        It costs nothing where the input layer does not normalise.
        """
        in_std, scale, shift = scaling
        weights = [weight[:members] for weight in self.weights]
        biases = [bias[:members] for bias in self.biases]
        dtype = weights[0].dtype
        if self.eps[0]:
            return super().fold(members, scaling)
        weights[0] = (weights[0].double() / in_std.unsqueeze(-1)).to(dtype)
        weights[-1] = (weights[-1].double() * scale).to(dtype)
        biases[-1] = (biases[-1].double() * scale + shift).to(dtype)
        return partial(
            normed_mlp, weights=weights, biases=biases, eps=self.eps, activation=self.activation
        )


def normed_mlp(
    x: Float[Tensor, "E B I"],
    weights: Sequence[Float[Tensor, "E I O"]],
    biases: Sequence[Float[Tensor, "E 1 O"]],
    eps: Sequence[float],
    activation: str,
    drop: Callable[[int, Tensor], Tensor] | None = None,
) -> Float[Tensor, "E B O"]:
    """The forward pass of `NormedMLP`; `drop(layer, x)` is the dropout of a layer's outputs."""
    act, last = ACTIVATIONS[activation], len(weights) - 1
    for layer, (weight, bias, own) in enumerate(zip(weights, biases, eps, strict=True)):
        if own:
            x = F.layer_norm(x, x.shape[-1:], eps=own)
        x = affine(x, weight, bias)
        if drop is not None:
            x = drop(layer, x)
        if layer < last:
            x = act(x)
    return x
