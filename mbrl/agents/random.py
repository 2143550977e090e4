"""Uniformly random actions: the baseline everything must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mbrl.types import Metrics, Transition


@dataclass(frozen=True)
class RandomConfig:
    """Uniformly random actions; nothing to set."""


class RandomAgent:
    """Draws every action uniformly from the box [low, high] (A,)."""

    def __init__(self, low: Tensor, high: Tensor, *, generator: Generator) -> None:
        self.low, self.high, self.generator = low, high, generator

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """One action (A,), whatever the observation."""
        uniform = torch.rand(self.low.shape, generator=self.generator).to(self.low)
        return (self.low + (self.high - self.low) * uniform).cpu().numpy()

    def observe(self, step: Transition) -> None:
        """Nothing to remember."""

    def update(self) -> Metrics:
        """Nothing to learn."""
        return {}

    def controller(self, *, generator: Generator) -> RandomAgent:
        """A player of evaluation episodes, with its own randomness."""
        return RandomAgent(self.low, self.high, generator=generator)

    def reset(self) -> None:
        """Nothing to forget between episodes."""

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """No weights, and the generator."""
        return {}, {"generator": self.generator.get_state()}

    def load_state_dict(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: it is another agent's.
        """
        if weights:
            raise ValueError(f"a random agent has no weights, got {len(weights)} tensors")
        self.generator.set_state(state["generator"])
