"""Uniformly random actions: the baseline everything must beat.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gymnasium.spaces import Space
    from torch import Generator

    from mbrl.types import Metrics, Spec, Transition


@dataclass(frozen=True)
class Config:
    """Uniformly random actions; nothing to set."""

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """The settings for an environment."""
        return cls()


class RandomAgent:
    """Draws every action uniformly from a bounded box or from indices."""

    def __init__(self, space: Space, *, generator: Generator) -> None:
        import torch

        from mbrl.spaces import random_actions

        self.space, self.generator, self.config = space, generator, Config()
        # a space it cannot draw from is refused now
        random_actions(space, 1, generator=torch.Generator())

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A), whatever the observations."""
        from mbrl.spaces import random_actions

        return random_actions(self.space, len(obs), generator=self.generator)

    def observe(self, step: Transition) -> None:
        """Nothing is remembered."""

    def update(self) -> Metrics:
        """Nothing is learned."""
        return {}

    def player(self, *, generator: Generator) -> RandomAgent:
        """The same with randomness of its own."""
        return RandomAgent(self.space, generator=generator)

    def reset(self, begins: np.ndarray) -> None:
        """Nothing to forget."""

    def state_dict(self) -> dict[str, Any]:
        """The generator."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: it is another agent's.
        """
        if set(state) != {"generator"}:
            raise ValueError(f"a random agent has a generator alone, got {', '.join(state)}")
        self.generator.set_state(state["generator"].cpu())


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> RandomAgent:
    """A random agent.

    Raises:
        ValueError: actions that are neither in a bounded box nor indices.
    """
    return RandomAgent(spec.action, generator=generator)
