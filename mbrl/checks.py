"""Checks of arrays, batches and saved states; those of settings and memory: `planners.checks`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from mbrl.types import Transition
from planners.checks import check_memory

__all__ = [
    "check_batch",
    "check_memory",
    "check_state",
    "not_negative",
    "positive",
    "same_shape",
]


def positive(**numbers: float) -> None:
    """Refuse numbers that are not finite and above 0; the ValueError names the first."""
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name}: must be finite and above 0, got {number!r}")


def not_negative(**numbers: float) -> None:
    """Refuse numbers that are not finite and at least 0; the ValueError names the first."""
    for name, number in numbers.items():
        if not 0 <= number < math.inf:
            raise ValueError(f"{name}: must be finite and at least 0, got {number!r}")


def same_shape(**arrays: Tensor) -> None:
    """Refuse unequal shapes, which broadcasting would accept: (B,) and (B, 1) would give (B, B).

    Raises:
        ValueError: an array of another shape than the first; the message names both.
    """
    (first, want), *others = arrays.items()
    for name, array in others:
        if array.shape != want.shape:
            raise ValueError(
                f"{name}: want the shape {tuple(want.shape)} of {first}, got {tuple(array.shape)}"
            )


def check_batch(batch: Transition, obs: Sequence[int], action: Sequence[int]) -> None:
    """Check the shapes of a batch (B,), and that its numbers are finite.

    Args:
        batch: B transitions.
        obs: shape of an observation, or of a model state.
        action: shape of an action.

    Raises:
        ValueError: a column of another shape, or with a number that is not finite; the message
            names the column.
    """
    lead = tuple(batch.reward.shape[:1])
    shapes = {"obs": (*lead, *obs), "action": (*lead, *action), "next_obs": (*lead, *obs)}
    numbers: dict[str, Tensor] = {}
    for name, column in batch._asdict().items():
        shape = shapes.get(name, lead)
        if tuple(column.shape) != shape or not lead:
            raise ValueError(f"{name} must have shape {shape or ('B',)}, got {tuple(column.shape)}")
        if column.is_floating_point():
            numbers[name] = column
    sums = [column.sum() for column in numbers.values()]  # takes a tenth of the time of `isfinite`
    if not batch.reward.is_cpu:  # each number would have to be waited for
        sums = [cast(Tensor, sum(sums))]
    if all(map(math.isfinite, sums)):  # then so are all terms
        return
    for name, column in numbers.items():
        if not bool(column.isfinite().all()):
            raise ValueError(f"{name} holds a number that is not finite")


def check_state(state: Any, fresh: Any, place: str = "") -> None:
    """Check that a saved state has the structure of a new object's `state_dict`.

    Dicts must have the same names, lists the same length, values the same type, and tensors the
    same dtype and shape. Where the new state has None, anything is accepted; where it has an empty
    dict, list or tensor, any length. Numbers of a tensor must be finite if the new one's are.

    Args:
        state: nested dicts, lists and tuples of tensors and plain values.
        fresh: that of a new object with the same settings.
        place: name of `state` in messages.

    Raises:
        ValueError: the first difference; the message names its place.
    """
    if fresh is None:
        return
    if isinstance(fresh, Tensor):
        _check_tensor(state, fresh, place)
    elif isinstance(fresh, Mapping):
        if not isinstance(state, Mapping):
            raise ValueError(f"{place} must have names, got {_described(state)}")
        if fresh and (found := set(map(str, state))) != (wanted := set(map(str, fresh))):
            name = min(found ^ wanted)
            fault = "is missing" if name in wanted else "is not known here"
            raise ValueError(f"{place}/{ascii(name)[1:-1][:60]} {fault}".lstrip("/"))
        for name, value in fresh.items():
            check_state(state[name], value, f"{place}/{name}".lstrip("/"))
    elif isinstance(fresh, list | tuple):
        if type(state) is not type(fresh) or (fresh and len(state) != len(fresh)):
            raise ValueError(
                f"{place} must be {_described(fresh)} of {len(fresh)}, got {_described(state)}"
            )
        for i, value in enumerate(fresh):
            check_state(state[i], value, f"{place}/{i}")
    elif type(state) is not type(fresh) and not (type(fresh) is float and type(state) is int):
        raise ValueError(f"{place} must be {_described(fresh)}, got {_described(state)}")


def _check_tensor(state: Any, fresh: Tensor, place: str) -> None:
    if not isinstance(state, Tensor):
        raise ValueError(f"{place} must be a tensor, got {_described(state)}")
    grown = fresh.ndim > 0 and len(fresh) == 0
    wanted, found = (x.shape[1:] if grown else x.shape for x in (fresh, state))
    if state.dtype != fresh.dtype or state.ndim != fresh.ndim or found != wanted:
        raise ValueError(
            f"{place} must be {_dtype(fresh)} of shape {tuple(fresh.shape)}, got {_dtype(state)} "
            f"of shape {tuple(state.shape)}"
        )
    finite = fresh.is_floating_point() and bool(fresh.isfinite().all())
    if finite and not bool(state.isfinite().all()):
        raise ValueError(f"{place} holds a number that is not finite")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _described(value: Any) -> str:
    kinds = {
        bool: "true or false", int: "an integer", float: "a number", str: "a text",
        list: "a list", tuple: "a tuple", dict: "names with values", Tensor: "a tensor",
    }  # fmt: skip
    return kinds.get(type(value), "nothing" if value is None else "something else")
