"""A policy in N environments at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from mbrl.types import Policy


class PolicyPlayer:
    """A `Player` that acts by a policy, on observations that are vectors.

    Args:
        policy: chooses the actions; it is not copied, so the player improves while it learns.
        device: device of the policy.
        generator: random stream of the policy's draws.
    """

    def __init__(
        self, policy: Policy, *, device: torch.device | str = "cpu", generator: Generator
    ) -> None:
        self.policy, self.device, self.generator = policy, device, generator

    @torch.no_grad()
    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A) for observations (N, *O), which the policy receives as float32."""
        state: Tensor = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        return self.policy(state, generator=self.generator, explore=explore).numpy(force=True)

    def reset(self, begins: np.ndarray) -> None:
        """Does nothing, because the player has no state."""
