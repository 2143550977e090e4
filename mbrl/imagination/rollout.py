"""The rollout: a model and actions (or a policy) in, imagined trajectories out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from mbrl.imagination.objectives import disagreement
from mbrl.imagination.propagation import (
    blocks_of,
    check_particles,
    draw_assignments,
    noise_shape,
    propagate,
)
from mbrl.parallel import parallel_map
from mbrl.particles import Propagation
from mbrl.types import (
    DistinctWorlds,
    Dynamics,
    GaussianDynamics,
    Policy,
    Postprocessed,
    RewardFn,
    TerminatedFn,
    Transition,
)

DROP = 0.75
"""Once no more than this share of the trajectories goes on, the ended ones are left out."""

DROP_ROWS = 64
"""In a block of fewer rows, particles times candidates, ended ones are stepped on: to leave them
out takes longer than to step them."""


HaltStep = Callable[[int, Tensor, Tensor, Tensor | None], Tensor]
"""`halt(t, state, action, rows)`, (P, n) bool: which trajectories end before step t. `rows` (n,)
says which candidates of the block these are, None all of them. It is asked at t = 0, 1, ..."""

Halt = Callable[[], HaltStep]
"""Begins a block of trajectories, which may be one of many at work side by side."""


class Imagined(NamedTuple):
    """Imagined trajectories.

    After its end a trajectory stays in its last state and earns 0; the actions that a policy takes
    there mean nothing.
    """

    state: Float[Tensor, "P N H+1 S"]
    action: Float[Tensor, "P N H A"]
    reward: Float[Tensor, "P N H"]
    terminated: Bool[Tensor, "P N H"]  # the step that ends the trajectory, once
    alive: Bool[Tensor, "P N H"]  # the step counts: the trajectory has not ended before it

    def returns(self, discount: float = 1.0) -> Float[Tensor, "P N"]:
        """Discounted sum of the rewards that count."""
        powers = discount ** torch.arange(
            self.reward.shape[-1], device=self.reward.device, dtype=self.reward.dtype
        )
        return (self.reward * powers).sum(-1)

    def transitions(self) -> Transition:
        """All steps up to the ends of their trajectories, as rows (T, ...), in model states.

        A trajectory that did not terminate is truncated by its last step.
        """
        last = torch.ones_like(self.alive)
        last[..., :-1] = ~self.alive[..., 1:]
        truncated = last & ~self.terminated
        before, after = self.state[..., :-1, :], self.state[..., 1:, :]
        parts = (before, self.action, self.reward, after, self.terminated, truncated)
        return Transition(*(part[self.alive] for part in parts))


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
    sample: bool = True,
    explore: bool = True,
    first: Float[Tensor, "P N A"] | None = None,
    halt: Halt | None = None,
    gradients: bool = False,
    generator: Generator,
) -> Imagined:
    """Imagined trajectories, P particles from each start state.

    States are decoded only where `reward` or `terminated` is given.

    Args:
        model: as in `score_fn`.
        state: (N, S); (S,) for all candidates alike; or (P, N, S) where each particle has a
            start of its own.
        actions_or_policy: action sequences, or a policy on model states, which is asked at every
            step for particles (P, n, S). One that acts on observations decodes them itself.
        horizon: H; needed with a policy, taken from the actions without.
        particles: P, as in `score_fn`; each particle has noise of its own, drawn block by block
            (so the draws depend on `BLOCK_ROWS`).
        propagation: see `Propagation`.
        reward: as in `score_fn`.
        terminated: as in `score_fn`.
        penalty: as in `score_fn`; it is taken off `reward`.
        sample: draw the model's noise; without, each step is to the mean, and nothing is
            postprocessed.
        explore: handed to the policy.
        first: actions of the first step, instead of the policy's.
        halt: cuts trajectories off where the model is not to be trusted; see `Halt`.
        gradients: keep the graph, so that the outcome can be differentiated with respect to
            actions, the policy's parameters, start states and the model's weights.
        generator: draws noise and assignments, and what the policy draws. Any device.

    Raises:
        ValueError: wrong shapes, particles that are not a multiple of the members, a horizon
            below one, a start for each particle with a model that is `Postprocessed`.
    """
    policy = actions_or_policy if callable(actions_or_policy) else None
    actions = None if callable(actions_or_policy) else actions_or_policy
    if state.ndim not in (1, 2, 3):
        raise ValueError(f"state must be (S,), (N, S) or (P, N, S), got {tuple(state.shape)}")
    if actions is not None:
        if actions.ndim != 3 or (state.ndim > 1 and len(actions) != state.shape[-2]):
            raise ValueError(
                f"actions must be (N, H, A) with N as in state {tuple(state.shape)}, "
                f"got {tuple(actions.shape)}"
            )
        if horizon not in (None, actions.shape[1]):
            raise ValueError(f"horizon {horizon} is not that of actions {tuple(actions.shape)}")
        horizon = actions.shape[1]
        if state.ndim == 1:
            state = state.expand(len(actions), -1)
    elif state.ndim == 1:
        state = state.unsqueeze(0)
    if horizon is None:
        raise ValueError("horizon is needed with a policy")
    particles = check_particles(model, propagation, particles, horizon, penalty)
    if state.ndim == 3 and len(state) != particles:
        raise ValueError(
            f"state (P, N, S) must have P = {particles} particles, got {tuple(state.shape)}"
        )
    if state.ndim == 3 and sample and isinstance(model, Postprocessed):
        raise ValueError(
            f"state (P, N, S): the {type(model).__name__} corrects particles of one start, "
            f"and these have starts of their own"
        )
    count, size = state.shape[-2:]
    drawn = noise_shape(model, propagation, size)
    blocks = blocks_of(count, model, propagation, particles, state.device)
    if gradients:
        blocks = [slice(0, count)]
    if sample or policy is not None or propagation in ("ts1", "moment"):
        seeds = torch.randint(
            2**62, (len(blocks),), generator=generator, device=generator.device
        ).tolist()
    else:  # nothing is drawn
        seeds = [0] * len(blocks)

    def roll_block(task: tuple[slice, int]) -> Imagined:
        block, seed = task
        own = torch.Generator(state.device).manual_seed(seed)
        start = state[..., block, :].expand(particles, -1, -1)
        assignments = None
        if propagation in ("ts1", "moment"):
            assigner = torch.Generator().manual_seed(seed)
            assignments = draw_assignments(propagation, horizon, particles, assigner)

        def act(t: int, state: Tensor) -> Tensor:
            if first is not None and t == 0:
                return first[:, block]
            if policy is not None:
                return policy(state, generator=own, explore=explore)
            assert actions is not None
            return actions[block, t].expand(particles, *actions[block, t].shape)

        def noise(_: int, rows: Tensor | None) -> Tensor | None:
            if not sample:
                return None
            options = {"generator": own, "dtype": start.dtype, "device": start.device}
            draws = torch.randn((*start.shape[:2], *drawn), **options)
            return draws if rows is None else draws[:, rows]

        steps = imagine(
            model,
            start,
            act,
            horizon=horizon,
            propagation=propagation,
            noise=noise,
            assignments=None if assignments is None else assignments.to(state.device),
            reward=reward,
            terminated=terminated,
            penalty=penalty,
            halt=None if halt is None else halt(),
            drop=policy is not None and not gradients and particles * start.shape[1] >= DROP_ROWS,
            postprocess=sample,
        )
        imagined = _collect(start, steps, horizon)
        if actions is None:
            return imagined
        return imagined._replace(action=actions[block].expand(particles, -1, -1, -1))

    with torch.set_grad_enabled(gradients):
        parts = parallel_map(roll_block, list(zip(blocks, seeds, strict=True)))
    if len(parts) == 1:
        return parts[0]
    return Imagined(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))


def state_ahead(
    model: Dynamics,
    state: Float[Tensor, " S"],
    actions: Float[Tensor, "H A"],
    *,
    generator: Generator,
) -> Float[Tensor, " S"]:
    """The model state that actions lead to, without noise.

    Members usually are estimates of one world, so the mean over members is taken at each step.
    Where they are different worlds, as in a randomised simulator, only the member that is the real
    one counts (`DistinctWorlds.nominal`).

    Raises ValueError as `rollout` does.
    """
    nominal = model.nominal if isinstance(model, DistinctWorlds) else None
    imagined = rollout(
        model,
        state,
        actions[None],
        particles=model.members,
        propagation="expectation" if nominal is None else "tsinf",
        sample=False,
        generator=generator,
    )
    return imagined.state[nominal or 0, 0, -1]


class ImaginedStep(NamedTuple):
    """One step of those candidates of a block that go on."""

    action: Float[Tensor, "P n A"]
    next_state: Float[Tensor, "P n S"]
    reward: Float[Tensor, "P n"]
    terminated: Bool[Tensor, "P n"]
    alive: Bool[Tensor, "P n"]
    rows: Int[Tensor, " n"] | None  # which candidates of the block these are; None for all


def imagine(
    model: Dynamics,
    state: Float[Tensor, "P n S"],
    act: Callable[[int, Tensor], Tensor],
    *,
    horizon: int,
    propagation: Propagation,
    noise: Callable[[int, Tensor | None], Tensor | None],
    assignments: Int[Tensor, "H P"] | None,
    reward: RewardFn | None,
    terminated: TerminatedFn | None,
    penalty: float,
    halt: HaltStep | None = None,
    drop: bool = False,
    postprocess: bool = True,
) -> Iterator[ImaginedStep]:
    """Step a block of candidates until the horizon, or until all of them have ended.

    The reward is less the penalty, and 0 after the end. A step that is halted does not count. With
    `drop`, candidates that have ended in every particle are not stepped on; `act(t, state)` and
    `noise(t, rows)` are asked for those that are left. Their numbers may then differ in the last
    bit, as matrix products depend on size. A model that is `Postprocessed` corrects the states that
    are handed out, and that reward and termination are functions of, unless `postprocess` is False.
    """
    # asked for by name: against a protocol the question takes longer than a small step
    correct = getattr(model, "postprocess", None) if postprocess else None
    alive, anyone_ended = torch.ones(state.shape[:-1], dtype=torch.bool, device=state.device), False
    rows = obs = next_obs = None
    seen = state
    if reward is not None:
        obs = model.decode(state)
    for t in range(horizon):
        action = act(t, state)
        if halt is not None:
            alive, anyone_ended = alive & ~halt(t, state, action, rows), True
            if t > 0 and not alive.is_cuda and not bool(alive.any()):
                return
        assignment = None if assignments is None else assignments[t]
        own = terminated is None
        step = propagate(model, state, action, noise(t, rows), alive, assignment, propagation, own)
        next_state = step.state
        if anyone_ended:  # a model may blow up where it is stepped on from an ended state
            next_state = torch.where(alive.unsqueeze(-1), next_state, state)
        next_seen = next_state
        if correct is not None:
            next_seen = torch.where(alive.unsqueeze(-1), correct(t + 1, next_state), seen)
        if reward is not None or terminated is not None:
            next_obs = model.decode(next_seen)
        gain, ended = step.reward, step.terminated
        if reward is not None:
            gain = reward(cast(Tensor, obs), action, cast(Tensor, next_obs))
        if terminated is not None:
            ended = terminated(cast(Tensor, next_obs))
        if gain.shape != alive.shape or ended.shape != alive.shape:
            raise ValueError(
                f"reward and termination must be (P, n) = {tuple(alive.shape)}, "
                f"got {tuple(gain.shape)} and {tuple(ended.shape)}"
            )
        if penalty:
            gain = gain - penalty * disagreement(cast(GaussianDynamics, model), state, action)
        if anyone_ended:
            gain, ended = torch.where(alive, gain, 0.0), ended & alive
        yield ImaginedStep(action, next_seen, gain, ended, alive, rows)
        state, seen, obs = next_state, next_seen, next_obs
        if ended.is_cuda:  # to ask whether any has ended would wait for the device
            alive, anyone_ended = alive & ~ended, True
        elif halt is not None or bool(ended.any()):
            alive, anyone_ended = alive & ~ended, True
            if not drop:
                if not bool(alive.any()):
                    return
                continue
            kept = alive.any(0).nonzero().squeeze(1)
            if not len(kept):
                return
            if len(kept) <= DROP * alive.shape[1]:
                rows = kept if rows is None else rows[kept]
                state, seen, alive = state[:, kept], seen[:, kept], alive[:, kept]
                obs = None if obs is None else obs[:, kept]


def _collect(start: Tensor, steps: Iterator[ImaginedStep], horizon: int) -> Imagined:
    """The trajectories of a block, with those rows and steps filled in that were left out."""
    found: list[tuple[Tensor, ...]] = []
    last = start
    for step in steps:
        whole = step[1], step[0], *step[2:5]
        if step.rows is not None:
            blanks = last, *(part.new_zeros(part.shape[0], last.shape[1], *part.shape[2:])
                             for part in whole[1:])  # fmt: skip
            whole = tuple(
                blank.index_copy(1, step.rows, part)
                for blank, part in zip(blanks, whole, strict=True)
            )
        found.append(whole)
        last = whole[0]
    if len(found) < horizon:
        still = last, *(torch.zeros_like(part) for part in found[-1][1:])
        found += [still] * (horizon - len(found))
    states, *others = zip(*found, strict=True)
    return Imagined(torch.stack([start, *states], 2), *(torch.stack(part, 2) for part in others))
