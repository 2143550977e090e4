"""The rollout: a model and actions (or a policy) in, imagined trajectories out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from mbrl.imagination.objectives import disagreement
from mbrl.imagination.propagation import (
    Propagation,
    blocks_of,
    check_particles,
    draw_assignments,
    propagate,
)
from mbrl.parallel import parallel_map
from mbrl.types import Dynamics, GaussianDynamics, RewardFn, TerminatedFn

Policy = Callable[[Tensor, Generator], Tensor]
"""`policy(obs (P, n, O), generator) -> action (P, n, A)`."""


class Imagined(NamedTuple):
    """Imagined trajectories. Behind its end one stands still and earns 0."""

    state: Float[Tensor, "P N H+1 S"]
    action: Float[Tensor, "P N H A"]
    reward: Float[Tensor, "P N H"]
    terminated: Bool[Tensor, "P N H"]  # the step that ends the trajectory, once
    alive: Bool[Tensor, "P N H"]  # the step starts from a state that has not terminated

    def returns(self, discount: float = 1.0) -> Float[Tensor, "P N"]:
        """Discounted sum of the rewards that count."""
        powers = discount ** torch.arange(
            self.reward.shape[-1], device=self.reward.device, dtype=self.reward.dtype
        )
        return (self.reward * powers).sum(-1)


def rollout(
    model: Dynamics,
    state: Float[Tensor, "*N S"],
    actions_or_policy: Float[Tensor, "N H A"] | Policy,
    *,
    horizon: int | None = None,
    particles: int,
    propagation: Propagation = "tsinf",
    reward: RewardFn | None = None,
    terminated: TerminatedFn | None = None,
    penalty: float = 0.0,
    gradients: bool = False,
    generator: Generator,
) -> Imagined:
    """Imagined trajectories, P particles from each start state.

    Args:
        model: as in `score_fn`.
        state: (N, S), or (S,) for all candidates alike.
        actions_or_policy: action sequences, or a policy that is asked at every step.
        horizon: H; needed with a policy, taken from the actions without.
        particles: P, as in `score_fn`; each particle has noise of its own, drawn block by block
            (so the draws depend on `BLOCK_ROWS`).
        propagation: see `Propagation`.
        reward: as in `score_fn`.
        terminated: as in `score_fn`.
        penalty: as in `score_fn`; it is taken off `reward`.
        gradients: keep the graph, so that the outcome can be differentiated with respect to
            actions, policy and start states.
        generator: draws noise and dealing, and what the policy draws. Any device.

    Raises:
        ValueError: wrong shapes, particles that are not a multiple of the members, a horizon
            below one.
    """
    policy = actions_or_policy if callable(actions_or_policy) else None
    actions = None if callable(actions_or_policy) else actions_or_policy
    if state.ndim not in (1, 2):
        raise ValueError(f"state must be (S,) or (N, S), got {tuple(state.shape)}")
    if actions is not None:
        if actions.ndim != 3 or (state.ndim == 2 and len(actions) != len(state)):
            raise ValueError(
                f"actions must be (N, H, A) with N as in state {tuple(state.shape)}, "
                f"got {tuple(actions.shape)}"
            )
        if horizon not in (None, actions.shape[1]):
            raise ValueError(f"horizon {horizon} is not that of actions {tuple(actions.shape)}")
        horizon = actions.shape[1]
        state = state.expand(len(actions), -1)
    elif state.ndim == 1:
        state = state.unsqueeze(0)
    if horizon is None:
        raise ValueError("horizon is needed with a policy")
    particles = check_particles(model, propagation, particles, horizon, penalty)
    blocks = blocks_of(len(state), model, propagation, particles, state.device)
    if gradients:
        blocks = [slice(0, len(state))]
    seeds = torch.randint(
        2**62, (len(blocks),), generator=generator, device=generator.device
    ).tolist()

    def roll_block(task: tuple[slice, int]) -> Imagined:
        block, seed = task
        own = torch.Generator(state.device).manual_seed(seed)
        start = state[block].expand(particles, *state[block].shape)
        assignments = draw_assignments(
            propagation, horizon, particles, torch.Generator().manual_seed(seed)
        )

        def act(t: int, obs: Tensor) -> Tensor:
            if policy is not None:
                return policy(obs, own)
            assert actions is not None
            return actions[block, t].expand(particles, *actions[block, t].shape)

        steps = list(
            unroll(
                model,
                start,
                act,
                horizon=horizon,
                propagation=propagation,
                noise=lambda _: torch.randn(
                    start.shape, generator=own, dtype=start.dtype, device=start.device
                ),
                assignments=None if assignments is None else assignments.to(state.device),
                reward=reward,
                terminated=terminated,
                penalty=penalty,
            )
        )
        return Imagined(
            torch.stack([start, *(step.next_state for step in steps)], 2),
            torch.stack([step.action for step in steps], 2),
            torch.stack([step.reward for step in steps], 2),
            torch.stack([step.terminated for step in steps], 2),
            torch.stack([step.alive for step in steps], 2),
        )

    with torch.set_grad_enabled(gradients):
        parts = parallel_map(roll_block, list(zip(blocks, seeds, strict=True)))
    return Imagined(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))


class ImaginedStep(NamedTuple):
    """One step of a block of candidates."""

    action: Tensor  # (P, n, A)
    next_state: Tensor  # (P, n, S)
    reward: Tensor  # (P, n)
    terminated: Tensor  # (P, n)
    alive: Tensor  # (P, n)


def unroll(
    model: Dynamics,
    state: Float[Tensor, "P n S"],
    act: Callable[[int, Tensor], Tensor],
    *,
    horizon: int,
    propagation: Propagation,
    noise: Callable[[int], Tensor],
    assignments: Int[Tensor, "H P"] | None,
    reward: RewardFn | None,
    terminated: TerminatedFn | None,
    penalty: float,
) -> Iterator[ImaginedStep]:
    """Step a block over the horizon; the reward is less the penalty, and 0 behind the end."""
    alive, anyone_ended = torch.ones(state.shape[:-1], dtype=torch.bool, device=state.device), False
    obs = model.decode(state)
    for t in range(horizon):
        action = act(t, obs)
        assignment = None if assignments is None else assignments[t]
        own = terminated is None
        step = propagate(model, state, action, noise(t), alive, assignment, propagation, own)
        next_state = step.state
        if anyone_ended:  # what has ended stays where it ended, lest it blow up unseen
            next_state = torch.where(alive.unsqueeze(-1), next_state, state)
        next_obs = model.decode(next_state)
        gain = step.reward if reward is None else reward(obs, action, next_obs)
        ended = step.terminated if terminated is None else terminated(next_obs)
        if penalty:
            gain = gain - penalty * disagreement(cast(GaussianDynamics, model), state, action)
        if anyone_ended:
            gain, ended = torch.where(alive, gain, 0.0), ended & alive
        yield ImaginedStep(action, next_state, gain, ended, alive)
        # on an accelerator, to ask whether anyone has would cost more than to assume it
        if ended.is_cuda or bool(ended.any()):
            alive, anyone_ended = alive & ~ended, True
        state, obs = next_state, next_obs
