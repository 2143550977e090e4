"""Several latent models as one, whose codes are all of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from mbrl.types import Dynamics, Step


class Joined:
    """A `Dynamics` whose state is the states of several models, one after another.

    A learned code may be the same for two observations that have nothing else in common; codes of
    several models, learned from other initial weights, are hardly ever all the same. Rewards are
    means over the models, and a step terminates if one of them says so.

    Args:
        models: of one member each, and of the same observations and actions.

    Raises:
        ValueError: no model, one of several members, or one whose noise is not a vector.
    """

    members = 1

    def __init__(self, models: Sequence[Dynamics]) -> None:
        if not models or any(model.members != 1 for model in models):
            raise ValueError("models: want one or more, of one member each")
        if any(len(model.noise_shape) != 1 for model in models):
            raise ValueError("models: want noise that is a vector")
        self.models = list(models)
        self._sizes: list[int] | None = None

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of all models together."""
        return (sum(model.noise_shape[0] for model in self.models),)

    def encode(
        self,
        obs: Shaped[Tensor, "*lead *O"],
        *,
        state: Float[Tensor, "*lead S"] | None = None,
        action: Float[Tensor, "*lead A"] | None = None,
    ) -> Float[Tensor, "*lead S"]:
        """The states of all models."""
        before = [None] * len(self.models) if state is None else self._split(state)
        parts = [
            model.encode(obs, state=own, action=action)
            for model, own in zip(self.models, before, strict=True)
        ]
        self._sizes = [part.shape[-1] for part in parts]
        return torch.cat(parts, -1)

    def decode(self, state: Tensor) -> NoReturn:
        """Raises NotImplementedError: models may decode differently."""
        raise NotImplementedError("decode: joined models have no one observation of a state")

    def step(
        self,
        state: Float[Tensor, "1 B S"],
        action: Float[Tensor, "1 B A"],
        *,
        noise: Float[Tensor, "1 B *noise_shape"] | None,
    ) -> Step:
        """A step of each.

        Raises:
            ValueError: nothing was encoded yet, so that the sizes of states are not known; a state
                of another size.
        """
        sizes = [model.noise_shape[0] for model in self.models]
        drawn = [None] * len(sizes) if noise is None else noise.split(sizes, -1)
        steps = [
            model.step(own, action, noise=part)
            for model, own, part in zip(self.models, self._split(state), drawn, strict=True)
        ]
        return Step(
            torch.cat([step.state for step in steps], -1),
            torch.stack([step.reward for step in steps]).mean(0),
            torch.stack([step.terminated for step in steps]).any(0),
        )

    def _split(self, state: Tensor) -> Sequence[Tensor]:
        if self._sizes is None or state.shape[-1] != sum(self._sizes):
            wanted = "an encoded one" if self._sizes is None else f"size {sum(self._sizes)}"
            raise ValueError(f"state: want {wanted}, got {tuple(state.shape)}")
        return state.split(self._sizes, -1)
