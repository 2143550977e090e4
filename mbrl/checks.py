"""Errors of shape and value that many places raise, each said once.

`check_fields` and `check_memory` come from `planners.checks`, as do the types of ranges.
"""

from __future__ import annotations

from collections.abc import Sequence

from mbrl.types import Transition
from planners.checks import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Rounds,
    Share,
    check_fields,
    check_memory,
    first_refused,
)

__all__ = [
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "PositiveShare",
    "Rounds",
    "Share",
    "check_batch",
    "check_fields",
    "check_memory",
    "first_refused",
]


def check_batch(batch: Transition, obs: Sequence[int], action: Sequence[int]) -> None:
    """Refuse a batch (B,) that nothing can be learned from.

    Args:
        batch: B transitions.
        obs: shape of an observation, or of a model state.
        action: shape of an action.

    Raises:
        ValueError: a column of another shape, or with a number that is not finite; one line names
            it.
    """
    lead = tuple(batch.reward.shape[:1])
    shapes = {"obs": (*lead, *obs), "action": (*lead, *action), "next_obs": (*lead, *obs)}
    for name, column in batch._asdict().items():
        shape = shapes.get(name, lead)
        if tuple(column.shape) != shape or not lead:
            raise ValueError(f"{name} must have shape {shape or ('B',)}, got {tuple(column.shape)}")
        if not bool(column.isfinite().all()):
            raise ValueError(f"{name} holds a number that is not finite")
