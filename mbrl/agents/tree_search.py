"""Monte Carlo tree search through any model: the root and the step of a search, and its player.

A node contains one imagined state of each of the E members, which are simulated separately from the
root on, like `tsinf` particles. The reward and the value of a node are means over members.
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

from mbrl.imagination import rollout
from mbrl.parallel import single_thread
from mbrl.types import Dynamics, Enumerable, Policy, RewardFn, Step, TerminatedFn
from planners.checks import (
    NonNegativeInt,
    PositiveInt,
    PositiveShare,
    Share,
    check_fields,
    check_memory,
)
from planners.mcts import PUCT, Evaluation, Rule, Tree, Widening, search

Sampler = Callable[[Tensor, Generator], Tensor]
"""`sampler(obs (B, O), generator) -> (B, K, A)`: actions of a node, in the order of expansion."""

ValueFn = Callable[[Tensor], Tensor]
"""`value(obs (E, B, O)) -> (E, B)`."""

PriorFn = Callable[[Tensor], Tensor]
"""`prior(obs (E, B, O)) -> logits (E, B, K)`, which are averaged over members."""


def uniform_actions(low: Float[Tensor, " A"], high: Float[Tensor, " A"], count: int) -> Sampler:
    """A sampler of `count` actions, uniform in the box [low, high]."""

    def sample(obs: Tensor, generator: Generator) -> Tensor:
        shape = (len(obs), count, len(low))
        check_memory(f"samples {count}: the actions of a node", 4 * math.prod(shape))
        uniform = torch.rand(shape, generator=generator, device=generator.device).to(low)
        return low + (high - low) * uniform

    return sample


Depth = Annotated[int, Interval(ge=1, le=2**31 - 1)]


@dataclass(frozen=True)
class TreeSearchConfig:
    """Settings of a tree search for every action."""

    simulations: PositiveInt = 64
    """Number of simulations for each action."""
    rule: Rule = field(default_factory=PUCT)
    """UCT, PUCT, Gumbel or another `Rule`. Its random noise is used only to explore."""
    discount: PositiveShare = 0.99
    """γ, in (0, 1]."""
    max_depth: Depth | None = None
    """Maximum number of actions from the root to a leaf."""
    widening: Widening | None = None
    """Progressive widening over sampled actions; None makes all of them available at once."""
    outcomes: Widening | Literal["all"] | None = None
    """Progressive widening over the outcomes of an action, which are drawn with the model's noise.
    "all" uses every outcome with its probability, for a model of one member that lists them
    (`mbrl.types.Enumerable`). None uses the model's means."""
    merge: bool = False
    """Whether nodes with the same state share their successors: for finite worlds, in which many
    paths lead to a state."""
    backup: Literal["mean", "max"] = "mean"
    """Value of a node: the mean over all simulations through it, or the value of its best action
    (see `search`)."""
    rollouts: NonNegativeInt = 1
    """Number of random rollouts from a leaf; their mean return is its value. With 0 its value is
    that of the value function, or 0."""
    depth: PositiveInt = 50
    """Maximum number of steps of a rollout; rewards after them count 0."""
    share: Share = 0.5
    """Weight of the rollouts if there is a value function too (λ of Silver et al. 2016)."""
    disagreement: float = 0.0
    """κ: the value of a simulation is mean + κ · std of its return over members; κ < 0 is
    cautious."""

    def __post_init__(self) -> None:
        check_fields(self)


