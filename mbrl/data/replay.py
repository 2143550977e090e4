"""The replay buffer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from mbrl.data.frames import Planes, channels_first, plane_size, planes_of
from mbrl.types import Transition
from planners.checks import check_memory

_IMAGES = ("obs", "next_obs")


class Replay:
    """A ring buffer of transitions and, optionally, of further columns with names.

    All float32 columns are stored in one tensor whose rows are (obs, action, reward, next_obs,
    further columns, ends), so that one operation gathers a batch; columns of other types, such as
    uint8 images or integer actions, are stored separately. The last column, ends, is
    terminated + 2 truncated. Memory for all rows is reserved at the start, but the operating system
    uses it only once rows are written. A row of vectors takes 4·(2O + A + 2) bytes.

    Args:
        capacity: maximum number of transitions; the oldest are overwritten.
        obs_size: O, or the shape of an observation.
        action_size: A, or the shape of an action.
        obs_dtype: type of observations.
        action_dtype: type of actions.
        extra: shapes of further float32 columns, by name.
        distinct: whether observations are images of uint8, of which each distinct channel is stored
            once, and a row has their numbers (`mbrl.data.frames`). Stacks of frames then take
            little more than their frames; memory for these is reserved as they come.
        device: where the rows are stored.

    Raises:
        ValueError: a size below one, an extra column with the name of another one, `distinct` with
            observations that are no images of uint8.
    """

    def __init__(
        self,
        capacity: int,
        obs_size: int | Sequence[int],
        action_size: int | Sequence[int],
        *,
        obs_dtype: torch.dtype = torch.float32,
        action_dtype: torch.dtype = torch.float32,
        extra: Mapping[str, Sequence[int]] | None = None,
        distinct: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        obs, action = _shape(obs_size), _shape(action_size)
        further = {name: tuple(shape) for name, shape in (extra or {}).items()}
        if min(capacity, *obs, *action, *(n for shape in further.values() for n in shape)) < 1:
            raise ValueError(
                f"capacity, obs_size, action_size and extra must be >= 1, "
                f"got {capacity}, {obs_size}, {action_size}, {further}"
            )
        if further.keys() & set(Transition._fields):
            raise ValueError(
                f"extra columns {[*further]} must not have one of the names {Transition._fields}"
            )
        self._extra = further.keys()
        self.capacity, self.obs_size, self.action_size = capacity, obs_size, action_size
        self._shapes: dict[str, tuple[int, ...]] = {
            "obs": obs, "action": action, "reward": (), "next_obs": obs, **further
        }  # fmt: skip
        kinds = {"obs": obs_dtype, "action": action_dtype, "next_obs": obs_dtype}
        kept = dict(self._shapes)
        self._planes: Planes | None = None
        what = f"capacity {capacity}: the replay buffer"
        if distinct:
            if len(obs) != 3 or obs_dtype != torch.uint8:
                raise ValueError(f"distinct: want images of uint8, got {obs_dtype} of shape {obs}")
            channels, size = plane_size(obs)
            self._planes = Planes(size, what=what, device=device)
            for name in _IMAGES:
                kinds[name], kept[name] = torch.int32, (channels,)
        row = 4 + sum(
            math.prod(shape) * kinds.get(name, torch.float32).itemsize
            for name, shape in kept.items()
        )
        check_memory(what, capacity * row, device=device)
        self._separate = {
            name: torch.empty(capacity, *kept[name], dtype=kind, device=device)
            for name, kind in kinds.items()
            if kind != torch.float32
        }
        if distinct:
            for name in _IMAGES:
                self._separate[name].fill_(-1)  # no plane's number
        self._check_each = any(kept.is_floating_point() for kept in self._separate.values())
        self._joined = [name for name in self._shapes if name not in self._separate]
        self._folded = [name for name in self._joined if len(self._shapes[name]) != 1]
        self._widths = [*(math.prod(self._shapes[name]) for name in self._joined), 1]
        self._rows = torch.empty(capacity, sum(self._widths), device=device)
        self._wanted = [*self._shapes.items(), ("terminated", ()), ("truncated", ())]
        self._written = 0

    def __len__(self) -> int:
        return min(self._written, self.capacity)

    @property
    def written(self) -> int:
        """How many transitions were ever added, those that are overwritten included."""
        return self._written

    def append(self, transition: Transition, **extra: Tensor) -> None:
        """Add one transition (no leading dimension) or a batch (T,) in time order.

        Every further column must be given too, by name.

        Raises:
            ValueError: a missing or unknown column, another shape, a number that is not finite.
        """
        if extra.keys() != self._extra:
            raise ValueError(f"the further columns are {[*self._extra]}, got {[*extra]}")
        values = {**transition._asdict(), **extra}
        shape_of = np.shape(transition.obs)
        lead = tuple(shape_of[: max(0, len(shape_of) - len(self._shapes["obs"]))])
        for name, shape in self._wanted:
            found = values[name]
            if not isinstance(found, Tensor):
                found = values[name] = torch.as_tensor(found)
            if found.shape != lead + shape:
                raise ValueError(f"{name} has shape {tuple(found.shape)}, not {(*lead, *shape)}")
        if self._planes is not None:
            for name in _IMAGES:
                if values[name].dtype != torch.uint8:
                    raise ValueError(f"{name}: want images of uint8, got {values[name].dtype}")
        count = math.prod(lead)
        rows = self._block(values, count)
        # a finite sum has only finite terms
        if self._check_each or not math.isfinite(rows.sum()):
            for name, value in values.items():
                kind = self._separate.get(name, self._rows).dtype
                if value.is_floating_point() and not bool(value.to(kind).isfinite().all()):
                    raise ValueError(f"{name} holds a number that is not finite")
        skip = max(0, count - self.capacity)
        first = (self._written + skip) % self.capacity
        at: Any = slice(first, first + count - skip)
        if first + count - skip > self.capacity:
            at = (first + torch.arange(count - skip)) % self.capacity
            at = at.to(self._rows.device)
        _write(self._rows, at, rows[skip:])
        for name, kept in self._separate.items():
            fresh = values[name].reshape(count, *self._shapes[name])[skip:]
            if self._planes is not None and name in _IMAGES:
                fresh = self._numbers(self._planes, fresh, dropped=kept[at])
            _write(kept, at, fresh)
        self._written += count

    def _numbers(
        self, planes: Planes, images: Tensor, *, dropped: Int[Tensor, "B C"]
    ) -> Int[Tensor, "B C"]:
        """The numbers of the channels of images, which take the place of other ones."""
        filled = min(1.0, (self._written + len(images)) / self.capacity)
        found = planes.add(planes_of(images).reshape(-1, *planes.size), filled=filled)
        planes.release(as_array(dropped).reshape(-1))
        return torch.from_numpy(found).view(dropped.shape)

    def _images(self, planes: Planes, numbers: Int[Tensor, "B C"]) -> Tensor:
        """The images (B, *O) whose channels have these numbers."""
        found = planes.take(numbers)
        first = channels_first(self._shapes["obs"])
        return found if first else torch.stack(found.unbind(1), -1)

    def _block(self, values: Mapping[str, Tensor], count: int) -> Any:
        """The float32 columns as rows (count, W), with that of ends; an array on the CPU."""
        parts = [values[name] for name in self._joined]
        terminated, truncated = values["terminated"], values["truncated"]
        if not self._rows.is_cpu:
            ends = (terminated + 2 * truncated).reshape(count, 1)
            columns = [part.reshape(count, -1).to(self._rows) for part in parts]
            return torch.cat([*columns, ends.to(self._rows)], -1)
        # numpy, because a few rows take a fifth of the time that torch takes
        block, end = np.empty((count, self._rows.shape[1]), np.float32), 0
        with np.errstate(over="ignore"):  # what is too large for float32 is refused later
            for part, width in zip(parts, self._widths, strict=False):
                start, end = end, end + width
                block[:, start:end] = as_array(part).reshape(count, width)
        block[:, end] = (as_array(terminated) + 2 * as_array(truncated)).reshape(count)
        return block

    def give_up(self, places: Bool[Tensor, " N"]) -> None:
        """Truncate the episodes of these of N environments, whose transitions are the newest N."""
        if not self._written:
            return
        at = self._written - len(places) + places.nonzero().squeeze(-1)
        at = (at % self.capacity).to(self._rows.device)
        ends = self._rows[at, -1]
        self._rows[at, -1] = torch.where(ends > 0, ends, 2.0)

    def rows(self, index: Int[Tensor, " B"] | slice) -> Transition:
        """The transitions at these indices, 0 being the oldest; a view for a slice of step 1."""
        columns = self.columns(index)
        return Transition(*(columns[name] for name in Transition._fields))

    def columns(self, index: Int[Tensor, " B"] | slice) -> dict[str, Tensor]:
        """All columns at these indices by name, including the further ones; see `rows`."""
        if self._written > self.capacity:
            if isinstance(index, slice):
                index = torch.arange(len(self), device=self._rows.device)[index]
            index = (index + self._written) % self.capacity
        return self._named(lambda kept: kept[: len(self)][index])

    def _named(self, take: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """All columns by name, each taken from its storage by `take`."""
        *parts, ends = take(self._rows).split(self._widths, -1)
        columns = dict(zip(self._joined, parts, strict=True))
        for name in self._folded:  # the block has one dimension for a column, whatever its shape
            columns[name] = columns[name].view(-1, *self._shapes[name])
        for name, kept in self._separate.items():
            found = take(kept)
            shared = self._planes if name in _IMAGES else None
            columns[name] = found if shared is None else self._images(shared, found)
        ends = ends.squeeze(-1)
        columns["terminated"], columns["truncated"] = (ends.byte() & 1).bool(), ends > 1
        return columns

    def all(self) -> Transition:
        """All transitions, oldest first; a view of the buffer until the first is overwritten."""
        return self.rows(slice(None))

    def draw(self, batch: int, *, generator: Generator) -> Int[Tensor, " B"]:
        """The indices of `batch` transitions, drawn uniformly with replacement.

        Raises:
            ValueError: the buffer is empty.
        """
        if not len(self):
            raise ValueError("cannot sample from an empty replay buffer")
        index = torch.randint(len(self), (batch,), generator=generator, device=generator.device)
        return index.to(self._rows.device)

    def sample(self, batch: int, *, generator: Generator) -> Transition:
        """`batch` transitions drawn uniformly with replacement.

        Raises:
            ValueError: the buffer is empty.
        """
        index = self.draw(batch, generator=generator)
        if self._written > self.capacity:
            index = (index + self._written) % self.capacity
        columns = self._named(lambda kept: kept.index_select(0, index))
        return Transition(*(columns[name] for name in Transition._fields))

    def state_dict(self) -> dict[str, Tensor | int]:
        """The rows, the columns stored separately, and the number of rows ever written."""
        separate = {name: kept[: len(self)].clone() for name, kept in self._separate.items()}
        if self._planes is not None:
            both = torch.stack([separate[name] for name in _IMAGES], 1)
            separate["planes"], both = self._planes.compact(as_array(both))
            separate |= zip(_IMAGES, both.unbind(1), strict=True)
        return {"rows": self._rows[: len(self)].clone(), "written": self._written, **separate}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: rows of another width, or more of them than the capacity; separate columns
                of another shape or type.
        """
        rows, written = torch.as_tensor(state["rows"]), int(state["written"])
        fits = rows.ndim == 2 and rows.shape[1] == self._rows.shape[1]
        if not fits or len(rows) != min(written, self.capacity):
            raise ValueError(
                f"replay rows of shape {tuple(rows.shape)} do not fit a buffer of "
                f"{self.capacity} x {self._rows.shape[1]}"
            )
        names = [*self._separate] + ([] if self._planes is None else ["planes"])
        if {*state} != {"rows", "written", *names}:
            raise ValueError(f"replay columns {[*state]} are not rows, written, {names}")
        separate = {name: torch.as_tensor(state[name]) for name in self._separate}
        for name, kept in self._separate.items():
            found = separate[name]
            if found.shape != (len(rows), *kept.shape[1:]) or found.dtype != kept.dtype:
                raise ValueError(
                    f"replay column {name} of shape {tuple(found.shape)} and {found.dtype} does "
                    f"not fit one of {tuple(kept.shape)} and {kept.dtype}"
                )
        if self._planes is not None:
            both = torch.stack([separate[name] for name in _IMAGES], 1)
            _restore(self._planes, torch.as_tensor(state["planes"]), as_array(both))
            for name in _IMAGES:
                self._separate[name].fill_(-1)
        self._rows[: len(rows)] = rows.to(self._rows)
        for name, kept in self._separate.items():
            kept[: len(rows)] = separate[name].to(kept.device)
        self._written = written


