"""What learners by policy gradient share: networks, schedules, checks and the state they save.

They learn from rollouts: transitions (T, N) whose columns are consecutive steps of one environment,
or (T,) of one. Actions are the actor's own, as `actor.draw` returns them; `actor.emit` puts them
into the box. Log-probabilities and values are computed here, with the networks as they are when
the update begins, so the policy must not have changed since it took the actions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl import returns
from mbrl.checks import check_batch
from mbrl.distributions import Bounds, DiagonalGaussian, Distribution
from mbrl.learners.actions import Actions, device_of, shape_of
from mbrl.learners.actors import CategoricalActor, GaussianActor, MultiCategoricalActor
from mbrl.learners.configs import discount_of
from mbrl.learners.decay import Decay
from mbrl.learners.on_policy_configs import AdvantageConfig, PolicyConfig
from mbrl.nn import Block, StackedMLP
from mbrl.nn.block import check_finite
from mbrl.parallel import single_thread
from mbrl.types import Metrics, Transition

Actor = GaussianActor | CategoricalActor | MultiCategoricalActor


Said = Mapping[str, Tensor | float]
"""Metrics, as a learner has them."""

C = TypeVar("C", bound=PolicyConfig)


class OnPolicyLearner(ABC, Generic[C]):
    """A `Learner` from rollouts. A subclass says what its optimisers step, and learns.

    Attributes:
        blocks: parameters with their optimisers, by name: an `actor`, or a `pair` with one.
        steps: transitions that it has learned from, which decide the step size.

    Args:
        size: S, of states.
        actions: what actions there are.
        config: settings; the discount must be set.
        generator: draws the initial weights.
        device: where the learner is to be; for a box of actions, where its bounds are.

    Raises:
        ValueError: a discount that is unset.
    """

    def __init__(
        self,
        size: int,
        actions: Actions,
        config: C,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        where = device_of(actions, device)

        def critic() -> StackedMLP:
            return make_critic(size, config, generator=generator).to(where)

        self.size, self.config, self.discount, self.steps = size, config, discount_of(config), 0
        actor = make_actor(size, actions, config, generator=generator).to(where)
        self.blocks: Mapping[str, Block] = self._make_blocks(actor, critic)
        self._decay = Decay(config)
        self._rates = {name: block.learning_rate for name, block in self.blocks.items()}
        self._action_shape = shape_of(actions)

    @abstractmethod
    def _make_blocks(self, actor: Actor, critic: Callable[[], StackedMLP]) -> dict[str, Block]:
        """The blocks of parameters, of an actor and, if it is called for, of a critic."""

    @property
    def policy(self) -> Actor:
        """The current policy: differentiable in the states, with constant parameters."""
        if "pair" in self.blocks:
            return cast(Pair, self.blocks["pair"].fixed).actor
        return cast(Actor, self.blocks["actor"].fixed)

    @abstractmethod
    def _learn(self, batch: Transition, generator: Generator) -> Said:
        """Learn from a rollout that is checked; returns metrics."""

    @single_thread()  # small products are faster on one thread
    def update(self, batch: Transition, *, generator: Generator) -> Metrics:
        """Learn from a rollout.

        Args:
            batch: transitions (T, N) or (T,), see the module.
            generator: draws minibatches.

        Raises:
            ValueError: wrong shapes, or numbers that are not finite; nothing is changed then. A
                step size that changes over a run of unknown length.
            Diverged: a loss or a parameter is no longer finite.
        """
        return self._update(batch, self._learn, generator)

    def _update(
        self,
        batch: Transition,
        learn: Callable[[Transition, Generator], Said],
        generator: Generator,
    ) -> Metrics:
        check_rollout(batch, (self.size,), self._action_shape)
        for name, block in self.blocks.items():
            block.learning_rate = self._rates[name] * self.left
        metrics = learn(batch, generator)
        said = {name: float(value) for name, value in metrics.items()}
        check_finite(
            said | {f"the {n}'s parameters": b.value.detach().sum() for n, b in self.blocks.items()}
        )
        self.steps += batch.reward.numel()
        return said

    @property
    def left(self) -> float:
        """The share of the first step size that holds now.

        Raises:
            ValueError: it changes over a run of unknown length.
        """
        return self._decay.share(self.steps)

    def run_for(self, steps: int) -> None:
        """Say how many environment steps the run has; see `decay_steps`."""
        self._decay.run_for(steps)

    def state_dict(self) -> dict[str, Any]:
        """The learner's name, networks, moments of the optimisers and the number of steps."""
        blocks = {name: block.state_dict() for name, block in self.blocks.items()}
        return {"learner": type(self).__name__, "blocks": blocks, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is from a different learner.
        """
        if state["learner"] != type(self).__name__:
            raise ValueError(f"the state is of {state['learner']}, not of {type(self).__name__}")
        if state["blocks"].keys() != self.blocks.keys():
            raise ValueError(f"blocks: want {[*self.blocks]}, got {[*state['blocks']]}")
        for name, block in self.blocks.items():
            block.load_state_dict(state["blocks"][name])
        self.steps = state["steps"]


class Pair(nn.Module):
    """An actor and a value, whose parameters one optimiser steps together."""

    def __init__(self, actor: Actor, critic: StackedMLP) -> None:
        super().__init__()
        self.actor, self.critic = actor, critic


class Critique(NamedTuple):
    """What a value says of a rollout."""

    value: Float[Tensor, "*lead"]
    advantage: Float[Tensor, "*lead"]

    @property
    def target(self) -> Float[Tensor, "*lead"]:
        """What the value learns."""
        return self.value + self.advantage


@torch.no_grad()
def criticised(critic: nn.Module, batch: Transition, config: AdvantageConfig) -> Critique:
    """Values and generalised advantage estimates of a rollout, constants."""
    value, next_value = value_of(critic, torch.stack((batch.obs, batch.next_obs)))
    ends = batch.terminated, batch.truncated
    advantage = returns.gae(
        batch.reward,
        value,
        next_value,
        *ends,
        discount=discount_of(config),
        lambda_=config.trace_decay,
    )
    return Critique(value, advantage)


def value_of(critic: nn.Module, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead"]:
    """V(s)."""
    return critic(state.reshape(1, -1, state.shape[-1])).view(state.shape[:-1])


def flat(batch: Transition) -> Transition:
    """A rollout as one batch (T · N,)."""
    lead = batch.reward.ndim
    return Transition._make(column.flatten(0, lead - 1) for column in batch)


@torch.no_grad()
def constant(actor: Actor, obs: Float[Tensor, "B S"]) -> Distribution:
    """The distribution of actions as it is now: it stays when the parameters change."""
    given = actor.distribution(obs)
    if isinstance(given, DiagonalGaussian):
        # without `gsde` log_std is the parameter itself
        return given._replace(log_std=given.log_std.detach().clone())
    return given


def make_actor(size: int, actions: Actions, config: PolicyConfig, *, generator: Generator) -> Actor:
    """The network of a policy."""

    def net(sizes: Sequence[int], last_gain: float) -> StackedMLP:
        return _net(sizes, config, last_gain, generator)

    body = (size, *config.hidden)
    if isinstance(actions, int):
        return CategoricalActor(net((*body, actions), 0.01))
    if not isinstance(actions, Bounds):
        return MultiCategoricalActor(net((*body, sum(actions)), 0.01), actions)
    count, how = len(actions.low), {"first_std": config.first_std, "squash": config.squash}
    if not config.gsde:
        return GaussianActor(net((*body, count), 0.01), actions, **how)
    features = net(body, 2**0.5)
    return GaussianActor(features, actions, head=net((body[-1], count), 0.01), **how)


def make_critic(size: int, config: PolicyConfig, *, generator: Generator) -> StackedMLP:
    """The network of a value of states."""
    hidden = config.hidden if config.value_hidden is None else config.value_hidden
    return _net((size, *hidden, 1), config, 1.0, generator)


def _net(
    sizes: Sequence[int], config: PolicyConfig, last_gain: float, generator: Generator
) -> StackedMLP:
    return StackedMLP(
        1,
        sizes,
        activation=config.activation,
        init="orthogonal" if config.orthogonal else "uniform",
        last_gain=last_gain,
        generator=generator,
    )


def check_rollout(batch: Transition, obs: Sequence[int], action: Sequence[int]) -> None:
    """Check the shapes of a rollout (T, N) or (T,), and that its numbers are finite.

    Raises:
        ValueError: a column of another shape, or with a number that is not finite.
    """
    lead = tuple(batch.reward.shape)
    shapes = {"obs": (*lead, *obs), "action": (*lead, *action), "next_obs": (*lead, *obs)}
    for name, column in batch._asdict().items():
        shape = shapes.get(name, lead)
        if tuple(column.shape) != shape or not lead or 0 in lead:
            wanted = shape or ("T", "N")
            raise ValueError(f"{name} must have shape {wanted}, got {tuple(column.shape)}")
    check_batch(flat(batch), obs, action)
