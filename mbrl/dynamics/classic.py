"""Environments of gymnasium's classic control as exact models."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.types import Step


class Classic:
    """CartPole, MountainCar or Acrobot of gymnasium as a `Dynamics` with discrete actions.

    A step sets the environment's state and steps it, so the model is exact. Model states are the
    environment's attribute `state` in float64, not its observation. Rows of a batch are stepped one
    after another in Python.

    Args:
        env: a `gymnasium.Env` whose unwrapped environment keeps its whole state in `state`, S
            numbers. The model changes that state, so pass an environment that nothing else uses.
    """

    members = 1
    noise_shape = (0,)

    def __init__(self, env: Any) -> None:
        self._env = env.unwrapped
        self._env.reset()

    def encode(
        self, obs: Float[Tensor, "*lead S"], *, state: Tensor | None = None, action: Any = None
    ) -> Float[Tensor, "*lead S"]:
        """The identity: pass states, not observations."""
        return obs

    def decode(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead S"]:
        """The identity: returns states, not observations."""
        return state

    def step(
        self, state: Float[Tensor, "1 B S"], action: Float[Tensor, "1 B 1"], *, noise: Any = None
    ) -> Step:
        """One step of each row; `action` holds indices, and there is no noise."""
        after, rewards, ends = [], [], []
        for row, index in zip(state[0].numpy(), action[0, :, 0].int().tolist(), strict=True):
            self._env.state = row
            # after a termination CartPole would warn, and return reward 0 in all further steps
            self._env.steps_beyond_terminated = None
            _, reward, terminated, _, _ = self._env.step(index)
            after.append(self._env.state)
            rewards.append(reward)
            ends.append(terminated)
        return Step(
            torch.from_numpy(np.array(after, dtype=float))[None].to(state),
            torch.tensor([rewards]).to(state),
            torch.tensor([ends], dtype=torch.bool),
        )
