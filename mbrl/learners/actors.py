"""Networks of policies. Each is a `Policy` of states (*lead, S) and gives its distribution."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from mbrl.distributions import (
    Bounds,
    Categorical,
    TanhGaussian,
    clamp_log_std,
    gumbel_noise,
)
from mbrl.nn import StackedMLP


def normal(like: Tensor, *, generator: Generator) -> Tensor:
    """Standard normal numbers of the shape, dtype and device of `like`."""
    noise = torch.randn(like.shape, generator=generator, device=generator.device)
    return noise.to(like)


class _Actor(nn.Module):
    """One network on states with any leading dimensions."""

    def __init__(self, net: StackedMLP) -> None:
        super().__init__()
        self.net = net

    def raw(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead K"]:
        """The network's outputs."""
        rows = state.reshape(1, -1, state.shape[-1])
        return self.net(rows).view(*state.shape[:-1], -1)


class SquashedActor(_Actor):
    """A Gaussian squashed into the box of actions by tanh, as in SAC (Haarnoja et al. 2018)."""

    def __init__(self, net: StackedMLP, bounds: Bounds) -> None:
        super().__init__(net)
        self.bounds = bounds

    def distribution(self, state: Float[Tensor, "*lead S"]) -> TanhGaussian:
        """The distribution of actions."""
        mean, log_std = self.raw(state).chunk(2, -1)
        return TanhGaussian(mean, clamp_log_std(log_std), self.bounds)

    def forward(
        self, state: Float[Tensor, "*lead S"], *, generator: Generator, explore: bool
    ) -> Float[Tensor, "*lead A"]:
        """Actions: samples if `explore`, else the median."""
        actions = self.distribution(state)
        if not explore:
            return actions.mode
        return actions.sample(normal(actions.mean, generator=generator))


class CategoricalActor(_Actor):
    """A choice among K actions, numbered from 0."""

    def distribution(self, state: Float[Tensor, "*lead S"]) -> Categorical:
        """The distribution of actions."""
        return Categorical(self.raw(state))

    def forward(
        self, state: Float[Tensor, "*lead S"], *, generator: Generator, explore: bool
    ) -> Int[Tensor, "*lead"]:
        """Actions: samples if `explore`, else the most probable."""
        actions = self.distribution(state)
        if not explore:
            return actions.mode
        noise = gumbel_noise(actions.logits.shape, generator=generator)
        return actions.sample(noise.to(actions.logits))
