"""A policy in N environments at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from gymnasium.spaces import Discrete, MultiDiscrete
from torch import Generator, Tensor

from mbrl.parallel import single_thread
from mbrl.spaces import Vectors
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

    @torch.no_grad()
    @single_thread()
    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A) for observations (N, *O)."""
        if self._vectors is None:
            state = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        else:
            state = self._vectors(obs)
        action = self.policy(state, generator=self.generator, explore=explore).numpy(force=True)
        return action if self._first is None else action + self._first

    def reset(self, begins: np.ndarray) -> None:
        """Does nothing, because the player has no state."""


def first_index(spec: Spec) -> np.ndarray | None:
    """The number of the first action, where actions are indices; None where they are not."""
    if isinstance(spec.action, Discrete | MultiDiscrete):
        return np.asarray(spec.action.start)
    return None
