"""Experience: the replay buffer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from mbrl.types import Transition


class Replay:
    """A ring of transitions in one float32 block, rows (obs, action, reward, next_obs, ends).

    Rows are reserved at once and cost memory only once written; nothing is ever copied to grow.
    A row takes 4·(2O + A + 2) bytes. `terminated` and `truncated` share the last column, as its
    bits 1 and 2.

    Args:
        capacity: rows kept; the oldest are overwritten.
        obs_size: O.
        action_size: A.
        device: where the rows live.

    Raises:
        ValueError: a size below one; a transition of the wrong shape or with a number that is
            not finite.
    """

    def __init__(
        self, capacity: int, obs_size: int, action_size: int, *, device: torch.device | str = "cpu"
    ) -> None:
        if min(capacity, obs_size, action_size) < 1:
            raise ValueError(
                f"capacity, obs_size and action_size must be >= 1, "
                f"got {capacity}, {obs_size}, {action_size}"
            )
        self.capacity, self.obs_size, self.action_size = capacity, obs_size, action_size
        self._rows = torch.empty(capacity, 2 * obs_size + action_size + 2, device=device)
        self._written = 0

    def __len__(self) -> int:
        return min(self._written, self.capacity)

    def append(self, transition: Transition) -> None:
        """Add one transition (no leading dimension) or a batch (T,) in time order."""
        obs = torch.as_tensor(transition.obs)
        lead = obs.shape[:-1]
        sizes = {"obs": (self.obs_size,), "action": (self.action_size,), "reward": (),
                 "next_obs": (self.obs_size,), "terminated": (), "truncated": ()}  # fmt: skip
        columns = []
        for name, size in sizes.items():
            value = torch.as_tensor(getattr(transition, name)).to(self._rows)
            if tuple(value.shape) != (*lead, *size):
                raise ValueError(f"{name} has shape {tuple(value.shape)}, not {(*lead, *size)}")
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name} holds a number that is not finite")
            columns.append(value.reshape(-1, *(size or (1,))))
        terminated, truncated = columns.pop(-2), columns.pop()
        rows = torch.cat([*columns, terminated + 2 * truncated], -1)
        skip = max(0, len(rows) - self.capacity)
        at = (self._written + skip + torch.arange(len(rows) - skip)) % self.capacity
        self._rows[at.to(self._rows.device)] = rows[skip:]
        self._written += len(rows)

    def rows(self, index: Int[Tensor, B] | slice) -> Transition:
        """The transitions at these places, 0 the oldest kept; a view for a slice of step 1."""
        if self._written > self.capacity:
            if isinstance(index, slice):
                index = torch.arange(len(self), device=self._rows.device)[index]
            index = (index + self._written) % self.capacity
        block = self._rows[: len(self)][index]
        o, a = self.obs_size, self.action_size
        obs, action, reward, next_obs, ends = block.split([o, a, 1, o, 1], -1)
        ends = ends.squeeze(-1)
        return Transition(
            obs, action, reward.squeeze(-1), next_obs, ends.remainder(2) > 0, ends > 1
        )

    def all(self) -> Transition:
        """Everything kept, oldest first; a view unless the ring has turned over."""
        return self.rows(slice(None))

    def sample(self, batch: int, *, generator: Generator) -> Transition:
        """`batch` transitions drawn uniformly with replacement.

        Raises:
            ValueError: the buffer is empty.
        """
        if not len(self):
            raise ValueError("cannot sample from an empty replay buffer")
        index = torch.randint(len(self), (batch,), generator=generator, device=generator.device)
        return self.rows(index.to(self._rows.device))

    def episodes(self) -> Iterator[Transition]:
        """Each unbroken run of steps in time order; the last one may be unfinished."""
        ends = self._rows[: len(self), -1] > 0
        if self._written > self.capacity:
            ends = ends.roll(-(self._written % self.capacity))
        start = 0
        for end in [*(ends.nonzero().flatten() + 1).tolist(), len(self)]:
            if end > start:
                yield self.rows(slice(start, end))
            start = end

    def state_dict(self) -> dict[str, Tensor | int]:
        """The rows kept and the count of rows ever written."""
        return {"rows": self._rows[: len(self)].clone(), "written": self._written}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: rows of another width, or more of them than the capacity.
        """
        rows, written = torch.as_tensor(state["rows"]), int(state["written"])
        fits = rows.ndim == 2 and rows.shape[1] == self._rows.shape[1]
        if not fits or len(rows) != min(written, self.capacity):
            raise ValueError(
                f"replay rows of shape {tuple(rows.shape)} do not fit a buffer of "
                f"{self.capacity} x {self._rows.shape[1]}"
            )
        self._rows[: len(rows)] = rows.to(self._rows)
        self._written = written
