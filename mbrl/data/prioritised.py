"""Prioritised replay: transitions with large errors are drawn more often (Schaul et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from mbrl.data.replay import Replay
from mbrl.types import Transition
from planners.compile import compiled


class PrioritisedReplay(Replay):
    """A `Replay` whose rows are drawn in proportion to priority^α.

    `draw` and `sample` have the same arguments and results as those of `Replay`. New rows have the
    greatest priority given so far, so that each is likely to be drawn soon. The priorities are in a
    sum tree on the CPU, in float64: drawing B rows, or changing their priorities, takes
    B · log2(capacity) steps.

    Args:
        capacity: maximum number of transitions; the oldest are overwritten.
        obs_size: O, or the shape of an observation.
        action_size: A, or the shape of an action.
        alpha: α; 0 draws uniformly.
        floor: added to each priority, so that rows without error are drawn again.
        others: further arguments of `Replay`.

    Raises:
        ValueError: as `Replay`; an `alpha` that is negative, or a `floor` that is not above 0.
    """

    def __init__(
        self,
        capacity: int,
        obs_size: int | Sequence[int],
        action_size: int | Sequence[int],
        *,
        alpha: float = 0.6,
        floor: float = 1e-6,
        **others: Any,
    ) -> None:
        if not 0 <= alpha < math.inf or not 0 < floor < math.inf:
            raise ValueError(
                f"alpha and floor: want finite numbers, alpha >= 0 and floor > 0, "
                f"got {alpha} and {floor}"
            )
        super().__init__(capacity, obs_size, action_size, **others)
        self.alpha, self.floor = alpha, floor
        self._leaves = 1 << (capacity - 1).bit_length()
        # node 1 is the root, node i has the children 2i and 2i + 1, leaf k is node _leaves + k
        self._tree = np.zeros(2 * self._leaves)
        self._most = 1.0  # of priority^α

    def append(self, transition: Transition, **extra: Tensor) -> None:
        """As `Replay.append`; the new rows have the greatest priority so far."""
        before = self._written
        super().append(transition, **extra)
        fresh = min(self._written - before, self.capacity)
        at = np.arange(self._written - fresh, self._written) % self.capacity
        _set(self._tree, at, np.full(fresh, self._most))

    def draw(self, batch: int, *, generator: Generator) -> Int[Tensor, " B"]:
        """The indices of `batch` transitions, drawn in proportion to priority^α.

        The sum of all priorities is split into `batch` equal parts, with one draw from each, as in
        the paper: this has less variance than independent draws, and the same expected counts.

        Raises:
            ValueError: the buffer is empty.
        """
        if not len(self):
            raise ValueError("cannot sample from an empty replay buffer")
        uniform = torch.rand(
            batch, generator=generator, device=generator.device, dtype=torch.float64
        )
        index = _find(self._tree, uniform.numpy(force=True), len(self))
        if self._written > self.capacity:
            index = (index - self._written) % self.capacity
        return torch.from_numpy(index).to(self._rows.device)

    def weights(self, index: Int[Tensor, " B"], *, beta: float) -> Float[Tensor, " B"]:
        """Importance weights (T p)^-β of drawn rows, divided by the greatest of them.

        With β = 1 they undo the bias of drawing by priority; p is the probability of a row, T the
        number of rows.

        Args:
            index: of `draw`.
            beta: β, in [0, 1]; the paper raises it to 1 over a training.

        Raises:
            ValueError: `beta` outside its range.
        """
        if not 0 <= beta <= 1:
            raise ValueError(f"beta: must be in [0, 1], got {beta!r}")
        priority = self._tree[self._leaves + self._at(index)]
        weights = (priority.min() / priority) ** beta  # the sum and T cancel
        return torch.from_numpy(weights.astype(np.float32)).to(self._rows.device)

    def prioritise(self, index: Int[Tensor, " B"], error: Float[Tensor, " B"]) -> None:
        """Give rows new priorities, (|error| + floor)^α; of equal indices the last one counts.

        Args:
            index: of `draw`, since when nothing was appended: indices count from the oldest row.
            error: TD errors, or other measures of what there is to learn from each row.

        Raises:
            ValueError: errors of another shape than `index`, or not finite.
        """
        if error.shape != index.shape:
            raise ValueError(
                f"error: want the shape {tuple(index.shape)} of index, got {tuple(error.shape)}"
            )
        values = (np.abs(error.detach().double().numpy(force=True)) + self.floor) ** self.alpha
        if not np.isfinite(values).all():
            raise ValueError("error: holds a number that is not finite")
        _set(self._tree, self._at(index), values)
        self._most = max(self._most, float(values.max(initial=0)))

    def probabilities(self) -> Float[Tensor, " T"]:
        """The probability with which each row is drawn, 0 being the oldest."""
        kept = self._tree[self._leaves + self._at(torch.arange(len(self)))]
        return torch.from_numpy(kept / kept.sum())

    def _at(self, index: Tensor) -> np.ndarray:
        """Where the rows are stored."""
        at = index.numpy(force=True)
        return (at + self._written) % self.capacity if self._written > self.capacity else at

    def state_dict(self) -> dict[str, Any]:
        """As `Replay.state_dict`, with priority^α of the rows and the greatest so far."""
        kept = self._tree[self._leaves : self._leaves + len(self)]
        priority = torch.from_numpy(kept.copy())
        return {**super().state_dict(), "priority": priority, "most": self._most}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: as `Replay.load_state_dict`; priorities that are missing or not above 0.
        """
        rest = dict(state)
        priority, most = torch.as_tensor(rest.pop("priority", ())), rest.pop("most", math.nan)
        rows = len(torch.as_tensor(rest.get("rows", ())))
        if priority.shape != (rows,) or not bool((priority > 0).all() & priority.isfinite().all()):
            raise ValueError(f"replay priorities: want {rows} finite numbers above 0")
        if not 0 < most < math.inf:
            raise ValueError(f"replay priorities: the greatest must be above 0, got {most}")
        super().load_state_dict(rest)
        self._tree[:] = 0
        _set(self._tree, np.arange(rows), priority.double().numpy(force=True))
        self._most = float(most)


@compiled
def _set(tree, at, values):
    """Set leaves, and each sum above them from its two children, so that no error builds up."""
    leaves = len(tree) // 2
    for i in range(len(at)):
        node = leaves + at[i]
        tree[node] = values[i]
        node //= 2
        while node >= 1:
            tree[node] = tree[2 * node] + tree[2 * node + 1]
            node //= 2


@compiled
def _find(tree, uniform, rows):
    """The leaf at the share (i + uniform_i) / B of the total sum, for each i."""
    leaves, batch = len(tree) // 2, len(uniform)
    found = np.empty(batch, np.int64)
    for i in range(batch):
        rest, node = (i + uniform[i]) / batch * tree[1], 1
        while node < leaves:
            node *= 2
            if rest >= tree[node] and tree[node + 1] > 0:  # rounding must not lead to empty leaves
                rest -= tree[node]
                node += 1
        found[i] = min(node - leaves, rows - 1)
    return found
