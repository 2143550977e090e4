"""A Gaussian model in closed form with one unknown parameter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.types import Gaussian, Step


class Analytic:
    """A `GaussianDynamics` given by a formula with one unknown parameter.

    Member e is the formula with the parameter `values[e]`. Members have no learning error, so all
    errors of a plan come from the planning or propagation method. The reward is 0 and the model
    never terminates; pass both as functions if they are needed.

    Args:
        mean: mean next state (E, B, S), from state (E, B, S), action (E, B, A) and the
            parameter (E, 1).
        std: standard deviation of the noise on the next state, (S,).
        values: equally probable values (E,) of the parameter.
    """

    def __init__(
        self,
        mean: Callable[[Tensor, Tensor, Tensor], Tensor],
        std: Float[Tensor, " S"],
        values: Float[Tensor, " E"],
    ) -> None:
        self.mean, self.std, self.values = mean, std, values
        self.members = len(values)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(S,): one number for each dimension of the state."""
        return (len(self.std),)

    def encode(
        self, obs: Tensor, *, state: Tensor | None = None, action: Tensor | None = None
    ) -> Tensor:
        """The identity."""
        return obs

    def decode(self, state: Tensor) -> Tensor:
        """The identity."""
        return state

    def predict(self, state: Float[Tensor, "E B S"], action: Float[Tensor, "E B A"]) -> Gaussian:
        """Mean and std (E, B, S + 1) of the next state and of the reward, which is 0."""
        mean = self.mean(state, action, self.values.unsqueeze(-1))
        pad = mean.new_zeros(*mean.shape[:-1], 1)
        return Gaussian(torch.cat((mean, pad), -1), torch.cat((self.std.expand_as(mean), pad), -1))

    def step(
        self, state: Float[Tensor, "E B S"], action: Float[Tensor, "E B A"], *, noise: Tensor | None
    ) -> Step:
        """One step of each member, by standard normal `noise` (E, B, S); the mean if None."""
        after = self.mean(state, action, self.values.unsqueeze(-1))
        if noise is not None:
            after = after + self.std * noise
        zeros = after.new_zeros(after.shape[:-1])
        return Step(after, zeros, zeros.bool())
