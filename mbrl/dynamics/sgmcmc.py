"""Stochastic-gradient Hamiltonian Monte Carlo with cyclical step sizes.

Chen et al. 2014, "Stochastic gradient Hamiltonian Monte Carlo" (arXiv 1402.4102), in the form of
momentum descent (equation 15); Zhang et al. 2020, "Cyclical stochastic gradient MCMC" (arXiv
1902.03932): each cycle begins with large steps, without noise, to find another mode, and ends with
small ones, from which samples are taken.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.dynamics.bayesian_configs import SgmcmcConfig
from mbrl.dynamics.chains import ChainMLP
from mbrl.dynamics.samples import Potential


def hamiltonian_step(
    position: Float[Tensor, "K P"],
    velocity: Float[Tensor, "K P"],
    gradient: Float[Tensor, "K P"],
    noise: Float[Tensor, "K P"] | None,
    *,
    step_size: float,
    friction: float,
) -> tuple[Float[Tensor, "K P"], Float[Tensor, "K P"]]:
    """v ← (1 - a) v - η ∇U + sqrt(2 a η) ξ, θ ← θ + v (Chen et al., equation 15).

    With friction a = 1 it is Langevin dynamics of step size η. Without noise it is descent with
    momentum 1 - a.
    """
    velocity = (1 - friction) * velocity - step_size * gradient
    if noise is not None:
        velocity = velocity + math.sqrt(2 * friction * step_size) * noise
    return position + velocity, velocity


class SgmcmcMLP(ChainMLP):
    """Samples of K chains of Hamiltonian Monte Carlo on minibatches."""

    def samples(
        self, potential: Potential, *, generator: Generator
    ) -> tuple[Float[Tensor, "K M P"], Tensor]:
        """The last iterates of each cycle, evenly spaced over its sampling phase."""
        config = cast(SgmcmcConfig, self.config)
        here = potential.start.clone()
        good, velocity = here.clone(), torch.zeros_like(here)
        restarts, found = torch.zeros(len(here), dtype=torch.int64, device=here.device), []
        steps, explored = config.cycle_steps, round(config.exploration * config.cycle_steps)
        # a cycle takes a sample at the end of each of so many equal parts of its sampling phase
        taken = {
            explored + math.ceil((steps - explored) * (i + 1) / config.cycle_samples) - 1
            for i in range(config.cycle_samples)
        }
        for _ in range(config.cycles):
            for step in range(steps):
                size = 0.5 * config.step_size * (1 + math.cos(math.pi * step / steps))
                index = torch.randint(
                    potential.rows, (min(config.batch, potential.rows),), generator=generator
                )
                _, gradient = potential(here, index.to(here.device))
                noise = None
                if step >= explored:
                    noise = torch.randn(here.shape, generator=generator).to(here)
                here, velocity = hamiltonian_step(
                    here, velocity, gradient, noise,
                    step_size=size / potential.rows, friction=config.friction,
                )  # fmt: skip
                if step in taken:
                    lost = ~(here.isfinite().all(1) & (here.abs().amax(1) < config.largest))
                    restarts += lost
                    here = torch.where(lost.unsqueeze(1), good, here)
                    velocity = torch.where(lost.unsqueeze(1), 0.0, velocity)
                    good = here.clone()
                    found.append(good)
        return torch.stack(found, 1), restarts
