"""The Gaussian prior of the weights of Bayesian networks, and MAP estimates under it.

A weight of a layer with I inputs has std s / sqrt(I), a bias std s, so that outputs stay of one
size however wide the layers are (Neal 1996).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.nn import ACTIVATIONS, StackedMLP


def prior_stds(sizes: Sequence[int], std: float) -> list[float]:
    """Std of the weights of each layer, and then of its biases: first all weights."""
    return [std / math.sqrt(inputs) for inputs in sizes[:-1]] + [std] * (len(sizes) - 1)


class PriorMLP(StackedMLP):
    """MLPs whose penalty is minus their log prior N(centre, std²), without its constant.

    Args:
        members: E.
        sizes: input size, hidden sizes, output size.
        prior_std: of biases; that of weights is divided by the root of the layer's inputs.
        activation: function between layers.
        anchored: whether each member's centre is a sample of the prior, instead of 0 (anchored
            ensembles; Pearce et al. 2020, "Uncertainty in neural networks: approximately Bayesian
            ensembling", equation 9).
        generator: draws weights and centres.

    Attributes:
        centre: (E, P), of all weights and then all biases of a member.
    """

    centre: Tensor

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        *,
        prior_std: float,
        activation: str,
        anchored: bool = False,
        generator: Generator,
    ) -> None:
        self.anchored = anchored
        self._stds = prior_stds(sizes, prior_std)
        super().__init__(members, sizes, activation=activation, init="uniform", generator=generator)

    @torch.no_grad()
    def reset(self, *, generator: Generator) -> None:
        """Draw fresh initial weights, and centres if there are any."""
        super().reset(generator=generator)
        size = sum(part[0].numel() for part in (*self.weights, *self.biases))
        centre = torch.zeros(self.members, size if self.anchored else 0)
        if self.anchored:
            centre.normal_(generator=generator).mul_(self.stds())
        if hasattr(self, "centre"):
            self.centre.copy_(centre)
        else:
            self.register_buffer("centre", centre)

    def features(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B F"]:
        """What the last layer gets."""
        act = ACTIVATIONS[self.activation]
        for weight, bias in zip([*self.weights][:-1], [*self.biases][:-1], strict=True):
            x = act(torch.baddbmm(bias, x, weight))
        return x

    def stds(self) -> Float[Tensor, " P"]:
        """Std of the prior of each weight and bias of a member."""
        parts = (*self.weights, *self.biases)
        pairs = zip(parts, self._stds, strict=True)
        return torch.cat([part.new_full((part[0].numel(),), std) for part, std in pairs])

    def penalty(self) -> Float[Tensor, " E"]:
        """½ Σ ((w - centre) / std)² of each member, in nats."""
        total, start = self.weights[0].new_zeros(self.members), 0
        for part, std in zip((*self.weights, *self.biases), self._stds, strict=True):
            rows = part.flatten(1)
            if self.anchored:
                rows = rows - self.centre[:, start : start + rows.shape[1]]
                start += rows.shape[1]
            total = total + rows.square().sum(1) / (2 * std * std)
        return total
