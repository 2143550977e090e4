"""Monte Carlo tree search through any model: the root and the step of a search, and its player.

A node holds an imagined state of every one of the E members, each of which goes its own way from
the root, as `tsinf` particles do. A node's reward and value are means over members.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from mbrl.checks import (
    NonNegativeInt,
    PositiveInt,
    PositiveShare,
    Share,
    check_fields,
    check_memory,
)
from mbrl.imagination import rollout
from mbrl.parallel import single_thread
from mbrl.types import Dynamics, Enumerable, Policy, RewardFn, Step, TerminatedFn
from planners.mcts import PUCT, Evaluation, Rule, Tree, Widening, search

Sampler = Callable[[Tensor, Generator], Tensor]
"""`sampler(obs (B, O), generator) -> (B, K, A)`: actions a node may open, in that order."""

ValueFn = Callable[[Tensor], Tensor]
"""`value(obs (E, B, O)) -> (E, B)`."""

PriorFn = Callable[[Tensor], Tensor]
"""`prior(obs (E, B, O)) -> logits (E, B, K)`; their mean over members counts."""


def uniform_actions(low: Float[Tensor, A], high: Float[Tensor, A], count: int) -> Sampler:
    """A sampler of `count` actions, uniform in the box."""

    def sample(obs: Tensor, generator: Generator) -> Tensor:
        shape = (len(obs), count, len(low))
        check_memory(f"samples {count}: the actions of a node", 4 * math.prod(shape))
        uniform = torch.rand(shape, generator=generator, device=generator.device).to(low)
        return low + (high - low) * uniform

    return sample


Depth = Annotated[int, Interval(ge=1, le=2**31 - 1)]


@dataclass(frozen=True)
class TreeSearchConfig:
    """Look ahead in a tree, take one action, look ahead again."""

    simulations: PositiveInt = 64
    """Nodes added to the tree for each action."""
    rule: Rule = field(default_factory=PUCT)
    """UCT, PUCT, Gumbel or another `Rule`; with its noise and a drawn answer only to explore."""
    discount: PositiveShare = 0.99
    """γ, in (0, 1]."""
    max_depth: Depth | None = None
    """Actions ahead in the tree, at most."""
    widening: Widening | None = None
    """Open sampled actions one by one."""
    outcomes: Widening | Literal["all"] | None = None
    """Draw the model's noise, and so many outcomes of an action. "all" takes every outcome with its
    probability, from a model of one member that lists them (`mbrl.types.Enumerable`). None plans
    with the model's means."""
    merge: bool = False
    """Nodes of one state share what follows: for finite worlds, where many paths lead to one."""
    backup: Literal["mean", "max"] = "mean"
    """A node's value: over all simulations that came by, or of its best action (see `search`)."""
    rollouts: NonNegativeInt = 1
    """Random rollouts that value a leaf; 0 leaves it to the value function, or to 0."""
    depth: PositiveInt = 50
    """Steps of each rollout, at most; what lies beyond counts 0."""
    share: Share = 0.5
    """Weight of the rollouts where there is a value function too (Silver et al. 2016's λ)."""
    disagreement: float = 0.0
    """κ: a simulation is worth mean + κ · std over members of its return; caution if below 0."""

    def __post_init__(self) -> None:
        check_fields(self)


