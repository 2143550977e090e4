"""Uniformly random actions, the baseline of all agents.

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
    """Uniformly random actions, which have no settings."""

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """The settings for an environment."""
        return cls()


class RandomAgent:
    """Draws every action uniformly from a bounded box or from indices.

    Raises ValueError for other spaces.
    """

    def __init__(self, space: Space, *, generator: Generator) -> None:
        import torch

        from mbrl.spaces import random_actions

        self.space, self.generator, self.config = space, generator, Config()
        random_actions(space, 1, generator=torch.Generator())  # raises for other spaces

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A), whatever the observations."""
        from mbrl.spaces import random_actions

        return random_actions(self.space, len(obs), generator=self.generator)

    def observe(self, step: Transition) -> None:
        """Does nothing, because this agent does not learn."""

    def update(self) -> Metrics:
        """Does nothing; there are no metrics."""
        return {}

    def player(self, *, generator: Generator) -> RandomAgent:
        """The same agent with another random stream."""
        return RandomAgent(self.space, generator=generator)

    def reset(self, begins: np.ndarray) -> None:
        """Does nothing, because the agent has no state but its generator."""

    def state_dict(self) -> dict[str, Any]:
        """The state of the generator."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is from a different agent.
        """
        if set(state) != {"generator"}:
            raise ValueError(f"the state of a random agent is a generator, got {', '.join(state)}")
        self.generator.set_state(state["generator"].cpu())


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> RandomAgent:
    """A random agent.

    Raises:
        ValueError: actions that are neither in a bounded box nor indices.
    """
    return RandomAgent(spec.action, generator=generator)
