"""Hindsight experience replay: steps are learned from as if another goal had been wanted.

Andrychowicz et al. 2017, arXiv 1707.01495, with the strategy "future" of section 4.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from mbrl.data.replay import Replay
from mbrl.types import Goal, Transition


class HindsightReplay(Replay):
    """A `Replay` that replaces the goal in a share k / (k + 1) of the rows that `sample` draws.

    The new goal of a step is one that this or a later step of its episode achieved, drawn uniformly
    from those seen so far. The reward, and termination where it is known as a function of goals,
    are computed anew. Stored rows keep their goals, which `rows`, `columns` and `all` return.

    Rows come from N environments, one of each at a time. An episode ends where a row says so, and
    where an environment's next row does not go on from its last one, because the episode was given
    up. A row takes 8 bytes more than in a `Replay`.

    Args:
        capacity: maximum number of transitions, at least N; the oldest are overwritten.
        obs_size: O; observations must be vectors.
        action_size: A, or the shape of an action.
        goal: where observations hold goals, and the reward of goals.
        k: number of rows with another goal for each one with its own; 0 replaces none.
        others: further arguments of `Replay`.

    Raises:
        ValueError: as `Replay`; a negative `k`; a reward that is no function of goals.
    """

    def __init__(
        self,
        capacity: int,
        obs_size: int,
        action_size: int | Sequence[int],
        *,
        goal: Goal,
        k: int = 4,
        **others: Any,
    ) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 0:
            raise ValueError(f"k: must be an integer of at least 0, got {k!r}")
        super().__init__(capacity, obs_size, action_size, **others)
        self.goal, self.k = goal, k
        # fails here and not in the middle of a training
        none = torch.zeros(2, goal.achieved.stop - goal.achieved.start)
        for function in (goal.reward, goal.terminated):
            if function is not None:
                function(none, none)
        # Rows are numbered in the order in which they are written, from 0. Row i is of environment
        # i modulo N, whose next row is i + N.
        self._last = torch.empty(capacity, dtype=torch.int64)  # of its episode; -1: still running
        self._begun = torch.empty(0, dtype=torch.int64)  # (N,) first row of the running episode
        self._led = torch.empty(0)  # (N, O) observations that the newest rows led to

    def append(self, transition: Transition, **extra: Tensor) -> None:
        """Add one step of each of N environments, (N,); N must stay the same.

        Raises:
            ValueError: as `Replay.append`; another N than before, or one above the capacity.
        """
        shape, count, first = tuple(transition.reward.shape), len(self._begun), self._written
        if len(shape) != 1 or not 1 <= shape[0] <= self.capacity or count not in (0, shape[0]):
            raise ValueError(
                f"hindsight: want a row of each of {count or 'N'} environments, and a capacity of "
                f"at least their number, got rewards of shape {shape} and capacity {self.capacity}"
            )
        ends = torch.as_tensor(transition.terminated | transition.truncated).cpu()
        rows = torch.arange(first, first + shape[0])
        super().append(transition, **extra)
        if not count:
            self._begun = rows.clone()
        elif not torch.equal(obs := torch.as_tensor(transition.obs).to(self._led), self._led):
            self._end(rows - count, (obs != self._led).any(-1).cpu())
        self._led = torch.as_tensor(transition.next_obs).to(self._rows, copy=True)
        self._last[rows % self.capacity] = -1
        self._end(rows, ends)

    def _end(self, rows: Int[Tensor, " N"], ends: Bool[Tensor, " N"]) -> None:
        """Note the last rows of the episodes that end with these rows, unless they have already."""
        count, oldest = len(rows), self._written - len(self)
        for env in ends.nonzero().flatten().tolist():
            last, first = int(rows[env]), int(self._begun[env])
            skip = max(0, -(-(oldest - first) // count))  # rows that are overwritten
            episode = torch.arange(first + skip * count, last + count, count)
            self._last[episode % self.capacity] = last
            self._begun[env] = last + count

    def _numbered(self, row: Int[Tensor, " B"]) -> dict[str, Tensor]:
        """All columns of rows by their numbers."""
        return self.columns((row - (self._written - len(self))).to(self._rows.device))

    def sample(self, batch: int, *, generator: Generator) -> Transition:
        """`batch` transitions drawn uniformly with replacement, most with another goal.

        Raises:
            ValueError: the buffer is empty.
        """
        if self.k == 0:
            return super().sample(batch, generator=generator)
        index = self.draw(batch, generator=generator)
        uniform = torch.rand((2, batch), generator=generator, device=generator.device).cpu()
        chosen = (uniform[0] * (self.k + 1) < self.k).nonzero().squeeze(-1)
        columns = self.columns(index)
        drawn = Transition(*(columns[name] for name in Transition._fields))
        row = index.cpu()[chosen] + self._written - len(self)
        goals = self._numbered(self._later(row, uniform[1, chosen]))["next_obs"]
        goals, chosen = goals[:, self.goal.achieved], chosen.to(index.device)
        achieved = drawn.next_obs[chosen][:, self.goal.achieved]
        # the columns are copies, because an index was given
        for obs in (drawn.obs, drawn.next_obs):
            obs[chosen, self.goal.desired] = goals
        drawn.reward[chosen] = self.goal.reward(achieved, goals)
        if self.goal.terminated is not None:
            drawn.terminated[chosen] = self.goal.terminated(achieved, goals)
        return drawn

    def _later(self, row: Int[Tensor, " B"], uniform: Tensor) -> Int[Tensor, " B"]:
        """A row at or after each `row` in its episode so far, by a number in [0, 1)."""
        count = len(self._begun)
        last = self._last[row % self.capacity]
        latest = self._written - count + row % count
        ahead = (torch.where(last < 0, latest, last) - row) // count
        return row + count * torch.minimum((uniform * (ahead + 1)).long(), ahead)

    def state_dict(self) -> dict[str, Any]:
        """As `Replay.state_dict`, with the ends and beginnings of episodes."""
        last = self._last[: len(self)].clone()
        return {**super().state_dict(), "last": last, "begun": self._begun.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: as `Replay.load_state_dict`; ends or beginnings of episodes that are missing
                or no numbers of rows.
        """
        rest = dict(state)
        last, begun = (torch.as_tensor(rest.pop(name, ())).cpu() for name in ("last", "begun"))
        written, count = int(rest["written"]), len(begun)
        size = min(written, self.capacity)
        good = last.shape == (size,) and begun.ndim == 1 and (count > 0) == (written > 0)
        if good and written:
            slot = torch.arange(size)
            row = slot + (written - 1 - slot) // self.capacity * self.capacity
            good = bool(((last == -1) | ((last >= row) & (last < written))).all())
            good = good and bool(((begun >= 0) & (begun < written + count)).all())
            good = good and last.dtype == begun.dtype == torch.int64 and written % count == 0
        if not good:
            raise ValueError(f"replay episodes: want the last rows of {size} rows' episodes")
        super().load_state_dict(rest)
        self._last[:size], self._begun = last, begun.clone()
        if written:
            self._led = self._numbered(torch.arange(written - count, written))["next_obs"].clone()
