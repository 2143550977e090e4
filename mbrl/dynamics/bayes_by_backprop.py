"""Bayes by backprop: independent Gaussian weights, fitted by the evidence lower bound.

Blundell et al. 2015, "Weight uncertainty in neural networks" (arXiv 1505.05424); training with the
local reparameterisation of Kingma et al. 2015 (arXiv 1506.02557), which draws each row's
activations instead of the weights, so the gradient has less variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl.dynamics.bayesian_configs import BayesByBackpropConfig
from mbrl.dynamics.prior import prior_stds
from mbrl.nn import ACTIVATIONS, Net, Scaling, fold_scaling, stacked_mlp


class VariationalMLP(Net):
    """E samples of the weights of one MLP, whose weights are independent Gaussians.

    Args:
        config: prior and initial std.
        sizes: input size, hidden sizes, output size.
        generator: draws the initial means.

    Attributes:
        means, raw: of each layer's weights (I, O), then of each layer's biases (1, O); the std is
            softplus(raw).
        noise: (E, P), the standard normal numbers that make the present samples.
    """

    noise: Tensor

    def __init__(
        self, config: BayesByBackpropConfig, sizes: Sequence[int], *, generator: Generator
    ) -> None:
        super().__init__()
        self.config, self.sizes = config, tuple(sizes)
        self._prior = prior_stds(sizes, config.prior_std)
        pairs = [*pairwise(sizes)]
        shapes = [*pairs, *((1, outputs) for _, outputs in pairs)]
        self.means = nn.ParameterList(torch.empty(shape) for shape in shapes)
        self.raw = nn.ParameterList(torch.empty(shape) for shape in shapes)
        count = sum(mean.numel() for mean in self.means)
        self.register_buffer("noise", torch.zeros(config.members, count))
        self._updates, self._draw = 0, generator
        self.reset(generator=generator)

    @property
    def members(self) -> int:
        """E."""
        return len(self.noise)

    @torch.no_grad()
    def reset(self, *, generator: Generator) -> None:
        """Draw fresh means, as torch's linear layers do, and set the initial stds."""
        inputs = [*self.sizes[:-1], *self.sizes[:-1]]
        for mean, raw, std, size in zip(self.means, self.raw, self._prior, inputs, strict=True):
            bound = 1 / math.sqrt(size)
            mean.copy_((2 * torch.rand(mean.shape, generator=generator) - 1) * bound)
            raw.fill_(math.log(math.expm1(self.config.first_std * std)))

    def resample(self, *, generator: Generator) -> None:
        """Draw E samples; in training, take activations from this generator."""
        self._draw = generator
        if self.training:
            self._updates += 1
        if not self.training or self.config.prior == "mixture":
            fresh = torch.randn(self.noise.shape, generator=generator, device=generator.device)
            with torch.no_grad():
                self.noise.copy_(fresh)

    def stds(self) -> list[Tensor]:
        """Std of the weights of each layer, then of the biases."""
        return [F.softplus(raw) for raw in self.raw]

    def samples(self) -> list[Float[Tensor, "E _ _"]]:
        """The E samples of the weights of each layer, then of the biases."""
        noise = self.noise.split([mean.numel() for mean in self.means], 1)
        return [
            torch.addcmul(mean, std, draw.view(-1, *mean.shape))
            for mean, std, draw in zip(self.means, self.stds(), noise, strict=True)
        ]

    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B O"]:
        """Outputs of each sample; in training, of weights drawn anew for each row."""
        layers = len(self.sizes) - 1
        if not self.training:
            drawn = self.samples()
            return stacked_mlp(x, drawn[:layers], drawn[layers:], self.config.activation)
        act, means, stds = ACTIVATIONS[self.config.activation], [*self.means], self.stds()
        for layer in range(layers):
            mean = x @ means[layer] + means[layers + layer]
            variance = x.square() @ stds[layer].square() + stds[layers + layer].square()
            own = {"generator": self._draw, "device": self._draw.device}
            noise = torch.randn(mean.shape, **own).to(mean)
            x = torch.addcmul(mean, variance.sqrt(), noise)
            if layer < layers - 1:
                x = act(x)
        return x

    def penalty(self) -> Float[Tensor, ""]:
        """The weighted divergence from the prior, in nats."""
        config = self.config
        weight = config.kl_weight
        if config.kl_warmup:
            weight *= min(1.0, self._updates / config.kl_warmup)
        return weight * (self.divergence() if config.prior == "gaussian" else self._estimate())

    def divergence(self) -> Float[Tensor, ""]:
        """KL(q ‖ p) from the Gaussian prior, in nats."""
        total = self.means[0].new_zeros(())
        for mean, std, prior in zip(self.means, self.stds(), self._prior, strict=True):
            ratio = (std.square() + mean.square()) / prior**2
            total = total + 0.5 * (ratio - 1).sum() - (std / prior).log().sum()
        return total

    def _estimate(self) -> Float[Tensor, ""]:
        """KL(q ‖ p) from the mixture, from the present samples (Blundell et al., equation 2)."""
        config, total = self.config, self.means[0].new_zeros(())
        shares = torch.tensor([config.narrow_share, 1 - config.narrow_share]).log().tolist()
        noise = self.noise.split([mean.numel() for mean in self.means], 1)
        parts = zip(self.samples(), self.stds(), noise, self._prior, strict=True)
        for drawn, std, draw, prior in parts:
            under = [
                share - 0.5 * (drawn / width).square() - math.log(width)
                for share, width in zip(shares, (prior * config.narrow_std, prior), strict=True)
            ]
            log_q = -0.5 * draw.view(drawn.shape).square() - std.log()
            total = total + (log_q - torch.logaddexp(*under)).sum()
        return total / self.members

    def fold(self, members: int, scaling: Scaling) -> Callable[[Tensor], Tensor]:
        """`x -> net(x / in_std) · scale + shift` for the first `members` samples."""
        layers, drawn = len(self.sizes) - 1, [part[:members] for part in self.samples()]
        return fold_scaling(drawn[:layers], drawn[layers:], self.config.activation, scaling)
