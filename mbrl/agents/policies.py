"""A policy in N environments at once."""

from __future__ import annotations

from collections.abc import Callable, Collection

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Discrete, MultiDiscrete
from torch import Generator, Tensor

from mbrl.data.replay import as_array
from mbrl.distributions import Bounds
from mbrl.learners.actions import Actions
from mbrl.parallel import single_thread
from mbrl.spaces import Vectors, bounds
from mbrl.types import Policy, Spec


class PolicyPlayer:
    """A `Player` that acts by a policy of states.

    Args:
        policy: chooses the actions; it is not copied, so the player improves while it learns.
            Actions that are indices are counted from 0.
        spec: the environment, whose observations `Vectors` turns into states, and whose indices of
            actions may start at another number than 0. If None, observations are vectors.
        vectors: turns observations into states; if None, `Vectors` of the spec.
        device: device of the policy.
        generator: random stream of the policy's draws.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        spec: Spec | None = None,
        vectors: Callable[[np.ndarray], Tensor] | None = None,
        device: torch.device | str = "cpu",
        generator: Generator,
    ) -> None:
        self.policy, self.device, self.generator = policy, device, generator
        if vectors is None and spec is not None:
            vectors = Vectors(spec.obs, device=device)
        self._vectors = vectors
        self._first = None if spec is None else first_index(spec)

    @single_thread()
    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A) for observations (N, *O)."""
        with torch.no_grad():
            if self._vectors is None:
                state = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
            else:
                state = self._vectors(obs)
            action = as_array(self.policy(state, generator=self.generator, explore=explore))
        return action if self._first is None else action + self._first

    def reset(self, begins: np.ndarray) -> None:
        """Does nothing, because the player has no state."""


def first_index(spec: Spec) -> np.ndarray | None:
    """The number of the first action, where actions are indices; None where they are not."""
    if isinstance(spec.action, Discrete | MultiDiscrete):
        return np.asarray(spec.action.start)
    return None


KINDS = {
    "index": "indices",
    "indices": "vectors of indices",
    "box": "in a bounded box of real vectors",
}
"""The kinds of actions that learners can have, in words."""


def actions_of(
    space: gymnasium.Space,
    name: str,
    device: torch.device | str,
    kinds: Collection[str] = tuple(KINDS),
) -> Actions:
    """The actions of a space, as learners take them.

    Args:
        space: of the environment.
        name: of the algorithm, for messages.
        device: where the bounds of a box are to be.
        kinds: those of `KINDS` that the algorithm can have.

    Raises:
        ValueError: a space of another kind.
    """
    if kind_of(space) not in kinds:
        words = " or ".join(words for known, words in KINDS.items() if known in kinds)
        raise ValueError(f"{name}: needs actions that are {words}, not {space}")
    if isinstance(space, Discrete):
        return int(space.n)
    if isinstance(space, MultiDiscrete):
        return tuple(int(n) for n in space.nvec)
    return Bounds(*bounds(space, device=device))


def kind_of(space: gymnasium.Space) -> str:
    """The name in `KINDS` of a space's actions; "other" for any other."""
    if isinstance(space, Discrete):
        return "index"
    if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1:
        return "indices"
    try:
        bounds(space)
    except ValueError:
        return "other"
    return "box"
