"""Checks of shapes and values, shared by many modules."""

from __future__ import annotations

from collections.abc import Sequence

from mbrl.types import Transition


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
    for name, column in batch._asdict().items():
        shape = shapes.get(name, lead)
        if tuple(column.shape) != shape or not lead:
            raise ValueError(f"{name} must have shape {shape or ('B',)}, got {tuple(column.shape)}")
        if not bool(column.isfinite().all()):
            raise ValueError(f"{name} holds a number that is not finite")
