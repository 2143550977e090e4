"""An audit of a run's model: calibration along rollouts, what is not known, who exploits it.

The numbers are of fresh episodes: the agent's own, and episodes of random actions. Half of the
agent's own (those with even numbers) also fit a recalibration of each step ahead, which is judged
on the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.agents import RandomAgent
from mbrl.data import moments
from mbrl.dynamics.recalibrated import Kind
from mbrl.evaluation import Episode, check_vectors, plan_returns, record
from mbrl.imagination import recalibrate_ahead, rollout
from mbrl.rng import generator
from mbrl.spaces import spec_of
from mbrl.training.seeds import Interruptible
from mbrl.types import Dynamics, PlanningAgent, RewardFn, Transition
from mbrl.uncertainty import calibration_curve, calibration_error, particle_spread, rank_correlation

LEVELS = torch.linspace(0.05, 0.95, 19, dtype=torch.double)
PARTICLES = 40
"""Particles of a member."""
STARTS = 500
"""The most starts of imagined trajectories."""


class Ahead(NamedTuple):
    """Predictions 1..H steps ahead along actions that were really taken."""

    calibration: Float[Tensor, " H"]
    """Calibration error, mean over dimensions."""
    observed: Float[Tensor, "H L"]
    """Share of observations within the central interval of each of `LEVELS`, of all dimensions."""
    error: Float[Tensor, " H"]
    """Root mean square error of the particles' mean, in units of the observations' std."""
    aleatoric: Float[Tensor, " H"]
    """Variance by noise, mean over dimensions, in these units squared."""
    epistemic: Float[Tensor, " H"]
    """Variance between members."""
    orders: float
    """Rank correlation of epistemic variance and error, over starts, after the last step; nan where
    one of them is the same everywhere."""
    predicted: Float[Tensor, " N"]
    """Return of the H steps, in the model."""
    realised: Float[Tensor, " N"]
    """Return of these steps in the environment."""


class Audit(NamedTuple):
    """What `audit` found."""

    own: Ahead
    """In the agent's own episodes."""
    random: Ahead
    """In episodes of random actions."""
    recalibrated: Ahead | None
    """Own episodes with odd numbers, by the recalibrated model; None for a model without any
    spread, or if not both halves have an episode longer than H."""
    before: Ahead | None
    """The same episodes by the model as it is."""
    levels: Float[Tensor, " L"]
    """`LEVELS`, of `observed`."""
    drives: Float[Tensor, " O"]
    """How much the predicted change depends on each observation: its root mean square difference,
    in units of the change's std, when this observation is exchanged between steps."""
    promised: tuple[list[float], list[float]]
    """Score of each plan, and the return of as many steps as it has; empty for an agent that does
    not plan."""
    returns: list[float]
    """Returns of the agent's episodes."""


def audit(
    agent: Any,
    env: gymnasium.Env | VectorEnv,
    *,
    episodes: int,
    seed: int,
    horizon: int | None = None,
    kind: Kind = "isotonic",
    device: torch.device | str = "cpu",
) -> Audit:
    """Play episodes with an agent's player and at random, and measure its model in them.

    Args:
        agent: a `ModelBased` agent whose model is fitted.
        env: one environment.
        episodes: of each kind, at least one.
        seed: seed of the episodes and of all draws.
        horizon: H; that of the agent's plans if None, and 25 without plans.
        kind: of recalibration; see `recalibrate`.
        device: device of the model.

    Raises:
        ValueError: a model whose states are not observations; episodes that are all shorter than
            the horizon; see also `ahead`.
    """
    model, reward = agent.model, agent.reward
    space = spec_of(env).obs
    seen = torch.zeros(space.shape or (), dtype=torch.float32, device=device)
    if space.dtype == np.uint8:
        seen = seen.byte()
    if model.encode(seen).shape != seen.shape:
        raise ValueError(
            f"the states of a {type(model).__name__} are not observations, so it cannot be "
            f"audited; mbrl plot shows its errors"
        )
    player = agent.player(generator=generator(seed, 1))
    span, planned, discount = horizon or 25, 0, 1.0
    if isinstance(agent, PlanningAgent):
        planned = agent.mpc.planner.horizon * agent.mpc.action_repeat
        span, discount = horizon or planned, agent.config.mpc.discount
    uniform = RandomAgent(spec_of(env).action, generator=Generator().manual_seed(seed))
    own, random = (
        record(Interruptible(who), env, episodes=episodes, seed=seed, first=first)
        for who, first in ((player, 0), (uniform, episodes))
    )
    check_vectors(own)
    draw = generator(seed, 2)
    ways = {"horizon": span, "reward": reward, "device": device, "generator": draw}
    changed = before = None
    held, fresh = own[::2], own[1::2]
    if fresh and min(max(len(e.obs) for e in half) for half in (held, fresh)) > span:
        before = ahead(model, fresh, **ways)
        if bool((before.aleatoric + before.epistemic > 0).all()):
            obs, action = (part.to(device) for part in pieces(held, span)[:2])
            other = recalibrate_ahead(
                model, obs, action, kind, particles=PARTICLES * model.members, generator=draw
            )
            changed = ahead(other, fresh, **ways)
    return Audit(
        ahead(model, own, **ways),
        ahead(model, random, **ways),
        changed,
        before,
        LEVELS,
        drives(model, own, device=device, generator=draw),
        plan_returns(own, planned, discount=discount),
        [float(episode.reward.sum()) for episode in own],
    )


