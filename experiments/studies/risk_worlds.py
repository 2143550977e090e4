"""The true dynamics of risky tasks in closed form, batched, as models to plan through."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.types import Step

MASS, POLE, HALF, INERTIA = 1.1, 0.1, 0.3, 0.012
"""Of the cart-pole: kg in all and of the pole, m from the hinge to the pole's middle, and kg m² of
the pole about the hinge."""
MOTOR, GRAVITY = 10.0, 9.81  # N, m/s²


class _Closed(ABC):
    """A `Dynamics` of one member whose states are observations; reward 0, and it never ends."""

    members = 1

    def encode(self, obs: Tensor, *, state: Tensor | None = None, action: Any = None) -> Tensor:
        """The identity."""
        return obs

    def decode(self, state: Tensor) -> Tensor:
        """The identity."""
        return state

    def step(self, state: Tensor, action: Tensor, *, noise: Tensor | None) -> Step:
        """One step; noise None is a standard normal number of 0."""
        draws = 0.0 if noise is None else noise[..., 0]
        after = self.moved(state, action.clamp(-1, 1), draws)
        zeros = after.new_zeros(after.shape[:-1])
        return Step(after, zeros, zeros.bool())

    @abstractmethod
    def moved(self, state: Tensor, action: Tensor, noise: Any) -> Tensor:
        """The next state (..., S) by standard normal `noise` (...)."""


class CartPole(_Closed):
    """The cart-pole of `envs.cartpole` away from the stops of its rail.

    States are observations (cart position m, sin θ, cos θ, velocities m/s and rad/s). The
    integrator is MuJoCo's: semi-implicit Euler, in four steps.

    Args:
        gusts: std of the force on the cart, in N, constant within a step.
        substep: seconds of a step of the integrator.
        drag: of the cart, in N s/m.
    """

    noise_shape = (1,)

    def __init__(self, gusts: float, substep: float, drag: float = 0.0) -> None:
        self.gusts, self.substep, self.drag = gusts, substep, drag

    def moved(
        self, state: Float[Tensor, "*lead 5"], action: Float[Tensor, "*lead 1"], noise: Any
    ) -> Float[Tensor, "*lead 5"]:
        """The next state; `noise` (...) is in stds of the force."""
        x, sine, cosine, speed, spin = state.unbind(-1)
        angle = torch.atan2(sine, cosine)
        dt = self.substep
        force, arm = MOTOR * action[..., 0] + self.gusts * noise, POLE * HALF
        mass = MASS + dt * self.drag  # as in MuJoCo, the drag is that of the new velocity
        for _ in range(4):
            push = force - self.drag * speed + arm * sine * spin * spin
            lift = arm * GRAVITY * sine
            coupling = arm * cosine
            free = mass * INERTIA - coupling * coupling
            speed = speed + dt * (INERTIA * push - coupling * lift) / free
            spin = spin + dt * (mass * lift - coupling * push) / free
            x, angle = x + dt * speed, angle + dt * spin
            sine, cosine = angle.sin(), angle.cos()
        return torch.stack((x, sine, cosine, speed, spin), -1)


class River(_Closed):
    """The continuous wet chicken of `envs.WetChicken`."""

    noise_shape = (1,)

    def moved(
        self, state: Float[Tensor, "*lead 2"], action: Float[Tensor, "*lead 2"], noise: Any
    ) -> Float[Tensor, "*lead 2"]:
        """The next position; `noise` gives the uniform turbulence by its normal level."""
        x, y = state.unbind(-1)
        right, ahead = action.unbind(-1)
        speed = 0.6 * x
        level = torch.erf(torch.as_tensor(noise) / math.sqrt(2))
        y = y + ahead - 1 + speed + (3.5 - speed) * level
        after = torch.stack(((x + right).clamp(0, 5), y.clamp_min(0)), -1)
        return torch.where((y > 5).unsqueeze(-1), 0.0, after)
