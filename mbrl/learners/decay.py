"""Step sizes that change over a run."""

from __future__ import annotations

import math
from typing import Literal, Protocol


class Decaying(Protocol):
    """Settings of a step size that may change."""

    @property
    def learning_rate(self) -> float:
        """The first step size."""
        ...

    @property
    def last_learning_rate(self) -> float | None:
        """The last one; None: the first stays."""
        ...

    @property
    def decay_steps(self) -> int | None:
        """Environment steps between them; None: those of the run."""
        ...


class Decay:
    """The share of a step size that holds at an environment step.

    Args:
        config: the first and the last step size, and the steps between them.
        shape: how it goes from one to the other: along a line, or along half a period of a cosine,
            which is flat at both ends.
    """

    def __init__(self, config: Decaying, shape: Literal["linear", "cosine"] = "linear") -> None:
        last = config.last_learning_rate
        self._last = None if last is None else last / config.learning_rate
        self._given, self._run, self._shape = config.decay_steps, None, shape

    def run_for(self, steps: int) -> None:
        """Say how many environment steps the run has; they count if `decay_steps` is unset."""
        self._run = steps

    def share(self, steps: int) -> float:
        """What the first step size is multiplied by after so many environment steps.

        Raises:
            ValueError: the step size changes over a run of unknown length.
        """
        if self._last is None:
            return 1.0
        over = self._run if self._given is None else self._given
        if over is None:
            raise ValueError(
                "decay_steps: the length of the run is not known; give a number, or tell it by "
                "run_for"
            )
        done = min(1.0, steps / over)
        if self._shape == "cosine":
            done = 0.5 - 0.5 * math.cos(math.pi * done)
        return 1.0 + done * (self._last - 1.0)