def pieces(
    played: Sequence[Episode], horizon: int
) -> tuple[Float[Tensor, "N H+1 O"], Float[Tensor, "N H A"], Float[Tensor, "N H"]]:
    """Observations, actions and rewards of pieces of episodes with `horizon` steps, float32.

    There are `STARTS` at most, evenly spaced.

    Raises:
        ValueError: no episode has so many steps.
    """
    places = [(e, t) for e in played for t in range(len(e.obs) - horizon + 1)]
    if not places:
        longest = max(len(episode.obs) for episode in played)
        raise ValueError(f"horizon: the longest episode has {longest} steps, got {horizon}")
    places = places[:: -(-len(places) // STARTS)]
    obs = [torch.cat((e.obs[t : t + 1], e.next_obs[t : t + horizon])) for e, t in places]
    action = [e.action[t : t + horizon] for e, t in places]
    reward = [e.reward[t : t + horizon] for e, t in places]
    return tuple(torch.stack(part).float() for part in (obs, action, reward))  # type: ignore


def steps_of(played: Sequence[Episode]) -> Transition:
    """The steps of episodes as transitions (T,), float32; none of them ends."""
    obs, action, reward, next_obs = (
        torch.cat([getattr(episode, name) for episode in played]).float()
        for name in ("obs", "action", "reward", "next_obs")
    )
    never = torch.zeros(len(reward), dtype=torch.bool)
    return Transition(obs, action, reward, next_obs, never, never)


def ahead(
    model: Dynamics,
    played: Sequence[Episode],
    *,
    horizon: int,
    reward: RewardFn | None = None,
    device: torch.device | str = "cpu",
    generator: Generator,
) -> Ahead:
    """Imagine the actions of episodes from steps in them, with TS∞, and compare.

    Args:
        model: any model of the observations.
        played: episodes, of which `pieces` are taken.
        horizon: H.
        reward: as in `rollout`; the model's own if None.
        device: device of the model.
        generator: draws noise.

    Raises:
        ValueError: no episode has so many steps; actions that are indices; imagined states that are
            not finite.
    """
    check_vectors(played)
    obs, actions, reward_of = pieces(played, horizon)
    start, truth, realised = obs[:, 0], obs[:, 1:].double(), reward_of.double().sum(1)
    imagined = rollout(
        model,
        start.to(device),
        actions.to(device),
        particles=PARTICLES * model.members,
        propagation="tsinf",
        reward=reward,
        generator=generator,
    )
    scale = moments(torch.cat([episode.obs for episode in played]))[1]
    moves = scale > 0  # a constant observation is predicted exactly, or has no unit
    states = imagined.state[:, :, 1:].cpu().double()[..., moves] / scale[moves]  # (P, N, H, O)
    if not bool(states.isfinite().all()):
        first = int(states.isfinite().all(-1).all(0).all(0).nonzero().numel()) + 1
        raise ValueError(
            f"horizon: imagined states are not finite from step {first} on; take fewer"
        )
    aim = truth[..., moves] / scale[moves]
    still = torch.zeros_like(states)
    curves = [
        calibration_curve(states[:, :, k], still[:, :, k], aim[:, k], LEVELS)
        for k in range(horizon)
    ]
    error = (states.mean(0) - aim).square().mean(-1)  # (N, H)
    parts = particle_spread(states, members=model.members)
    doubt = parts.epistemic.mean(-1)
    last = doubt[:, -1], error[:, -1]
    ordered = all(len(part) > 1 and float(part.std()) > 0 for part in last)
    return Ahead(
        torch.stack([calibration_error(LEVELS, curve).mean() for curve in curves]),
        torch.stack([curve.mean(-1) for curve in curves]),
        error.mean(0).sqrt(),
        parts.aleatoric.mean((0, 2)),
        doubt.mean(0),
        rank_correlation(*last) if ordered else float("nan"),
        imagined.returns().mean(0).cpu().double(),
        realised,
    )


def drives(
    model: Dynamics,
    played: Sequence[Episode],
    *,
    device: torch.device | str = "cpu",
    generator: Generator,
) -> Float[Tensor, " O"]:
    """How much the predicted change depends on each observation (Breiman 2001, permutation).

    The root mean square difference of the members' mean change, in units of the std of the change
    of each dimension, when the values of one observation are exchanged at random between steps.
    """
    data = steps_of(played)
    order = torch.randperm(len(data.reward), generator=generator)[:1000]
    obs, action = data.obs[order].to(device), data.action[order].to(device)

    def change(obs: Tensor) -> Tensor:
        lead = (model.members, -1, -1)
        with torch.no_grad():
            state = model.encode(obs)
            after = model.step(state.expand(*lead), action.expand(*lead), noise=None).state
            return (model.decode(after) - obs).mean(0).cpu().double()

    plain = change(obs)
    unit = moments((data.next_obs - data.obs).double())[1]
    moves, found = unit > 0, []
    for dimension in range(obs.shape[1]):
        mixed = obs.clone()
        shuffled = torch.randperm(len(obs), generator=generator).to(obs.device)
        mixed[:, dimension] = obs[shuffled, dimension]
        apart = (change(mixed) - plain)[:, moves] / unit[moves]
        found.append(apart.square().mean().sqrt())
    return torch.stack(found)
