"""Propagation: which member each particle is stepped by, and what is drawn from the members.

Chua et al. 2018 (PETS), section 5. Particles are laid out (P, n, S) with P a multiple of the E
members, so that (E, P/E · n, S) is a view and assigning particles to members is a permutation of
leading blocks.
"""

from __future__ import annotations

from typing import cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from mbrl.particles import Propagation
from mbrl.types import Dynamics, Gaussian, GaussianDynamics, Step

BLOCK_ROWS = 256
"""Rows a member takes at a time: weights and activations then stay in a core's cache."""

SPLIT_ROWS = 128
"""Fewer rows than this are not worth a second worker."""


def check_particles(
    model: Dynamics, propagation: Propagation, particles: int, horizon: int, penalty: float
) -> int:
    """How many particles travel, once all settings are known to fit the model."""
    if propagation not in get_args(Propagation):
        raise ValueError(
            f"propagation {propagation!r} is unknown; take one of {[*get_args(Propagation)]}"
        )
    if horizon < 1:
        raise ValueError(f"horizon must be >= 1, got {horizon}")
    if not penalty >= 0:
        raise ValueError(f"penalty must be >= 0, got {penalty}")
    gaussian = propagation in ("moment", "distribution") or penalty > 0
    if gaussian and not isinstance(model, GaussianDynamics):
        raise ValueError(
            f"propagation {propagation!r} with penalty {penalty:g} needs a model that predicts a "
            f"Gaussian, which {type(model).__name__} does not"
        )
    if propagation == "expectation":
        return 1
    shared = propagation == "distribution"
    if particles < 1 or (not shared and particles % model.members):
        raise ValueError(
            f"particles must be a positive multiple of the model's {model.members} members, "
            f"got {particles}"
        )
    return particles


def draw_assignments(
    propagation: Propagation, horizon: int, particles: int, generator: Generator
) -> Int[Tensor, "H P"] | None:
    """The order in which particles go to members at each step; None where it never changes.

    Particle `order[t, p]` is the p-th at step t, and member p // (P / E) steps it.
    """
    if propagation not in ("ts1", "moment"):
        return None
    uniform = torch.rand(horizon, particles, generator=generator, device=generator.device)
    return uniform.argsort(-1)


def noise_shape(model: Dynamics, propagation: Propagation, size: int) -> tuple[int, ...]:
    """Shape of the random numbers that one particle of a state of `size` takes in a step."""
    if propagation in ("moment", "distribution"):  # drawn from a Gaussian of states
        return (size,)
    return model.noise_shape


def blocks_of(
    count: int, model: Dynamics, propagation: Propagation, particles: int, device: torch.device
) -> list[slice]:
    """Slices of candidates; they depend on the problem alone, never on the workers."""
    if device.type != "cpu":
        return [slice(0, count)]
    seen = propagation in ("expectation", "distribution")
    rows = particles if seen else particles // model.members  # a member's rows per candidate
    blocks = max(-(-count * rows // BLOCK_ROWS), 2 if count * rows >= SPLIT_ROWS else 1)
    size = -(-count // blocks)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def propagate(
    model: Dynamics,
    state: Float[Tensor, "P n S"],
    action: Float[Tensor, "P n A"],
    noise: Float[Tensor, "P _ *noise_shape"] | None,
    alive: Bool[Tensor, "P n"],
    assignment: Int[Tensor, " P"] | None,
    propagation: Propagation,
    own_termination: bool,
) -> Step:
    """One step of all particles, (P, n, ...) in and out; without noise, to the mean.

    Where members share each particle (expectation, moment, distribution) the end is decided by
    a majority of them.
    """
    particles, count, size = state.shape
    members = model.members
    if propagation in ("ts1", "tsinf") and assignment is None and particles == members:
        if noise is not None:
            noise = noise.expand(particles, count, *noise.shape[2:])
        return model.step(state, action, noise=noise)
    if propagation in ("expectation", "distribution"):
        # every member sees every particle
        rows = state.reshape(1, -1, size).expand(members, -1, -1)
        moves = action.reshape(1, -1, action.shape[-1]).expand(members, -1, -1)
        shape = (members, particles, count)
    else:
        if assignment is not None:
            state, action = state.index_select(0, assignment), action.index_select(0, assignment)
        rows = state.reshape(members, -1, size)  # (E, P/E · n, S)
        moves = action.reshape(members, -1, action.shape[-1])
        shape = (1, particles, count)
    if propagation in ("ts1", "tsinf"):
        if noise is not None:
            each = noise.shape[2:]
            noise = noise.expand(particles, count, *each).reshape(*rows.shape[:2], *each)
        step = model.step(rows, moves, noise=noise)
        back = None if assignment is None else assignment.argsort()
        return Step(*(_restore(part, (particles, count), back) for part in step))
    if propagation == "expectation":
        step = model.step(rows, moves, noise=None)
        parts = [part.reshape(*shape, *part.shape[2:]) for part in step]
        return Step(parts[0].mean(0), parts[1].mean(0), parts[2].float().mean(0) > 0.5)
    gaussian = cast(GaussianDynamics, model).predict(rows, moves)
    mean, std = (part.reshape(*shape, -1) for part in gaussian)
    if propagation == "moment":
        counts = alive if assignment is None else alive.index_select(0, assignment)
        refit = _refit(mean, std, (0, 1), counts.view(*shape, 1))
    else:
        refit = _refit(mean, std, (0,), torch.ones_like(mean[..., :1], dtype=torch.bool))
    drawn = refit.mean[..., :size]
    if noise is not None:
        drawn = drawn + refit.std[..., :size] * noise
    drawn = drawn.expand(particles, count, size)
    gain = refit.mean[..., size].expand(particles, count)
    ends = torch.zeros_like(gain, dtype=torch.bool)
    if own_termination:
        step = model.step(rows, moves, noise=None)
        ends = step.terminated.reshape(shape).float().mean(0) > 0.5
        ends = ends if assignment is None else ends.index_select(0, assignment.argsort())
    return Step(drawn, gain, ends)


def _refit(mean: Tensor, std: Tensor, over: tuple[int, ...], counts: Tensor) -> Gaussian:
    """The Gaussian with the mean and variance of the mixture of those that count."""
    number = counts.sum(over, keepdim=True).clamp_min(1)
    centre = torch.where(counts, mean, 0.0).sum(over, keepdim=True) / number
    variance = torch.where(counts, std.square() + (mean - centre).square(), 0.0) / number
    return Gaussian(centre.sum(over), variance.sum(over).sqrt())


def _restore(part: Tensor, lead: tuple[int, int], back: Tensor | None) -> Tensor:
    part = part.reshape(*lead, *part.shape[2:])
    return part if back is None else part.index_select(0, back)
