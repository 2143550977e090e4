"""The score: what a planner maximises, from a model and an objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.checks import check_memory
from mbrl.imagination.objectives import Objective
from mbrl.imagination.objectives import objective as objective_named
from mbrl.imagination.propagation import (
    blocks_of,
    check_particles,
    draw_assignments,
    noise_shape,
)
from mbrl.imagination.rollout import imagine
from mbrl.parallel import parallel_map
from mbrl.particles import Propagation
from mbrl.types import Dynamics, NativeDynamics, RewardFn, TerminatedFn


@torch.no_grad()
def score_fn(
    model: Dynamics,
    state: Float[Tensor, " S"],
    *,
    particles: int = 20,
    propagation: Propagation = "tsinf",
    objective: str | Objective = "mean",
    horizon: int,
    discount: float = 1.0,
    reward: RewardFn | None = None,
    terminated: TerminatedFn | None = None,
    penalty: float = 0.0,
    terminal: float = 0.0,
    value: Callable[[Float[Tensor, "P N S"]], Float[Tensor, "P N"]] | None = None,
    generator: Generator,
) -> Callable[[Float[Tensor, "N H A"]], Float[Tensor, " N"]]:
    """What a planner maximises: the objective over the imagined returns from one state.

    All noise and all assignments are drawn here, once, and are the same for every candidate: the
    score is then a pure function, differences between candidates are not blurred by luck, and a
    candidate may be scored in any block on any worker. States are decoded only where `reward` or
    `terminated` is given.

    Args:
        model: any `Dynamics`; `GaussianDynamics` for moment, distribution and the penalty.
        state: where all candidates start.
        particles: P, a multiple of the model's members (expectation always takes one).
        propagation: see `Propagation`.
        objective: a name that `objective()` knows, or a function of returns (P, N).
        horizon: H, the most steps a candidate has.
        discount: of the return.
        reward: takes the place of the model's own.
        terminated: takes the place of the model's own.
        penalty: λ in reward − λ·u, u the members' disagreement at each particle
            (`disagreement`); MOPO, Yu et al. 2020, with the epistemic part alone.
        terminal: how many times more the last reward counts, for what lies beyond the horizon.
        value: of the model state at the end of a plan; it is discounted and added to the return
            of trajectories that have not ended (POLO, Lowrey et al. 2019; TD-MPC, Hansen et al.
            2022). The model is then stepped by its `step`, even if it can roll out whole sequences.
        generator: draws noise and assignments.

    Returns:
        `score(actions (N, H, A)) -> (N,)`; −inf where a state or a return is not finite. With
        gradients on, and actions that want one, it can be differentiated, where the model can.

    Raises:
        ValueError: here or from the score, for wrong shapes, particles that are not a multiple
            of the members, an unknown propagation or objective, a negative penalty, a model
            without the Gaussian that is asked for.
    """
    if state.ndim != 1:
        raise ValueError(f"state must have shape (S,), got {tuple(state.shape)}")
    if not float(state.abs().max()) < math.inf:
        raise ValueError("state holds a number that is not finite")
    particles = check_particles(model, propagation, particles, horizon, penalty)
    reduce = objective_named(objective) if isinstance(objective, str) else objective
    size, device = state.shape[-1], state.device
    deterministic = propagation == "expectation" and model.members == 1
    # asked for by name: against a protocol the question takes longer than a small plan's sums
    if value is None and hasattr(model, "unroll") and (propagation == "tsinf" or deterministic):
        return _native_score(
            cast(NativeDynamics, model),
            state,
            particles=particles,
            reduce=None if particles == 1 and objective == "mean" else reduce,
            noisy=propagation == "tsinf",
            horizon=horizon,
            discount=discount,
            reward=reward,
            terminated=terminated,
            terminal=terminal,
            generator=generator,
        )
    shape = (horizon, particles, 1, *noise_shape(model, propagation, size))
    check_memory(
        f"particles {particles}, horizon {horizon}: the noise of a plan",
        state.element_size() * math.prod(shape),
        device=device,
    )
    # drawn for expectation too, which takes none: a planner then goes on as with any other
    noise = torch.randn(shape, generator=generator, device=generator.device, dtype=state.dtype).to(
        device
    )
    assignments = draw_assignments(propagation, horizon, particles, generator)
    assignments = None if assignments is None else assignments.to(device)

    def score_block(actions: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and actions.requires_grad):
            returns = state.new_zeros(particles, len(actions))
            # sums of states: once not finite, never finite again
            sums = state.new_zeros(particles, len(actions), size)
            plans = actions.expand(particles, *actions.shape)
            step = None
            for t, step in enumerate(
                imagine(
                    model,
                    state.expand(particles, len(actions), size),
                    lambda t, _: plans[:, :, t],
                    horizon=actions.shape[1],
                    propagation=propagation,
                    noise=lambda t, _: noise[t],
                    assignments=assignments,
                    reward=reward,
                    terminated=terminated,
                    penalty=penalty,
                )
            ):
                last = 1 + terminal if t == actions.shape[1] - 1 else 1
                returns.add_(step.reward, alpha=last * discount**t)
                sums.add_(step.next_state.detach())
            if value is not None and step is not None:
                beyond = value(step.next_state)
                goes_on = step.alive & ~step.terminated
                weight = discount ** actions.shape[1]
                returns = returns + weight * torch.where(goes_on, beyond, 0.0)
            finite = (torch.isfinite(returns) & torch.isfinite(sums.sum(-1))).all(0)
            score = torch.where(finite, reduce(returns), -torch.inf)
            return score.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)

    def score(actions: Float[Tensor, "N H A"]) -> Float[Tensor, " N"]:
        _check_plans(actions, horizon)
        blocks = blocks_of(len(actions), model, propagation, particles, device)
        return torch.cat(parallel_map(score_block, [actions[block] for block in blocks]))

    return score


def _native_score(
    model: NativeDynamics,
    state: Float[Tensor, " S"],
    *,
    particles: int,
    reduce: Objective | None,
    noisy: bool,
    horizon: int,
    discount: float,
    reward: RewardFn | None,
    terminated: TerminatedFn | None,
    terminal: float,
    generator: Generator,
) -> Callable[[Float[Tensor, "N H A"]], Float[Tensor, " N"]]:
    """`score_fn` for a model that rolls whole sequences itself, candidates side by side."""
    noise = None
    if noisy and math.prod(model.noise_shape):
        shape = (horizon, particles, *model.noise_shape)
        noise = torch.randn(shape, generator=generator, device=generator.device)

    def score(actions: Float[Tensor, "N H A"]) -> Float[Tensor, " N"]:
        _check_plans(actions, horizon)
        earned, ended, finite = model.unroll(
            state, actions, particles=particles, noise=noise, reward=reward, terminated=terminated
        )
        if ended is not None:  # the step that ends a trajectory counts, those behind it do not
            before = ended.cumsum(-1) - ended.to(torch.long)
            earned = torch.where(before > 0, 0.0, earned)
        returns = torch.mv(
            earned.flatten(0, 1).to(state.dtype),
            _weights(actions.shape[1], discount, terminal, state.dtype, state.device),
        ).view(earned.shape[:2])
        if finite is not None:
            returns = torch.where(finite, returns, -torch.inf)
        returns = returns.nan_to_num_(-torch.inf, -torch.inf, -torch.inf)
        if reduce is None:  # the mean of one particle
            return returns[0].to(actions.dtype)
        return reduce(returns).nan_to_num(-torch.inf, -torch.inf, -torch.inf).to(actions.dtype)

    return score


@lru_cache(maxsize=64)
def _weights(
    horizon: int, discount: float, terminal: float, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, " H"]:
    """How much each reward counts in a return."""
    weights = discount ** torch.arange(horizon, dtype=dtype, device=device)
    weights[-1] *= 1 + terminal
    return weights


def _check_plans(actions: Tensor, horizon: int) -> None:
    if actions.ndim != 3 or not 1 <= actions.shape[1] <= horizon or not len(actions):
        raise ValueError(
            f"actions must be (N, H, A) with N >= 1 and 1 <= H <= {horizon}, "
            f"got {tuple(actions.shape)}"
        )
