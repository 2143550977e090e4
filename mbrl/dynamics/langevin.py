"""Microcanonical Langevin chains on all the data, from the networks of a deep ensemble.

Robnik et al. 2023, "Microcanonical Hamiltonian Monte Carlo" (arXiv 2212.08549), and "Fluctuation
without dissipation" (arXiv 2303.18221) for the partial refreshment; Sommer et al. 2025,
"Microcanonical Langevin ensembles" (arXiv 2502.06335) for chains that start at trained networks.
The momentum has a constant length, so a chain moves at constant speed however steep U is.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.dynamics.bayesian_configs import LangevinConfig
from mbrl.dynamics.chains import ChainMLP
from mbrl.dynamics.samples import Potential

MINIMAL_NORM = 0.1931833275037836
"""λ of the second-order integrator with the least error for its two gradients a step (McLachlan
1995)."""


class State(NamedTuple):
    """K chains."""

    position: Float[Tensor, "K P"]
    direction: Float[Tensor, "K P"]  # of length 1
    value: Float[Tensor, " K"]  # U
    gradient: Float[Tensor, "K P"]


def turned(
    direction: Float[Tensor, "K P"], gradient: Float[Tensor, "K P"], time: Float[Tensor, "K 1"]
) -> tuple[Float[Tensor, "K P"], Float[Tensor, " K"]]:
    """The direction after a time in a field of constant gradient, and the kinetic energy gained.

    It turns towards -∇U and keeps its length (Robnik et al. 2023, equation 13). Energies are in
    nats, of the isokinetic Hamiltonian (P - 1) log |momentum| + U.
    """
    freedom = direction.shape[1] - 1
    norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    down = -gradient / norm.clamp_min(1e-30)
    along = (down * direction).sum(1, keepdim=True)
    angle = time * norm / freedom
    # divided by exp(angle), so that steep places do not overflow
    decay = torch.exp(-2 * angle)
    fresh = down * (1 - decay + along * (1 - torch.exp(-angle)).square())
    fresh = fresh + 2 * torch.exp(-angle) * direction
    length = 1 + decay + along * (1 - decay)  # twice the factor by which the momentum grows
    gained = freedom * (angle + (0.5 * length).clamp_min(1e-30).log())
    fresh = fresh / torch.linalg.vector_norm(fresh, dim=1, keepdim=True).clamp_min(1e-30)
    return fresh, gained.squeeze(1)


def stepped(
    state: State, potential: Potential, time: Float[Tensor, "K 1"]
) -> tuple[State, Float[Tensor, " K"]]:
    """One step of the minimal-norm integrator, and the error of the energy, which should be 0."""
    direction, first = turned(state.direction, state.gradient, MINIMAL_NORM * time)
    position = state.position + 0.5 * time * direction
    _, gradient = potential(position)
    direction, middle = turned(direction, gradient, (1 - 2 * MINIMAL_NORM) * time)
    position = position + 0.5 * time * direction
    value, gradient = potential(position)
    direction, last = turned(direction, gradient, MINIMAL_NORM * time)
    gained = first + middle + last + value - state.value
    return State(position, direction, value, gradient), gained


def refreshed(
    direction: Float[Tensor, "K P"], share: Float[Tensor, "K 1"], generator: Generator
) -> Float[Tensor, "K P"]:
    """The direction with noise, after which it forgets itself over a length L (equation 8).

    `share` is the step's length / L.
    """
    noise = torch.randn(direction.shape, generator=generator).to(direction)
    amount = (torch.expm1(2 * share) / direction.shape[1]).sqrt()
    fresh = direction + amount * noise
    return fresh / torch.linalg.vector_norm(fresh, dim=1, keepdim=True)


class LangevinMLP(ChainMLP):
    """Samples of K microcanonical Langevin chains, each with step size and L of its own.

    The step size is set, in the first part of the tuning, so that the energy's error has variance
    `energy_error` per dimension; L, in the last part, to sqrt(P) times the root mean variance of
    the parameters.
    """

    def samples(
        self, potential: Potential, *, generator: Generator
    ) -> tuple[Float[Tensor, "K M P"], Tensor]:
        """Iterates, evenly spaced."""
        config = cast(LangevinConfig, self.config)
        count, size = potential.start.shape
        state = _at(potential.start, potential, generator)
        good, restarts = state, torch.zeros(count, dtype=torch.int64, device=self.bank.device)
        length = potential.start.new_full((count, 1), math.sqrt(size) * config.first_length)
        step, tuned = 0.1 * length / math.sqrt(size), _StepSize(count, config.energy_error * size)
        mean, square, seen = potential.start.double() * 0, potential.start.double() * 0, 0
        warm = round(config.tuning_steps * config.length_share)
        found = []
        for number in range(config.tuning_steps + config.kept * config.thin):
            new, error = stepped(state, potential, step)
            lost = ~(new.position.isfinite().all(1) & error.isfinite())
            lost = lost | (error.abs() > config.largest_error * size)
            tuning, back = number < config.tuning_steps, lost.unsqueeze(1)
            state = State(
                torch.where(back, good.position, new.position),
                torch.where(back, -good.direction, new.direction),
                torch.where(lost, good.value, new.value),
                torch.where(back, good.gradient, new.gradient),
            )
            step = torch.where(back, 0.5 * step, step)
            if not tuning:
                restarts += lost
            else:
                step = tuned(step, error, lost)
                if number >= config.tuning_steps - warm:
                    seen += 1
                    mean += (state.position - mean) / seen
                    square += (state.position.double().square() - square) / seen
                if number == config.tuning_steps - 1 and seen > 1:
                    variance = (square - mean.square()).clamp_min(0.0).mean(1, keepdim=True)
                    length = (math.sqrt(size) * variance.sqrt()).to(length).clamp_min(1e-12)
            direction = refreshed(state.direction, step / length, generator)
            state = state._replace(direction=direction)
            if (number + 1) % config.thin == 0:
                good = state
            if not tuning and (number + 1 - config.tuning_steps) % config.thin == 0:
                found.append(state.position)
        return torch.stack(found, 1), restarts


class _StepSize:
    """The step size at which the energy's error has a given variance.

    The error's square grows with the sixth power of the step. A mean over steps, whose weights fall
    by 1 % a step, estimates its factor (Robnik et al.'s code).
    """

    def __init__(self, chains: int, variance: float) -> None:
        self.variance = variance
        self.weight = torch.zeros(chains, 1)
        self.total = torch.zeros(chains, 1)

    def __call__(self, step: Tensor, error: Tensor, lost: Tensor) -> Tensor:
        ratio = error.double().square().unsqueeze(1) / self.variance + 1e-8
        weight = torch.exp(-0.5 * (ratio.log() / 6 / 1.5).square())
        usable = (~lost).unsqueeze(1)
        weight = torch.where(usable, weight, 0.0)
        share = torch.where(usable, ratio / step.double().pow(6), 0.0)
        self.total = 0.99 * self.total.to(weight) + weight * share
        self.weight = 0.99 * self.weight.to(weight) + weight
        found = (self.total / self.weight.clamp_min(1e-300)).clamp_min(1e-300).pow(-1 / 6)
        return torch.where(self.weight > 1e-3, found.to(step), step)


def _at(position: Tensor, potential: Potential, generator: Generator) -> State:
    """Chains at these positions, with random directions."""
    value, gradient = potential(position)
    noise = torch.randn(position.shape, generator=generator).to(position)
    direction = noise / torch.linalg.vector_norm(noise, dim=1, keepdim=True)
    return State(position.clone(), direction, value, gradient)