class TreeModel:
    """The model of a search, from a `Dynamics`: `root(state (B, S))` and `step(node, action)`.

    A leaf is valued, for each member from its own state, by the mean of random rollouts, by a
    value function, or by both, weighted. The simulation that adds a leaf passes up mean + κ · std
    (population's) over members of the whole return from the root: rewards on the way and the
    leaf's value. So a path is worth what the objective "mean±std:|κ|" of `mbrl.imagination` makes
    of a plan with one `tsinf` particle a member. The variance of that return goes along, for rules
    that look where members disagree (their `optimism`). A node is terminal once all members have
    ended; those that end earlier earn 0 from then on.

    Args:
        model: any `Dynamics`.
        actions: how many there are, the model taking the index as an action (1,); or what they
            are, (K, A); or a sampler of continuous ones. With E > 1 a sampler is asked at every
            member's observation, and its k-th action taken at member k mod E.
        config: discount, rollouts, share and disagreement; it draws noise if it has `outcomes`,
            also in rollouts.
        prior: logits of the K actions; None for all alike.
        value: of observations.
        policy: acts in the rollouts, on model states; None draws uniformly from the K actions, and
            takes the first of a sampler's.
        reward, terminated: take the place of the model's own.
        generator: draws noise, samples and rollouts.

    Raises:
        ValueError: here or later, no actions, "all" outcomes of a model that cannot say them, or a
            function that gives another shape.

    Attributes:
        outcomes: as `search` takes them: for "all" the most that an action has.
    """

    outcomes: Widening | int | None

    def __init__(
        self,
        model: Dynamics,
        actions: int | Float[Tensor, "K A"] | Sampler,
        config: TreeSearchConfig,
        *,
        prior: PriorFn | None = None,
        value: ValueFn | None = None,
        policy: Policy | None = None,
        reward: RewardFn | None = None,
        terminated: TerminatedFn | None = None,
        generator: Generator,
    ) -> None:
        if isinstance(actions, int):
            actions = torch.arange(actions, device=generator.device)[:, None].float()
        if isinstance(actions, Tensor):
            if actions.ndim != 2 or not actions.numel():
                raise ValueError(
                    f"actions must be (K, A) with K >= 1, got {tuple(actions.shape)}; "
                    "continuous ones need a sampler"
                )
        elif not callable(actions):
            raise ValueError(
                f"actions must be a number, a tensor (K, A) or a sampler, got {actions!r}"
            )
        self.model, self.config = model, config
        self.table = actions if isinstance(actions, Tensor) else None
        self.sampler = None if isinstance(actions, Tensor) else actions
        self.prior, self.value, self.generator = prior, value, generator
        self.policy = self._random if policy is None else policy
        self.reward, self.terminated = reward, terminated
        if config.outcomes == "all":
            if not (isinstance(model, Enumerable) and model.members == 1):
                raise ValueError(
                    "outcomes='all' needs a model of one member that lists its outcomes, such as "
                    "FiniteModel"
                )
            self.outcomes = model.most_outcomes
        else:
            self.outcomes = config.outcomes

    def root(self, state: Float[Tensor, "B S"]) -> Evaluation:
        """The roots, all members in the same state."""
        if state.ndim != 2 or not state.isfinite().all():
            raise ValueError(f"state must be finite and (B, S), got {tuple(state.shape)}")
        members, config = state.expand(self.model.members, *state.shape), self.config
        check_memory(
            f"rollouts {config.rollouts}, depth {config.depth}: the rollouts of a leaf",
            config.rollouts * config.depth * members.nbytes,
        )
        nothing = members.new_zeros(members.shape[:-1])
        return self._evaluate(members, nothing == 0, nothing, nothing)

    def step(self, node: Float[Tensor, "B D"], action: Tensor) -> Evaluation:
        """One step of every member; D = E (S + 2) numbers of a node, as `root` made them."""
        members = node.unflatten(1, (self.model.members, -1)).transpose(0, 1)
        state, alive, past = members[..., :-2], members[..., -2] > 0, members[..., -1]
        moves = action if self.table is None else self.table[action.to(self.table.device)]
        moves = moves.expand(len(state), *moves.shape)
        if not isinstance(self.outcomes, int):
            after, gain, ended = self._advance(state, moves, alive)
            return self._evaluate(after, alive & ~ended, past, gain)
        assert isinstance(self.model, Enumerable)
        then = self.model.outcomes(state, moves.to(state))
        count = then.chance.shape[-1]
        before, moves, alive, past, gain = (
            x.repeat_interleave(count, 1) for x in (state, moves, alive, past, then.reward)
        )
        step = Step(then.state.flatten(1, 2), gain, then.terminated.flatten(1))
        after, gain, ended = self._judged(before, moves, alive, step)
        found = self._evaluate(after, alive & ~ended, past, gain)
        each = (x if x is None else x.unflatten(0, (-1, count)) for x in found)
        return Evaluation._make(each)._replace(chance=then.chance[0])

    def _evaluate(
        self,
        state: Float[Tensor, "E B S"],
        alive: Bool[Tensor, "E B"],
        past: Float[Tensor, "E B"],
        gain: Float[Tensor, "E B"],
    ) -> Evaluation:
        """Pack a node. `past` is each member's return up to the step that earned `gain`, in units
        of that step: divided by γ a step, so that κ · std of it counts in full at the root."""
        over = ~alive.any(0)
        asked = (self.value, self.prior, self.sampler)
        obs = None if asked == (None, None, None) else self.model.decode(state)
        ahead = self._leaf(state, obs, alive)
        reward, value, variance = gain.mean(0), ahead.mean(0), None
        if self.model.members > 1:
            past = past + gain
            reward = reward + torch.where(over, self.config.disagreement * _std(past), 0.0)
            past = past / self.config.discount
            spread = _std(past + ahead)
            value, variance = value + self.config.disagreement * spread, spread.square()
        packed = torch.cat((state, alive[..., None].to(state), past[..., None].to(state)), -1)
        logits, actions = self._choices(state, obs)
        return Evaluation(
            packed.transpose(0, 1).flatten(1), reward, value, logits, over,
            variance=variance, actions=actions,
        )  # fmt: skip

    def _choices(
        self, state: Float[Tensor, "E B S"], obs: Float[Tensor, "E B O"] | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Prior (B, K), and the actions (B, K, A) where they are a sample."""
        members, roots = state.shape[:2]
        actions, count = None, 0 if self.table is None else len(self.table)
        if self.sampler is not None:
            assert obs is not None
            drawn = self.sampler(obs.flatten(0, 1), self.generator)
            if drawn.ndim != 3 or len(drawn) != members * roots:
                raise ValueError(
                    f"the sampler must give (B, K, A) with B = {members * roots}, "
                    f"got {tuple(drawn.shape)}"
                )
            count = drawn.shape[1]
            k = torch.arange(count, device=drawn.device)
            actions = drawn.unflatten(0, (members, roots))[k % members, :, k].transpose(0, 1)
        if self.prior is None:
            return state.new_zeros(roots, count), actions
        assert obs is not None
        logits = _shaped(self.prior(obs), (members, roots, count), "the prior", "(E, B, K)")
        return logits.mean(0), actions

    def _leaf(
        self,
        state: Float[Tensor, "E B S"],
        obs: Float[Tensor, "E B O"] | None,
        alive: Bool[Tensor, "E B"],
    ) -> Float[Tensor, "E B"]:
        """Each member's estimate of the return from here on."""
        config, known = self.config, None
        if self.value is not None:
            assert obs is not None
            known = _shaped(self.value(obs), alive.shape, "the value function", "(E, B)")
            known = torch.where(alive, known, 0.0)
        share = 1.0 if known is None else config.share
        if not config.rollouts or not share:
            return state.new_zeros(alive.shape) if known is None else known
        played = self._play_out(state, alive)
        return played if known is None else share * played + (1 - share) * known

    def _play_out(
        self, state: Float[Tensor, "E B S"], alive: Bool[Tensor, "E B"]
    ) -> Float[Tensor, "E B"]:
        """Mean return of rollouts, all side by side; 0 for members that have ended."""
        if not alive.any():
            return state.new_zeros(alive.shape)
        config = self.config
        imagined = rollout(
            self.model,
            state.repeat_interleave(config.rollouts, 1),
            self._act,
            horizon=config.depth,
            particles=self.model.members,
            reward=self.reward,
            terminated=self.terminated,
            sample=config.outcomes is not None,
            generator=self.generator,
        )
        worth = imagined.returns(config.discount).unflatten(1, (-1, config.rollouts)).mean(-1)
        return torch.where(alive, worth, 0.0)

    def _advance(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        alive: Bool[Tensor, "E B"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Next state, reward and end of each member; one that has ended stays and earns 0."""
        noise = None
        if self.config.outcomes is not None:
            options = {"device": self.generator.device, "dtype": state.dtype}
            shape = (*state.shape[:-1], *self.model.noise_shape)
            noise = torch.randn(shape, generator=self.generator, **options).to(state.device)
        return self._judged(
            state, action, alive, self.model.step(state, action.to(state), noise=noise)
        )

    def _judged(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        alive: Bool[Tensor, "E B"],
        step: Step,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`_advance`, once the model has spoken."""
        after, gain, ended = step
        if self.reward is not None or self.terminated is not None:
            then = self.model.decode(after)
            if self.reward is not None:
                gain = self.reward(self.model.decode(state), action, then)
                gain = _shaped(gain, alive.shape, "the reward", "(E, B)")
            if self.terminated is not None:
                ended = _shaped(self.terminated(then), alive.shape, "the termination", "(E, B)")
        return torch.where(alive[..., None], after, state), torch.where(alive, gain, 0.0), ended

    def _act(
        self, state: Float[Tensor, "E B S"], *, generator: Generator, explore: bool
    ) -> Float[Tensor, "E B A"]:
        return self.policy(state, generator=generator, explore=explore).to(state)

    def _random(
        self, state: Float[Tensor, "E B S"], *, generator: Generator, explore: bool
    ) -> Float[Tensor, "E B A"]:
        lead = state.shape[:2]
        if self.table is None:
            assert self.sampler is not None
            obs = self.model.decode(state).flatten(0, 1)
            return self.sampler(obs, generator)[:, 0].unflatten(0, lead)
        drawn = torch.randint(len(self.table), lead, generator=generator, device=generator.device)
        return self.table[drawn.to(self.table.device)]


class TreeSearch:
    """Searches anew for every action, in N environments at once: a `Player`.

    Args:
        model, actions, prior, value, policy, reward, terminated: as in `TreeModel`.
        config: the search.
        state_of: model states (N, S) of what the environments show; the model's `encode` of it
            as float32 if None.
        generator: all the randomness.

    Raises:
        ValueError: as `TreeModel` and `search` do.

    Attributes:
        tree: of the last action; None before the first of an episode.
    """

    tree: Tree | None

    def __init__(
        self,
        model: Dynamics,
        actions: int | Float[Tensor, "K A"] | Sampler,
        config: TreeSearchConfig | None = None,
        *,
        state_of: Callable[[Any], Tensor] | None = None,
        generator: Generator,
        **functions: Any,
    ) -> None:
        self.config = TreeSearchConfig() if config is None else config
        self.model = TreeModel(model, actions, self.config, generator=generator, **functions)
        self.state_of = self._encode if state_of is None else state_of
        self._indices = isinstance(actions, int)
        self.generator = generator
        self.tree = None

    def reset(self, begins: np.ndarray) -> None:
        """Nothing is kept from one action to the next but the tree, to be looked at."""

    def act(self, obs: np.ndarray, *, explore: bool = False) -> np.ndarray:
        """The next actions for observations (N, *O): (N, A), or (N,) where actions are indices."""
        config = self.config
        with torch.no_grad(), single_thread():
            root = self.model.root(self.state_of(obs))
            self.tree = search(
                root,
                self.model.step,
                simulations=config.simulations,
                generator=self.generator,
                rule=config.rule if explore else config.rule.quiet(),
                discount=config.discount,
                max_depth=config.max_depth,
                widening=config.widening,
                outcomes=self.model.outcomes,
                merge=config.merge,
                backup=config.backup,
            )
        best = self.tree.action
        if self._indices:
            return best.numpy(force=True)
        if root.actions is None:
            assert self.model.table is not None
            return self.model.table[best.to(self.model.table.device)].numpy(force=True)
        each = torch.arange(len(best), device=root.actions.device)
        return root.actions[each, best.to(each)].numpy(force=True)

    def _encode(self, obs: np.ndarray) -> Tensor:
        rows = torch.as_tensor(obs.reshape(len(obs), -1), dtype=torch.float32)
        return self.model.model.encode(rows.to(self.generator.device))


def _std(members: Float[Tensor, "E B"]) -> Float[Tensor, B]:
    return members.std(0, correction=0)


def _shaped(found: Tensor, shape: tuple[int, ...], name: str, letters: str) -> Tensor:
    if found.shape != shape:
        raise ValueError(f"{name} must give {letters} = {tuple(shape)}, got {tuple(found.shape)}")
    return found
