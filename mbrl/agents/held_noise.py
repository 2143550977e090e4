"""Exploration noise that stays the same for several steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator


class HeldNoise:
    """Random streams that repeat their numbers for several steps, for a policy that explores.

    A policy that takes its noise from such a stream has the same noise in each of these steps, as
    FlashSAC (2026, arXiv 2604.04539) does: actions that go on in one direction reach further than
    those that change at once. Each time of n steps has a probability proportional to 1/n², for n up
    to `most`: Zeta's law of exponent 2, cut off and scaled to a sum of 1. The time is one for all
    environments that are stepped side by side, as in FlashSAC's code, and goes on from one episode
    to the next.

    Args:
        most: the longest time, in steps.
    """

    def __init__(self, most: int) -> None:
        chances = torch.arange(1, most + 1, dtype=torch.float64) ** -2
        self._up_to = (chances / chances.sum()).cumsum(0)[:-1]
        self._stream, self._seed, self._left = torch.Generator(), 0, 0

    def next(self, generator: Generator) -> Generator:
        """The stream for one step; it begins like that of the last step while the time lasts.

        Args:
            generator: draws the times, and where streams begin; on the CPU.
        """
        if self._left == 0:
            uniform = torch.rand((), generator=generator, dtype=torch.float64)
            self._left = 1 + int(torch.searchsorted(self._up_to, uniform, right=True))
            self._seed = int(torch.randint(2**62, (), generator=generator))
        self._left -= 1
        return self._stream.manual_seed(self._seed)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream begins, and for how many steps more."""
        return {"seed": self._seed, "left": self._left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: a number of steps or a seed below 0.
        """
        if min(state["seed"], state["left"]) < 0:
            raise ValueError("held: seed and left must be >= 0")
        self._seed, self._left = state["seed"], state["left"]
