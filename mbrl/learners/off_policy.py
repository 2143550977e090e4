"""What learners from a replay buffer share: the checks of a batch, and the state they save."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor

from mbrl.checks import check_batch
from mbrl.encoders.encoder import Encoder
from mbrl.learners.actions import Actions, device_of, shape_of
from mbrl.learners.configs import Discounted, StepSizes, discount_of
from mbrl.learners.decay import Decay
from mbrl.nn import Block, Target
from mbrl.parallel import single_thread
from mbrl.types import Metrics, Transition

C = TypeVar("C", bound=Discounted)
A = TypeVar("A", bound=Actions)


Factor = float | Tensor
"""A number for all rows, or (B,) with one for each."""


class TargetValues(NamedTuple):
    """Values of states by the networks that a learner's targets come from."""

    each: Float[Tensor, " C *lead"]  # of each target critic
    least: Float[Tensor, "*lead"]  # as the learner's own targets combine them


@runtime_checkable
class Bootstrapping(Protocol):
    """A learner that says what its targets are made of, so that they can be expanded."""

    def target_policy(
        self, state: Shaped[Tensor, "*lead *O"], *, generator: Generator, explore: bool
    ) -> Shaped[Tensor, "*lead A"]:
        """Actions of the policy whose values the targets are; drawn, if it has a distribution."""
        ...

    def target_values(
        self, obs: Shaped[Tensor, "*lead *O"], *, generator: Generator
    ) -> TargetValues:
        """V(s) of that policy; of a soft learner with the entropy's value."""
        ...

    def entropy_bonus(
        self, obs: Shaped[Tensor, "*lead *O"], *, generator: Generator
    ) -> Float[Tensor, "*lead"]:
        """-α log π(a | s) of an action drawn in each state, which is added to its reward; or 0."""
        ...


class OffPolicyLearner(ABC, Generic[C, A]):
    """A `Learner` from batches of transitions of any policy.

    Attributes:
        actions: what actions there are; choices are numbered from 0.
        updates: how many there have been.
        errors: (B,), a measure of the error of each row of the last update, for prioritised replay,
            empty before it; None if the learner measures none.

    Args:
        size: S, of states.
        actions: what actions there are.
        config: settings; the discount must be set.
        encoder: turns observations into states, of S features; the critics' loss trains it, the
            policy's does not (Yarats et al. 2021). If None, observations are states.
        generator: draws the initial weights.
        device: where the learner is to be; for a box of actions, where its bounds are.

    Raises:
        ValueError: a discount that is unset; an encoder of other than S features.
    """

    PARTS: ClassVar[tuple[str, ...]]
    """Names of the attributes that are blocks of parameters and targets, which are saved."""

    errors: Tensor | None = None

    def __init__(
        self,
        size: int,
        actions: A,
        config: C,
        *,
        encoder: Encoder | None = None,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.size, self.actions, self.config, self.updates = size, actions, config, 0
        self.discount, self.device = discount_of(config), device_of(actions, device)
        self._action_shape = shape_of(actions)
        self._obs_shape = self._build(encoder, generator)
        self._decay, self._steps = None, 0
        if isinstance(config, StepSizes) and config.last_learning_rate is not None:
            self._decay = Decay(config, config.decay)
        blocks = [part for part in self._parts().values() if isinstance(part, Block)]
        self._rates = [(block, block.learning_rate) for block in blocks]

    def run_for(self, steps: int) -> None:
        """Say how many environment steps the run has, over which step sizes may change."""
        if self._decay is not None:
            self._decay.run_for(steps)

    def progress(self, env_steps: int) -> None:
        """Say how many environment steps there have been, which may decide the step sizes."""
        self._steps = env_steps

    @abstractmethod
    def _build(self, encoder: Encoder | None, generator: Generator) -> tuple[int, ...]:
        """Make the parts; returns *O, the shape of an observation."""

    @property
    @abstractmethod
    def policy(self) -> Any:
        """The current policy: differentiable in the states, with constant parameters."""

    @single_thread()  # small products are faster on one thread
    def update(
        self,
        batch: Transition,
        *,
        weights: Float[Tensor, " B"] | None = None,
        discount: Float[Tensor, " B"] | None = None,
        generator: Generator,
    ) -> Metrics:
        """One step of the critics, and of policy and targets when they are due.

        Args:
            batch: B transitions; indices of actions are integers.
            weights: weight of each row in the critics' loss; equal ones if None.
            discount: what multiplies the value of each next state; γ if None. For n-step returns,
                γ^n.
            generator: draws whatever the algorithm draws: actions, noise, subsets of critics.

        Raises:
            ValueError: wrong shapes, numbers that are not finite, or actions that there are not;
                nothing is changed then.
        """
        check_batch(batch, self._obs_shape, self._action_shape)
        given = self.discount if discount is None else discount
        if self._decay is not None:
            share = self._decay.share(self._steps)
            for block, rate in self._rates:
                block.learning_rate = rate * share
        metrics = self._learn(batch, weights, given, generator)
        self.updates += 1
        return cast(Metrics, metrics)

    @abstractmethod
    def _learn(
        self, batch: Transition, weights: Tensor | None, discount: Factor, generator: Generator
    ) -> dict[str, Tensor]:
        """Learn from a batch whose shapes are checked; returns metrics."""

    def _due(self, every: int) -> bool:
        """Whether this update does what is done once in `every` updates."""
        return (self.updates + 1) % every == 0

    def _parts(self) -> dict[str, Block | Target | None]:
        return {name: getattr(self, name) for name in self.PARTS}

    def state_dict(self) -> dict[str, Any]:
        """Networks, targets, moments of the optimisers and the number of updates."""
        parts = self._parts().items()
        return {
            **{name: None if part is None else part.state_dict() for name, part in parts},
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is from a different learner.
        """
        for name, part in self._parts().items():
            if part is not None:
                part.load_state_dict(state[name])
        self.updates = state["updates"]
