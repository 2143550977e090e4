"""The actions that learners choose among."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from mbrl.distributions import Bounds

Actions = Bounds | int | Sequence[int]
"""A box of actions, the number of choices, or the numbers of choices in each of D dimensions."""


def shape_of(actions: Actions) -> tuple[int, ...]:
    """The shape of one action."""
    if isinstance(actions, int):
        return ()
    return (len(actions.low if isinstance(actions, Bounds) else actions),)


def device_of(actions: Actions, device: torch.device | str) -> torch.device:
    """Where a learner is to be: with the bounds of its actions, if there are any."""
    return actions.low.device if isinstance(actions, Bounds) else torch.device(device)


def features_of(actions: Actions) -> int:
    """How many numbers describe an action to a critic."""
    if isinstance(actions, int):
        return actions
    return len(actions.low) if isinstance(actions, Bounds) else sum(actions)


def as_features(action: Shaped[Tensor, "*lead A"], actions: Actions) -> Float[Tensor, "*lead F"]:
    """Actions for a critic: within [-1, 1] of their box, or one-hot for each choice."""
    if isinstance(actions, Bounds):
        return (action - actions.centre) / actions.half
    sizes: Sequence[int] = (actions,) if isinstance(actions, int) else actions
    each = (action,) if isinstance(actions, int) else action.unbind(-1)
    hot = [F.one_hot(own.long(), n) for own, n in zip(each, sizes, strict=True)]
    return torch.cat(hot, -1).float()
