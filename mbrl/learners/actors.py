"""Networks of policies. Each is a `Policy` of states (*lead, S) and gives its distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from mbrl.distributions import (
    Bounds,
    Categorical,
    DiagonalGaussian,
    GeneralisedNoise,
    MultiCategorical,
    TanhGaussian,
    clamp_log_std,
    gumbel_noise,
    rescale_log_std,
)
from mbrl.nn import ACTIVATIONS, Net, StackedMLP


def normal(like: Tensor, *, generator: Generator) -> Tensor:
    """Standard normal numbers of the shape, dtype and device of `like`."""
    noise = torch.randn(like.shape, generator=generator, device=generator.device)
    return noise.to(like)


class _Actor(nn.Module):
    """One network on states with any leading dimensions."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def raw(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead K"]:
        """The network's outputs."""
        rows = state.reshape(1, -1, state.shape[-1])
        return self.net(rows).view(*state.shape[:-1], -1)


class SquashedActor(_Actor):
    """A Gaussian squashed into the box of actions by tanh, as in SAC (Haarnoja et al. 2018).

    Args:
        net: gives mean and log std, each of (A,).
        bounds: the box.
        smooth_std: whether the log std is squashed by tanh into [-10, 2] instead of clipped to
            [-20, 2].
    """

    def __init__(self, net: Net, bounds: Bounds, *, smooth_std: bool = False) -> None:
        super().__init__(net)
        self.bounds, self.smooth_std = bounds, smooth_std

    def distribution(self, state: Float[Tensor, "*lead S"]) -> TanhGaussian:
        """The distribution of actions."""
        mean, log_std = self.raw(state).chunk(2, -1)
        log_std = rescale_log_std(log_std, -10.0) if self.smooth_std else clamp_log_std(log_std)
        return TanhGaussian(mean, log_std, self.bounds)

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
        return self.draw(state, generator=generator) if explore else self.distribution(state).mode

    def draw(
        self, state: Float[Tensor, "*lead S"], *, generator: Generator
    ) -> Int[Tensor, "*lead"]:
        """A sample for each state."""
        actions = self.distribution(state)
        noise = gumbel_noise(actions.logits.shape, generator=generator)
        return actions.sample(noise.to(actions.logits))

    def emit(self, action: Int[Tensor, "*lead"]) -> Int[Tensor, "*lead"]:
        """The action itself, for an index needs no box."""
        return action


class MultiCategoricalActor(_Actor):
    """Independent choices in D dimensions, each numbered from 0."""

    def __init__(self, net: Net, sizes: Sequence[int]) -> None:
        super().__init__(net)
        self.sizes = tuple(sizes)

    def distribution(self, state: Float[Tensor, "*lead S"]) -> MultiCategorical:
        """The distribution of actions."""
        return MultiCategorical(self.raw(state), self.sizes)

    def forward(
        self, state: Float[Tensor, "*lead S"], *, generator: Generator, explore: bool
    ) -> Int[Tensor, "*lead D"]:
        """Actions: samples if `explore`, else the most probable of each dimension."""
        return self.draw(state, generator=generator) if explore else self.distribution(state).mode

    def draw(
        self, state: Float[Tensor, "*lead S"], *, generator: Generator
    ) -> Int[Tensor, "*lead D"]:
        """A sample for each state."""
        actions = self.distribution(state)
        noise = gumbel_noise(actions.logits.shape, generator=generator)
        return actions.sample(noise.to(actions.logits))

    def emit(self, action: Int[Tensor, "*lead D"]) -> Int[Tensor, "*lead D"]:
        """The action itself, for indices need no box."""
        return action


class GaussianActor(nn.Module):
    """A Gaussian over real vectors, which `emit` puts into the box of actions.

    A vector x becomes centre + half · clip(x, -1, 1), or centre + half · tanh(x) with `squash`.
    Probabilities are those of x, not of the action: their ratios and KL divergences are the same
    for tanh, and clipping, which the environment cannot tell from its own, is left out of them as
    in PPO's code.

    Args:
        net: gives the mean (A,). With `gsde`, gives features (F,) before their activation.
        bounds: the box.
        first_std: initial standard deviation; with `gsde` of each weight of the noise.
        squash: tanh instead of clipping.
        head: with `gsde`, gives the mean from the features; None without.
    """

    def __init__(
        self,
        net: StackedMLP,
        bounds: Bounds,
        *,
        first_std: float,
        squash: bool,
        head: StackedMLP | None = None,
    ) -> None:
        super().__init__()
        self.net, self.head, self.bounds, self.squash = net, head, bounds, squash
        actions = len(bounds.low)
        shape = (actions,) if head is None else (head.weights[0].shape[1], actions)
        self.log_std = nn.Parameter(torch.full(shape, math.log(first_std)))

    def distribution(self, state: Float[Tensor, "*lead S"]) -> DiagonalGaussian:
        """The distribution of x."""
        if self.head is not None:
            return self.noisy(state).gaussian()
        mean = self.net(state.reshape(1, -1, state.shape[-1])).view(*state.shape[:-1], -1)
        return DiagonalGaussian(mean, self.log_std)

    def noisy(self, state: Float[Tensor, "*lead S"]) -> GeneralisedNoise:
        """Mean and state-dependent noise; the noise's gradient does not reach the features."""
        assert self.head is not None
        out = self.net(state.reshape(1, -1, state.shape[-1]))
        features = ACTIVATIONS[self.net.activation](out)
        lead = state.shape[:-1]
        mean = self.head(features).view(*lead, -1)
        return GeneralisedNoise(mean, self.log_std, features.detach().view(*lead, -1))

    def weights(self, count: int, *, generator: Generator) -> Float[Tensor, "N F A"]:
        """Standard normal weights of state-dependent noise, for N rows."""
        noise = torch.randn((count, *self.log_std.shape), generator=generator)
        return noise.to(self.log_std)

    def forward(
        self, state: Float[Tensor, "*lead S"], *, generator: Generator, explore: bool
    ) -> Float[Tensor, "*lead A"]:
        """Actions in the box: of samples if `explore`, else of the mean."""
        if explore:
            return self.emit(self.draw(state, generator=generator))
        return self.emit(self.distribution(state).mean)

    def draw(
        self,
        state: Float[Tensor, "*lead S"],
        *,
        generator: Generator,
        weights: Float[Tensor, "*lead F A"] | None = None,
    ) -> Float[Tensor, "*lead A"]:
        """A sample of x for each state; by these weights of state-dependent noise if given."""
        if weights is None:
            gaussian = self.distribution(state)
            return gaussian.sample(normal(gaussian.mean, generator=generator))
        noisy = self.noisy(state)
        return noisy.gaussian().sample(noisy.noise(weights))

    def emit(self, action: Float[Tensor, "*lead A"]) -> Float[Tensor, "*lead A"]:
        """The action in the box."""
        inside = action.tanh() if self.squash else action.clamp(-1.0, 1.0)
        return torch.addcmul(self.bounds.centre, self.bounds.half, inside)
