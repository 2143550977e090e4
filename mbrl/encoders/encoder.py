"""The base class of encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod

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
