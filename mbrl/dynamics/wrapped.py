"""What models that change another model have in common."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from mbrl.types import Dynamics, Postprocessed


class Wrapped:
    """What a model that changes another one keeps of it.

    Args:
        model: the other model. What it has of DistinctWorlds, OwnThreads, Resampled and Scaled of
            `mbrl.types`, this one has too.

    Raises:
        ValueError: a model that is Postprocessed, whose correction this one would not make.
    """

    def __init__(self, model: Dynamics) -> None:
        if isinstance(model, Postprocessed):
            raise ValueError(
                f"model: a {type(model).__name__} corrects the particles of a plan, which a model "
                f"around it would not; change the model that it wraps"
            )
        self.model: Any = model
        for name in ("nominal", "own_threads", "resample", "scale"):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))

    @property
    def members(self) -> int:
        """E of the model."""
        return self.model.members

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """That of the model."""
        return self.model.noise_shape

    def encode(
        self,
        obs: Float[Tensor, "*lead O"],
        *,
        state: Float[Tensor, "*lead S"] | None = None,
        action: Float[Tensor, "*lead A"] | None = None,
    ) -> Float[Tensor, "*lead S"]:
        """That of the model."""
        return self.model.encode(obs, state=state, action=action)

    def decode(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead O"]:
        """That of the model."""
        return self.model.decode(state)
