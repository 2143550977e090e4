"""Branched rollouts: many short imagined trajectories from states that were really visited.

The general recipe of Dyna (Sutton 1990; Janner et al. 2019, MBPO): start states come from a replay
buffer, actions from the buffer, a policy or at random, and a trajectory stops at termination, at
the horizon, or where a rule says that the model is not to be trusted.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from jaxtyping import Bool, Float
from torch import Generator, Tensor

from mbrl.imagination.rollout import Halt, Imagined, rollout
from mbrl.types import Dynamics, Policy, RewardFn, TerminatedFn, Transition


class Branches(NamedTuple):
    """Imagined transitions, and what became of the trajectories."""

    transitions: Transition  # (T, ...)
    steps: float  # mean number of steps of a trajectory
    terminated: float  # share of the trajectories that the model ended
    halted: float  # share that the rule of trust cut off
    dropped: float  # share cut off because a state or a reward left all bounds


def branched(
    model: Dynamics,
    starts: Float[Tensor, "N S"],
    policy: Policy,
    *,
    horizon: int,
    first: Float[Tensor, "N A"] | None = None,
    propagation: Literal["ts1", "tsinf"] = "ts1",
    reward: RewardFn | None = None,
    terminated: TerminatedFn | None = None,
    halt: Halt | None = None,
    bounds: tuple[Float[Tensor, " S"], Float[Tensor, " S"]] | None = None,
    generator: Generator,
) -> Branches:
    """Transitions of one trajectory from each start state.

    With propagation "ts1" each step is taken by a member drawn anew, as in MBPO; with "tsinf" a
    trajectory stays with one.

    Args:
        model: of the states; its reward and termination count where none is given.
        starts: N states, a multiple of the model's members.
        policy: on model states; it explores.
        horizon: k, the most steps of a trajectory.
        first: the actions of the first step, such as those of the buffer; the policy's if None.
        propagation: see `mbrl.particles.Propagation`; the others take the mean over rows of
            different starts.
        reward: as in `rollout`.
        terminated: as in `rollout`.
        halt: as in `rollout`.
        bounds: least and greatest value of each dimension of a state. A step that leaves them, or
            is not finite, is dropped, and what follows it.
        generator: draws noise, members and what the policy draws.

    Raises:
        ValueError: a number of starts that is not a multiple of the members, a horizon below one,
            another propagation.
    """
    if propagation not in ("ts1", "tsinf"):
        raise ValueError(f"propagation: want ts1 or tsinf, got {propagation}")
    members = model.members
    if starts.ndim != 2 or not len(starts) or len(starts) % members:
        raise ValueError(
            f"starts must be (N, S) with N a multiple of the model's {members} members, "
            f"got {tuple(starts.shape)}"
        )
    imagined = rollout(
        model,
        starts.view(members, -1, starts.shape[-1]),
        policy,
        horizon=horizon,
        particles=members,
        propagation=propagation,
        reward=reward,
        terminated=terminated,
        first=None if first is None else first.view(members, -1, first.shape[-1]),
        halt=halt,
        generator=generator,
    )
    kept = trusted(imagined, bounds)
    dropped = (imagined.alive & ~kept).any(-1)
    steps, ended = kept.sum(-1), (kept & imagined.terminated).any(-1)
    halted = (steps < horizon) & ~ended & ~dropped
    shares = (x.float().mean() for x in (steps, ended, halted, dropped))
    transitions = imagined._replace(alive=kept).transitions()
    return Branches(transitions, *(float(share) for share in shares))


def trusted(
    imagined: Imagined, bounds: tuple[Float[Tensor, " S"], Float[Tensor, " S"]] | None
) -> Bool[Tensor, "P N H"]:
    """The steps that count, up to the first one that is not finite or leaves the bounds.

    Args:
        imagined: trajectories.
        bounds: least and greatest value of each dimension of a state; None: any.
    """
    after = imagined.state[..., 1:, :]
    sane = after.isfinite().all(-1) & imagined.reward.isfinite()
    if bounds is not None:
        low, high = bounds
        sane &= ((after >= low) & (after <= high)).all(-1)
    return imagined.alive & sane.cummin(-1).values


def members_multiple(count: int, members: int) -> int:
    """The least multiple of the members that is not below `count`."""
    return -(-count // members) * members
