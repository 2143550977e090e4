"""Gymnasium's pendulum as a model in closed form, right or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.types import Metrics, Step, Transition

ENV = "Pendulum-v1"


class Pendulum:
    """The physics of Pendulum-v1 as a `Dynamics` of its observations (cos θ, sin θ, θ velocity).

    With the default parameters it is exact but for rounding. It has no noise, and nothing to
    learn: `fit` does nothing, so that an agent can have it in place of a learned model.

    Args:
        obs_size: 3.
        action_size: 1.
        mass: of the rod of 1 m, in kg. It changes what a torque does, and not how the rod falls.
        friction: share of the angular velocity that is lost in a second; the environment has none.
        generator: not used.
    """

    members, noise_shape = 1, (0,)

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        *,
        mass: float = 1.0,
        friction: float = 0.0,
        generator: Generator | None = None,
    ) -> None:
        self.mass, self.friction = mass, friction

    def encode(
        self, obs: Float[Tensor, "*lead 3"], *, state: Tensor | None = None, action: Any = None
    ) -> Float[Tensor, "*lead 3"]:
        """The identity."""
        return obs

    def decode(self, state: Float[Tensor, "*lead 3"]) -> Float[Tensor, "*lead 3"]:
        """The identity."""
        return state

    def step(
        self, state: Float[Tensor, "1 B 3"], action: Float[Tensor, "1 B 1"], *, noise: Any = None
    ) -> Step:
        """One step of 0.05 s; the reward is 0, and nothing terminates."""
        angle, speed = torch.atan2(state[..., 1], state[..., 0]), state[..., 2]
        torque = action[..., 0].clamp(-2.0, 2.0)
        force = 15.0 * angle.sin() + 3.0 / self.mass * torque - self.friction * speed
        speed = (speed + 0.05 * force).clamp(-8.0, 8.0)
        angle = angle + 0.05 * speed
        after = torch.stack((angle.cos(), angle.sin(), speed), -1)
        return Step(after, torch.zeros_like(speed), torch.zeros_like(speed, dtype=torch.bool))

    def fit(self, data: Transition, *, generator: Generator) -> Metrics:
        """Does nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Empty: nothing is learned."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Does nothing."""
