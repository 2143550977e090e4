"""MC dropout: a sample of the weights is an MLP with some of its units dropped.

Gal and Ghahramani 2016, "Dropout as a Bayesian approximation" (arXiv 1506.02142). The shares of
dropped units can be learned: concrete dropout (Gal et al. 2017, arXiv 1705.07832).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl.dynamics.bayesian_configs import DropoutConfig
from mbrl.dynamics.prior import prior_stds
from mbrl.nn import ACTIVATIONS, Net, Scaling, fold_scaling, stacked_mlp


class DropoutMLP(Net):
    """E masks over the units of one MLP. They stay until the next `resample`, for all rows.

    A unit that is kept counts 1 / (1 - p) times, so that its mean is that of the whole network. In
    training every row has masks of its own; with `concrete` they are relaxed, so that p has a
    gradient.

    Args:
        config: shares and prior.
        sizes: input size, hidden sizes, output size.
        generator: draws the initial weights.

    Attributes:
        weights: (I, O) of each layer.
        biases: (1, O) of each layer.
        logits: (D,), log(p / (1 - p)) of the share p of dropped inputs, of each layer that drops
            any. A parameter with `concrete`.
        uniform: (E, U), the numbers in [0, 1) that make the present masks.
    """

    logits: Tensor
    uniform: Tensor

    def __init__(
        self, config: DropoutConfig, sizes: Sequence[int], *, generator: Generator
    ) -> None:
        super().__init__()
        self.config, self.sizes = config, tuple(sizes)
        self._prior = prior_stds(sizes, config.prior_std)
        pairs = [*pairwise(sizes)]
        self.weights = nn.ParameterList(torch.empty(pair) for pair in pairs)
        self.biases = nn.ParameterList(torch.empty(1, outputs) for _, outputs in pairs)
        self._drops = [config.input_dropout > 0, *[True] * (len(pairs) - 1)]
        shares = [config.input_dropout, *[config.dropout] * (len(pairs) - 1)]
        dropped = [share for share, drops in zip(shares, self._drops, strict=True) if drops]
        self._first = torch.tensor(dropped).logit()
        if config.concrete:
            self.logits = nn.Parameter(self._first.clone())
        else:
            self.register_buffer("logits", self._first.clone())
        units = sum(inputs for inputs, _ in pairs)
        self.register_buffer("uniform", torch.ones(config.members, units))
        self._draw = generator
        self.reset(generator=generator)

    @property
    def members(self) -> int:
        """E."""
        return len(self.uniform)

    @torch.no_grad()
    def reset(self, *, generator: Generator) -> None:
        """Draw fresh initial weights, as torch's linear layers do, and set the initial shares."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1 / math.sqrt(len(weight))
            for part in (weight, bias):
                part.copy_((2 * torch.rand(part.shape, generator=generator) - 1) * bound)
        self.logits.copy_(self._first)

    def resample(self, *, generator: Generator) -> None:
        """Draw E masks; in training, take those of the rows from this generator."""
        self._draw = generator
        if not self.training:
            with torch.no_grad():
                fresh = torch.rand(self.uniform.shape, generator=generator, device=generator.device)
                self.uniform.copy_(fresh)

    def shares(self) -> list[Tensor | None]:
        """The share of dropped inputs of each layer, None where all are kept."""
        shares = iter(self.logits.sigmoid())
        return [next(shares) if drops else None for drops in self._drops]

    def samples(self) -> list[Float[Tensor, "E I O"]]:
        """The weights of each layer with the units that the masks leave."""
        parts = self.uniform.split(self.sizes[:-1], 1)
        found = []
        for weight, uniform, share in zip(self.weights, parts, self.shares(), strict=True):
            kept = torch.ones_like(uniform)
            if share is not None:
                kept = (uniform >= share) / (1 - share)
            found.append(kept.unsqueeze(-1) * weight)
        return found

    def _biases(self) -> list[Float[Tensor, "E 1 O"]]:
        return [bias.expand(self.members, 1, -1) for bias in self.biases]

    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B O"]:
        """Outputs under each mask; in training, under masks drawn anew for each row."""
        if not self.training:
            return stacked_mlp(x, self.samples(), self._biases(), self.config.activation)
        act, layers = ACTIVATIONS[self.config.activation], len(self.weights)
        parts = zip(self.weights, self.biases, self.shares(), strict=True)
        for layer, (weight, bias, share) in enumerate(parts, 1):
            if share is not None:
                x = x * self._kept(x, share)
            x = x @ weight + bias
            if layer < layers:
                x = act(x)
        return x

    def _kept(self, x: Tensor, share: Tensor) -> Tensor:
        """Factors of the inputs of a layer, of mean 1."""
        own = {"generator": self._draw, "device": self._draw.device}
        uniform = torch.rand(x.shape, **own).to(x)
        if not self.config.concrete:
            return (uniform >= share) / (1 - share)
        noise = uniform.clamp(1e-7, 1 - 1e-7).logit()
        dropped = torch.sigmoid((share.logit() + noise) / self.config.temperature)
        return (1 - dropped) / (1 - share)

    def penalty(self) -> Float[Tensor, ""]:
        """The divergence from the prior, up to a constant (Gal et al. 2017, equation 3)."""
        total, layers = self.weights[0].new_zeros(()), len(self.weights)
        parts = zip(self.weights, self.biases, self.shares(), strict=True)
        for layer, (weight, bias, share) in enumerate(parts):
            kept = 1.0 if share is None else 1 - share
            weights = weight.square().sum() / (2 * self._prior[layer] ** 2)
            biases = bias.square().sum() / (2 * self._prior[layers + layer] ** 2)
            total = total + weights / kept + biases
            if share is not None and self.config.concrete:
                entropy = -torch.xlogy(share, share) - torch.xlogy(1 - share, 1 - share)
                total = total - len(weight) * entropy
        return total

    def fold(self, members: int, scaling: Scaling) -> Callable[[Tensor], Tensor]:
        """`x -> net(x / in_std) · scale + shift` for the first `members` masks."""
        weights, biases = (
            [part[:members] for part in own] for own in (self.samples(), self._biases())
        )
        return fold_scaling(weights, biases, self.config.activation, scaling)
