"""Systems in closed form, known but for one number: what an ensemble would be, were it exact."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.types import Gaussian, Step


class Toy:
    """A `GaussianDynamics` whose member e takes the unknown number to be `values[e]`.

    Args:
        mean: next state (E, B, S) from state, action and the unknown number (E, 1).
        std: of the noise on the next state, (S,).
        values: (E,), equally probable.
    """

    def __init__(
        self,
        mean: Callable[[Tensor, Tensor, Tensor], Tensor],
        std: Float[Tensor, S],
        values: Float[Tensor, E],
    ) -> None:
        self.mean, self.std, self.values = mean, std, values
        self.members = len(values)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """One number a dimension of the state."""
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
        """Mean and std of the next state and of a reward of 0 that nobody learned."""
        mean = self.mean(state, action, self.values.unsqueeze(-1))
        pad = mean.new_zeros(*mean.shape[:-1], 1)
        return Gaussian(torch.cat((mean, pad), -1), torch.cat((self.std.expand_as(mean), pad), -1))

    def step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        *,
        noise: Float[Tensor, "E B S"] | None,
    ) -> Step:
        """One step of each member."""
        state = self.mean(state, action, self.values.unsqueeze(-1))
        if noise is not None:
            state = state + self.std * noise
        zeros = state.new_zeros(state.shape[:-1])
        return Step(state, zeros, zeros.bool())