def _restore(planes: Planes, found: Tensor, numbers: np.ndarray) -> None:
    """Have these planes, which rows name by number."""
    if found.shape[1:] != planes.size or found.dtype != torch.uint8:
        raise ValueError(
            f"replay planes of shape {tuple(found.shape)} and {found.dtype} do not fit ones of "
            f"{planes.size} and torch.uint8"
        )
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(found):
        raise ValueError(f"replay planes: there are {len(found)}, and rows name others")
    planes.restore(found, numbers)


def as_array(tensor: Tensor) -> np.ndarray:
    """A tensor as an array, of the same memory where it is on the CPU."""
    # forcing it takes longer than copying a row
    forced = tensor.requires_grad or not tensor.is_cpu
    return tensor.numpy(force=True) if forced else tensor.numpy()


def _write(kept: Tensor, at: Any, rows: np.ndarray | Tensor) -> None:
    """`kept[at] = rows`, on the CPU by numpy, because it takes a fifth of the time for few rows."""
    if not kept.is_cpu:
        kept[at] = torch.as_tensor(rows).to(kept)
    elif isinstance(rows, np.ndarray):
        kept.numpy()[at] = rows
    elif rows.dtype == kept.dtype != torch.bfloat16:  # numpy has no bfloat16
        kept.numpy()[at] = as_array(rows)
    else:
        kept[at] = rows.to(kept)


def _shape(size: int | Sequence[int]) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)
