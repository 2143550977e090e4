"""The rollout: a model and actions (or a policy) in, imagined trajectories or scores out.

Chua et al. 2018 (PETS), section 5, for the propagations. Particles are laid out (P, n, S) with
P a multiple of the E members, so that (E, P/E · n, S) is a view and dealing particles to members
is a permutation of leading blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple, cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from mbrl.parallel import parallel_map
from mbrl.types import (
    Dynamics,
    Gaussian,
    GaussianDynamics,
    NativeDynamics,
    RewardFn,
    Step,
    TerminatedFn,
)

Propagation = Literal["ts1", "tsinf", "expectation", "moment", "distribution"]
"""How particles travel.

ts1: each particle is dealt to a member anew at every step, members evenly used.
tsinf: each particle stays with its member.
expectation: one particle, the mean over members of their means.
moment: all particles are redrawn each step from one Gaussian that has the mean and variance of
    their joint prediction (across particles and members; those that have ended do not count).
distribution: each particle is seen by all members and redrawn from the Gaussian that has the
    mean and variance of their mixture at that particle.
"""

Policy = Callable[[Tensor, Generator], Tensor]
"""`policy(obs (P, n, O), generator) -> action (P, n, A)`."""

Objective = Callable[[Float[Tensor, "P N"]], Float[Tensor, "N"]]
"""What a candidate is worth, from its particles' returns."""

BLOCK_ROWS = 256
"""Rows a member takes at a time: weights and activations then stay in a core's cache."""


SPLIT_ROWS = 128
"""Fewer rows than this are not worth a second worker."""


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


def objective(name: str) -> Objective:
    """An objective by name.

    `mean`; `worst`, the least return; `cvar:α`, the mean of the worst share α of the returns
    (Rockafellar & Uryasev 2000; the particle on the edge counts in part); `mean+std:λ` and
    `mean-std:λ`, optimism and caution (population std).

    Raises:
        ValueError: another name, or a parameter out of range.
    """
    kind, _, text = name.partition(":")
    try:
        value = float(text) if text else 1.0
    except ValueError:
        value = float("nan")
    if kind == "mean" and not text:
        return lambda returns: returns.mean(0)
    if kind == "worst" and not text:
        return lambda returns: returns.amin(0)
    if kind == "cvar" and 0 < value <= 1:
        return lambda returns: _cvar(returns, value)
    if kind in ("mean+std", "mean-std") and value >= 0:
        weight = value if kind == "mean+std" else -value
        return lambda returns: returns.mean(0) + weight * returns.std(0, correction=0)
    raise ValueError(
        f"objective {name!r} is unknown; take mean, worst, cvar:α (0 < α <= 1), "
        "mean+std:λ or mean-std:λ (λ >= 0)"
    )


def _cvar(returns: Float[Tensor, "P N"], share: float) -> Float[Tensor, N]:
    count = share * len(returns)
    weight = (count - torch.arange(len(returns), device=returns.device)).clamp(0, 1)
    return (returns.sort(0).values * weight.to(returns).unsqueeze(-1)).sum(0) / count


