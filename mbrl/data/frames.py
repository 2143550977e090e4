"""Images of which each distinct channel is stored once.

A stack of k frames shares all but one of them with the stack of the step before, and the next
observation of one step is the observation of the next. A buffer that keeps both in full keeps each
frame 2k times. Here a channel that was stored already is found by its digest, whichever way frames
are stacked, episodes begin and end, and environments take turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int32, UInt8
from torch import Tensor

from planners.checks import check_memory

BLOCK = 2**26
"""Bytes by which the memory grows."""


class Planes:
    """Distinct planes (H, W) of uint8, by numbers; those that are no longer used are overwritten.

    A plane takes H W bytes and some 140 for its digest.

    Args:
        size: (H, W).
        what: what a message says of the buffer that needs too much memory.
        device: where the planes are stored.
    """

    def __init__(
        self, size: tuple[int, int], *, what: str, device: torch.device | str = "cpu"
    ) -> None:
        self.size, self.device, self._what = size, torch.device(device), what
        self._each = max(1, BLOCK // (size[0] * size[1]))  # planes in a block
        self._blocks: list[Tensor] = []
        self._uses = np.zeros(0, np.int64)
        self._free: list[int] = []
        self._keys: list[bytes] = []  # of each number ever given
        self._numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many planes are in use."""
        return len(self._numbers)

    @property
    def nbytes(self) -> int:
        """Bytes of all planes in use, without their digests."""
        return len(self) * self.size[0] * self.size[1]

    def add(self, planes: UInt8[Any, "K H W"], *, filled: float = 1.0) -> Int32[Any, " K"]:
        """The numbers of planes, each of which is used once more from now on.

        Args:
            planes: on the CPU.
            filled: the share of the buffer that is filled, from which the memory of a full one is
                extrapolated.

        Raises:
            ValueError: a full buffer needs more memory than there is.
        """
        planes = np.ascontiguousarray(planes)
        numbers = np.empty(len(planes), np.int32)
        for k, plane in enumerate(planes):
            key = blake2b(plane, digest_size=16).digest()
            number = self._numbers.get(key)
            if number is None:
                number = self._placed(key, plane, filled)
            self._uses[number] += 1
            numbers[k] = number
        return numbers

    def release(self, numbers: Int[Any, " K"]) -> None:
        """Use these planes once less, those of negative numbers aside."""
        for number in numbers[numbers >= 0].tolist():
            self._uses[number] -= 1
            if not self._uses[number]:
                del self._numbers[self._keys[number]]
                self._free.append(number)

    def take(self, numbers: Int[Tensor, "*lead"]) -> UInt8[Tensor, "*lead H W"]:
        """Planes by number."""
        flat = numbers.reshape(-1).long()
        out = torch.empty(len(flat), *self.size, dtype=torch.uint8, device=self.device)
        if len(self._blocks) == 1:
            torch.index_select(self._blocks[0], 0, flat, out=out)
        elif len(flat):
            block = flat // self._each
            for k in block.unique().tolist():
                at = (block == k).nonzero().squeeze(-1)
                out[at] = self._blocks[k].index_select(0, flat[at] - k * self._each)
        return out.view(*numbers.shape, *self.size)

    def compact(self, numbers: Int[Any, "*lead"]) -> tuple[Tensor, Int32[Tensor, "*lead"]]:
        """The planes that are named, in the order in which they are first, and their new numbers.

        What is returned depends on the pictures alone, not on where they happen to be.
        """
        flat = numbers.reshape(-1)
        first = np.full(len(self._keys), len(flat))
        first[flat[::-1]] = np.arange(len(flat))[::-1]  # of repeated places the last one counts
        order = np.argsort(first, kind="stable")[: int((first < len(flat)).sum())]
        renamed = np.empty(len(self._keys), np.int32)
        renamed[order] = np.arange(len(order), dtype=np.int32)
        planes = self.take(torch.as_tensor(order, device=self.device))
        return planes, torch.from_numpy(renamed[flat]).view(numbers.shape)

    def restore(self, planes: UInt8[Tensor, "K H W"], numbers: Int[Any, "*lead"]) -> None:
        """Have these planes alone, each used as often as its number occurs in `numbers`.

        Raises:
            ValueError: two of them are equal; nothing is changed then.
        """
        fresh = Planes(self.size, what=self._what, device=self.device)
        for start in range(0, len(planes), self._each):
            fresh.add(planes[start : start + self._each].numpy(force=True))
        if len(fresh) != len(planes):
            raise ValueError(f"replay planes: want distinct ones, got {len(planes)}")
        vars(self).update(vars(fresh))
        uses = np.bincount(numbers.reshape(-1), minlength=len(planes))
        self._uses[: len(planes)] = uses
        for number in np.nonzero(uses == 0)[0].tolist():
            del self._numbers[self._keys[number]]
            self._free.append(number)

    def _placed(self, key: bytes, plane: np.ndarray, filled: float) -> int:
        """Store a new plane; returns its number."""
        if self._free:
            number = self._free.pop()
            self._keys[number] = key
        else:
            number = len(self._keys)
            if number == len(self._uses):
                self._grow(filled)
            self._keys.append(key)
        block, at = divmod(number, self._each)
        self._blocks[block][at] = torch.from_numpy(plane)
        self._numbers[key] = number
        return number

    def _grow(self, filled: float) -> None:
        now = len(self._uses) * self.size[0] * self.size[1]
        more = max(now / filled - now, BLOCK) if now else BLOCK
        check_memory(self._what, more, device=self.device)
        shape = self._each, *self.size
        self._blocks.append(torch.empty(shape, dtype=torch.uint8, device=self.device))
        self._uses = np.concatenate((self._uses, np.zeros(self._each, np.int64)))


def channels_first(shape: Sequence[int]) -> bool:
    """Whether an image of this shape is (C, H, W) and not (H, W, C): C is less than W."""
    return shape[0] < shape[2]


def plane_size(shape: Sequence[int]) -> tuple[int, tuple[int, int]]:
    """C and (H, W) of images (C, H, W) or (H, W, C)."""
    channels, height, width = shape if channels_first(shape) else (shape[2], *shape[:2])
    return channels, (height, width)


def planes_of(images: UInt8[Tensor, " B *O"]) -> np.ndarray:
    """The channels (B, C, H, W) of images, on the CPU."""
    planes = images if channels_first(images.shape[1:]) else images.permute(0, 3, 1, 2)
    return planes.numpy(force=True)
