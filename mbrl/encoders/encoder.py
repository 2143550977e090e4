"""The base class of encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float, Shaped
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Turns observations of one shape into vectors of F features.

    Attributes:
        shape: *O, of an observation.
        features: F.
    """

    def __init__(self, shape: tuple[int, ...], features: int) -> None:
        super().__init__()
        self.shape, self.features = shape, features

    @abstractmethod
    def forward(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead F"]:
        """Features of observations with any leading dimensions."""


def leading(obs: Shaped[Tensor, "*lead *O"], shape: Sequence[int]) -> tuple[int, ...]:
    """The leading dimensions of observations of this shape, *O.

    Raises:
        ValueError: observations of another shape.
    """
    count = max(0, obs.ndim - len(shape))
    if tuple(obs.shape[count:]) != tuple(shape):
        raise ValueError(
            f"observations: want shape (*lead, {', '.join(map(str, shape))}), "
            f"got {tuple(obs.shape)}"
        )
    return tuple(obs.shape[:count])
