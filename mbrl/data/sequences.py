"""A replay buffer whose transitions are sampled in sequences of consecutive steps."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from mbrl.data.replay import Replay
from mbrl.types import Transition

TRIES = 8
"""Rounds in which starts are drawn anew, before all of them are listed."""

LOOKED = 4096
"""Starts that are looked at together, from the newest, for an episode that is long enough."""


class SequenceReplay(Replay):
    """A `Replay` of N environments side by side, sampled in sequences of L steps of one episode.

    Args:
        capacity: most transitions; what is left over after division by N is not used.
        obs_size, action_size, others: as `Replay`.
        environments: N. `append` takes one transition of each, in the same order every time.

    Raises:
        ValueError: as `Replay`; fewer transitions than environments.
    """

    def __init__(
        self,
        capacity: int,
        obs_size: Any,
        action_size: Any,
        *,
        environments: int = 1,
        **others: Any,
    ) -> None:
        if not 1 <= environments <= capacity:
            raise ValueError(
                f"environments: want 1 to {capacity} (the capacity), got {environments}"
            )
        super().__init__(capacity - capacity % environments, obs_size, action_size, **others)
        self.environments = environments

    def append(self, transition: Transition, **extra: Tensor) -> None:
        """Add one transition of each of the N environments, or T of them one after another.

        Raises:
            ValueError: as `Replay`; a number of transitions that N does not divide.
        """
        count = torch.as_tensor(transition.reward).numel()
        if count % self.environments:
            raise ValueError(
                f"want one transition of each of the {self.environments} environments, got {count}"
            )
        super().append(transition, **extra)

    def holds(self, length: int) -> bool:
        """Whether `length` consecutive steps of one episode are stored."""
        last = len(self) - (length - 1) * self.environments  # starts are below it
        return any(
            bool(self._whole(torch.arange(max(0, end - LOOKED), end), length).any())
            for end in range(last, 0, -LOOKED)
        )

    def draw_starts(self, batch: int, length: int, *, generator: Generator) -> Int[Tensor, " B"]:
        """Indices of `batch` transitions from which `length` steps of one episode are stored.

        Uniform over all such transitions, with replacement.

        Raises:
            ValueError: a length below one; no episode of so many steps.
        """
        if length < 1:
            raise ValueError(f"length: want 1 or more steps, got {length}")
        last = len(self) - (length - 1) * self.environments  # starts are below it
        if last > 0:
            found = torch.empty(0, dtype=torch.long)
            for _ in range(TRIES):
                drawn = torch.randint(last, (batch,), generator=generator, device=generator.device)
                found = torch.cat((found, drawn.cpu()[self._whole(drawn.cpu(), length)]))
                if len(found) >= batch:
                    return found[:batch].to(self._rows.device)
            starts = torch.arange(last)
            starts = starts[self._whole(starts, length)]
            if len(starts):
                drawn = torch.randint(
                    len(starts), (batch,), generator=generator, device=generator.device
                )
                return starts[drawn.cpu()].to(self._rows.device)
        raise ValueError(
            f"no episode of {length} steps, the length of a sequence, among {len(self)} transitions"
        )

    def sequences(self, batch: int, length: int, *, generator: Generator) -> Transition:
        """`batch` sequences of `length` consecutive steps of one episode each, (B, L, ...).

        Only the last step of a sequence may end an episode.

        Raises:
            ValueError: see `draw_starts`.
        """
        starts = self.draw_starts(batch, length, generator=generator)
        rows = self.rows(self._following(starts, length).flatten())
        return Transition(*(part.view(batch, length, *part.shape[1:]) for part in rows))

    def _following(self, starts: Tensor, length: int) -> Int[Tensor, "B L"]:
        steps = torch.arange(length, device=starts.device) * self.environments
        return starts.unsqueeze(-1) + steps

    def _whole(self, starts: Tensor, length: int) -> Tensor:
        """Whether no step but the last of the sequences from these starts ends an episode, (B,)."""
        if length == 1:
            return torch.ones(len(starts), dtype=torch.bool)
        at = self._following(starts, length - 1)
        if self._written > self.capacity:
            at = (at + self._written) % self.capacity
        return (self._rows[at.to(self._rows.device), -1] == 0).all(-1).cpu()