class TreeModel:
    """The model of a search, from a `Dynamics`: `root(state (B, S))` and `step(node, action)`.

    The value of a leaf is, for each member from its own state, the mean return of random rollouts,
    the result of a value function, or a weighted mean of both. The simulation that adds a leaf
    backs up mean + κ · std (divided by E) over members of the whole return from the root: the
    rewards on the path and the leaf's value. So a path has the score that the objective
    "mean±std:|κ|" of `mbrl.imagination` gives a plan with one `tsinf` particle per member. The
    variance of that return is passed on too, for rules that explore where members disagree (their
    `optimism`). A node is terminal if all members have terminated; members that terminate earlier
    have reward 0 from then on.

    Args:
        model: any `Dynamics`.
        actions: their number, if the model takes an index as an action (1,); or the actions
            (K, A); or a sampler of continuous actions. With E > 1 the sampler is called with every
            member's observation, and the k-th action is that of member k mod E.
        config: uses discount, rollouts, share and disagreement. If `outcomes` is set, noise is
            drawn, also in rollouts.
        prior: logits of the K actions; None is a uniform prior.
        value: value function of observations.
        policy: acts in the rollouts, on model states. None draws uniformly from the K actions, or
            takes the first action of the sampler.
        reward, terminated: used instead of the model's own.
        of_states: whether prior, value and sampler are functions of model states instead of
            observations, as they must be for a latent model without a decoder.
        generator: random stream of noise, samples and rollouts.

    Raises:
        ValueError: no actions; "all" outcomes with a model that does not list them. `root` and
            `step` raise it for a function that returns another shape.

    Attributes:
        outcomes: those of the config, for `search`; for "all" the largest number of an action.
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
        of_states: bool = False,
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
        self.reward, self.terminated, self.of_states = reward, terminated, of_states
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
        """Root nodes, with all members in the same state.

        Raises ValueError for a state that is not finite or of another shape.
        """
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
        """One step of every member from the nodes of `root` or `step`, of D = E (S + 2) numbers."""
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
        after, gain, ended = self._finish_step(before, moves, alive, step)
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
        """Evaluate states and pack them as nodes.

        `past` is each member's return before the step with reward `gain`, divided by γ for every
        step since the root, so that κ · std of the whole return is not discounted at the root.
        """
        over = ~alive.any(0)
        asked = (self.value, self.prior, self.sampler)
        obs = None if asked == (None, None, None) else self._seen(state)
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

    def _seen(self, state: Float[Tensor, "E B S"]) -> Float[Tensor, "E B O"]:
        """What prior, value and sampler are functions of."""
        return state if self.of_states else self.model.decode(state)

    def _choices(
        self, state: Float[Tensor, "E B S"], obs: Float[Tensor, "E B O"] | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Prior logits (B, K), and the actions (B, K, A) if there is a sampler."""
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
        """Each member's estimate of the return from its state on."""
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
        """Mean return of the rollouts, which are one batch; 0 for members that have terminated."""
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
        returns = imagined.returns(config.discount).unflatten(1, (-1, config.rollouts)).mean(-1)
        return torch.where(alive, returns, 0.0)

    def _advance(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        alive: Bool[Tensor, "E B"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Next state, reward and termination of each member.

        A member that has terminated stays in its state with reward 0.
        """
        noise = None
        if self.config.outcomes is not None:
            options = {"device": self.generator.device, "dtype": state.dtype}
            shape = (*state.shape[:-1], *self.model.noise_shape)
            noise = torch.randn(shape, generator=self.generator, **options).to(state.device)
        return self._finish_step(
            state, action, alive, self.model.step(state, action.to(state), noise=noise)
        )

    def _finish_step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        alive: Bool[Tensor, "E B"],
        step: Step,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`_advance` after the model's step, with the given reward and termination functions."""
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
            obs = self._seen(state).flatten(0, 1)
            return self.sampler(obs, generator)[:, 0].unflatten(0, lead)
        drawn = torch.randint(len(self.table), lead, generator=generator, device=generator.device)
        return self.table[drawn.to(self.table.device)]


class TreeSearch:
    """A `Player` that searches a new tree for every action, in N environments at once.

    Args:
        model, actions, prior, value, policy, reward, terminated, of_states: as in `TreeModel`.
        config: settings of the search.
        state_of: function from observations (N, *O) to model states (N, S); if None, the model's
            `encode` of them, of vectors as float32 and of images (N, H, W, C) as they are.
        generator: random stream of all draws.

    Raises:
        ValueError: see `TreeModel` and `search`.

    Attributes:
        tree: the tree of the last action; None before the first action.
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
        """Does nothing, because every search begins with a new tree."""

    def act(self, obs: np.ndarray, *, explore: bool = False) -> np.ndarray:
        """Actions for observations (N, *O): (N, A), or (N,) if they are given by their number."""
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
        if obs.ndim == 4:
            shown = torch.as_tensor(obs)
        else:
            shown = torch.as_tensor(obs.reshape(len(obs), -1), dtype=torch.float32)
        return self.model.model.encode(shown.to(self.generator.device))


def _std(members: Float[Tensor, "E B"]) -> Float[Tensor, " B"]:
    return members.std(0, correction=0)


def _shaped(found: Tensor, shape: tuple[int, ...], name: str, letters: str) -> Tensor:
    if found.shape != shape:
        raise ValueError(f"{name} must give {letters} = {tuple(shape)}, got {tuple(found.shape)}")
    return found