@torch.no_grad()
def score_fn(
    model: Dynamics,
    state: Float[Tensor, S],
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
    generator: Generator,
) -> Callable[[Float[Tensor, "N H A"]], Float[Tensor, N]]:
    """What a planner maximises: the objective over the imagined returns from one state.

    All noise and all dealing are drawn here, once, and are the same for every candidate: the
    score is then a pure function, differences between candidates are not blurred by luck, and a
    candidate may be scored in any block on any worker.

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
        generator: draws noise and dealing.

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
    particles = _particles(model, propagation, particles, horizon, penalty)
    reduce = _objective(objective)
    size, device = state.shape[-1], state.device
    deterministic = propagation == "expectation" and model.members == 1
    # asked for by name: against a protocol the question takes longer than a small plan's sums
    if hasattr(model, "unroll") and (propagation == "tsinf" or deterministic):
        return _native_score(
            cast(NativeDynamics, model),
            state,
            particles=particles,
            reduce=reduce,
            noisy=propagation == "tsinf",
            horizon=horizon,
            discount=discount,
            reward=reward,
            terminated=terminated,
            terminal=terminal,
            generator=generator,
        )
    noise = torch.randn(
        (horizon, particles, 1, size),
        generator=generator,
        device=generator.device,
        dtype=state.dtype,
    ).to(device)
    deals = _deals(propagation, horizon, particles, generator)
    deals = None if deals is None else deals.to(device)

    def score_block(actions: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and actions.requires_grad):
            returns = state.new_zeros(particles, len(actions))
            health = torch.zeros_like(returns)
            plans = actions.expand(particles, *actions.shape)
            for t, step in enumerate(
                _unroll(
                    model,
                    state.expand(particles, len(actions), size),
                    lambda t, _: plans[:, :, t],
                    horizon=actions.shape[1],
                    propagation=propagation,
                    noise=lambda t: noise[t],
                    deals=deals,
                    reward=reward,
                    terminated=terminated,
                    penalty=penalty,
                )
            ):
                last = 1 + terminal if t == actions.shape[1] - 1 else 1
                returns.add_(step.reward, alpha=last * discount**t)
                health.add_(step.next_state.sum(-1))  # once not finite, never finite again
            finite = (torch.isfinite(returns) & torch.isfinite(health)).all(0)
            score = torch.where(finite, reduce(returns), -torch.inf)
            return score.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)

    def score(actions: Float[Tensor, "N H A"]) -> Float[Tensor, N]:
        _check_plans(actions, horizon)
        blocks = _blocks(len(actions), model, propagation, particles, device)
        return torch.cat(parallel_map(score_block, [actions[block] for block in blocks]))

    return score


def _native_score(
    model: NativeDynamics,
    state: Float[Tensor, S],
    *,
    particles: int,
    reduce: Objective,
    noisy: bool,
    horizon: int,
    discount: float,
    reward: RewardFn | None,
    terminated: TerminatedFn | None,
    terminal: float,
    generator: Generator,
) -> Callable[[Float[Tensor, "N H A"]], Float[Tensor, N]]:
    """`score_fn` for a model that rolls whole sequences itself, candidates side by side."""
    noise = None
    if noisy and math.prod(model.noise_shape):
        shape = (horizon, particles, *model.noise_shape)
        noise = torch.randn(shape, generator=generator, device=generator.device)

    def score(actions: Float[Tensor, "N H A"]) -> Float[Tensor, N]:
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
        score = reduce(returns.nan_to_num_(-torch.inf, -torch.inf, -torch.inf))
        return score.nan_to_num(-torch.inf, -torch.inf, -torch.inf).to(actions.dtype)

    return score


@lru_cache(maxsize=64)
def _weights(
    horizon: int, discount: float, terminal: float, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, H]:
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
    particles = _particles(model, propagation, particles, horizon, penalty)
    blocks = _blocks(len(state), model, propagation, particles, state.device)
    if gradients:
        blocks = [slice(0, len(state))]
    seeds = torch.randint(
        2**62, (len(blocks),), generator=generator, device=generator.device
    ).tolist()

    def roll_block(task: tuple[slice, int]) -> Imagined:
        block, seed = task
        own = torch.Generator(state.device).manual_seed(seed)
        start = state[block].expand(particles, *state[block].shape)
        deals = _deals(propagation, horizon, particles, torch.Generator().manual_seed(seed))

        def act(t: int, obs: Tensor) -> Tensor:
            if policy is not None:
                return policy(obs, own)
            assert actions is not None
            return actions[block, t].expand(particles, *actions[block, t].shape)

        steps = list(
            _unroll(
                model,
                start,
                act,
                horizon=horizon,
                propagation=propagation,
                noise=lambda _: torch.randn(
                    start.shape, generator=own, dtype=start.dtype, device=start.device
                ),
                deals=None if deals is None else deals.to(state.device),
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


def disagreement(
    model: GaussianDynamics, state: Float[Tensor, "*lead S"], action: Float[Tensor, "*lead A"]
) -> Float[Tensor, "*lead"]:
    """How far the members' means of the next state lie apart, the epistemic part alone.

    The root mean square over state dimensions of the population std across members, each
    dimension in units of `model.scale` (S,) where the model has one.
    """
    lead = state.shape[:-1]
    rows = state.reshape(-1, state.shape[-1]).expand(model.members, -1, -1)
    mean = model.predict(rows, action.reshape(-1, action.shape[-1]).expand(*rows.shape[:2], -1))
    std = mean.mean[..., : state.shape[-1]].std(0, correction=0)
    return (std / getattr(model, "scale", 1.0)).square().mean(-1).sqrt().view(lead)


class _Imagined(NamedTuple):
    """One step of a block of candidates."""

    action: Tensor  # (P, n, A)
    next_state: Tensor  # (P, n, S)
    reward: Tensor  # (P, n)
    terminated: Tensor  # (P, n)
    alive: Tensor  # (P, n)


def _unroll(
    model: Dynamics,
    state: Float[Tensor, "P n S"],
    act: Callable[[int, Tensor], Tensor],
    *,
    horizon: int,
    propagation: Propagation,
    noise: Callable[[int], Tensor],
    deals: Int[Tensor, "H P"] | None,
    reward: RewardFn | None,
    terminated: TerminatedFn | None,
    penalty: float,
) -> Iterator[_Imagined]:
    """Step a block over the horizon; the reward is less the penalty, and 0 behind the end."""
    alive, anyone_ended = torch.ones(state.shape[:-1], dtype=torch.bool, device=state.device), False
    obs = model.decode(state)
    for t in range(horizon):
        action = act(t, obs)
        deal = None if deals is None else deals[t]
        own = terminated is None
        step = _propagate(model, state, action, noise(t), alive, deal, propagation, own)
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
        yield _Imagined(action, next_state, gain, ended, alive)
        # on an accelerator, to ask whether anyone has would cost more than to assume it
        if ended.is_cuda or bool(ended.any()):
            alive, anyone_ended = alive & ~ended, True
        state, obs = next_state, next_obs


def _propagate(
    model: Dynamics,
    state: Float[Tensor, "P n S"],
    action: Float[Tensor, "P n A"],
    noise: Float[Tensor, "P _ S"],
    alive: Bool[Tensor, "P n"],
    deal: Int[Tensor, P] | None,
    propagation: Propagation,
    own_termination: bool,
) -> Step:
    """One step of all particles, (P, n, ...) in and out."""
    particles, count, size = state.shape
    members = model.members
    if propagation in ("expectation", "distribution"):
        # every member sees every particle
        rows = state.reshape(1, -1, size).expand(members, -1, -1)
        moves = action.reshape(1, -1, action.shape[-1]).expand(members, -1, -1)
        shape = (members, particles, count)
    else:
        if deal is not None:
            state, action = state.index_select(0, deal), action.index_select(0, deal)
        rows = state.reshape(members, -1, size)  # (E, P/E · n, S)
        moves = action.reshape(members, -1, action.shape[-1])
        shape = (1, particles, count)
    if propagation in ("ts1", "tsinf"):
        noise = noise.expand(particles, count, size).reshape(rows.shape)
        step = model.step(rows, moves, noise=noise)
        back = None if deal is None else deal.argsort()
        return Step(*(_restore(part, (particles, count), back) for part in step))
    if propagation == "expectation":
        step = model.step(rows, moves, noise=None)
        parts = [part.view(*shape, *part.shape[2:]) for part in step]
        return Step(parts[0].mean(0), parts[1].mean(0), parts[2].float().mean(0) > 0.5)
    gaussian = cast(GaussianDynamics, model).predict(rows, moves)
    mean, std = (part.view(*shape, -1) for part in gaussian)
    if propagation == "moment":
        counts = alive if deal is None else alive.index_select(0, deal)
        refit = _refit(mean, std, (0, 1), counts.view(*shape, 1))
    else:
        refit = _refit(mean, std, (0,), torch.ones_like(mean[..., :1], dtype=torch.bool))
    drawn = refit.mean[..., :size] + refit.std[..., :size] * noise
    drawn = drawn.expand(particles, count, size)
    gain = refit.mean[..., size].expand(particles, count)
    ends = torch.zeros_like(gain, dtype=torch.bool)
    if own_termination:
        step = model.step(rows, moves, noise=None)
        ends = step.terminated.view(shape).float().mean(0) > 0.5
        ends = ends if deal is None else ends.index_select(0, deal.argsort())
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


def _particles(
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
    dealt = propagation != "distribution"
    if particles < 1 or (dealt and particles % model.members):
        raise ValueError(
            f"particles must be a positive multiple of the model's {model.members} members, "
            f"got {particles}"
        )
    return particles


def _objective(wanted: str | Objective) -> Objective:
    return objective(wanted) if isinstance(wanted, str) else wanted


def _deals(
    propagation: Propagation, horizon: int, particles: int, generator: Generator
) -> Int[Tensor, "H P"] | None:
    """Which particle each member's blocks take at each step, for those that re-deal."""
    if propagation not in ("ts1", "moment"):
        return None
    uniform = torch.rand(horizon, particles, generator=generator, device=generator.device)
    return uniform.argsort(-1)


def _blocks(
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
