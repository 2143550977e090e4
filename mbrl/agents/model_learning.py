"""An agent with an off-policy learner and a model that is refitted at intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Generator

from mbrl.agents.controllers import Controller, Controllers
from mbrl.agents.dyna_config import ModelSchedule
from mbrl.agents.learned_model import LearnedModel, WithModel
from mbrl.agents.makers import imported
from mbrl.agents.off_policy import OffPolicy
from mbrl.agents.policies import actions_of, kind_of
from mbrl.agents.schedules import with_discount
from mbrl.encoders.images import is_image
from mbrl.rng import on_device
from mbrl.spaces import Vectors, bounds
from mbrl.types import Learner, Metrics, Spec, Transition


class ModelLearning(WithModel, OffPolicy):
    """An `Agent` and `ModelBased` with a replay buffer, a model and a learner.

    What the model is good for, subclasses say.

    Args:
        spec: the environment; observations must be a box of vectors, or indices.
        learner: as for `OffPolicy`.
        config: the schedule.
        discount: as for `OffPolicy`.
        generator: random stream of the agent, on the CPU.
        device: device of the learner, the model and the buffers.

    Attributes:
        learned: the model with its reward, termination and fits.

    Raises:
        ValueError: as `OffPolicy` and `LearnedModel`.
    """

    config: ModelSchedule
    _plans: Controllers | None = None

    def __init__(
        self,
        spec: Spec,
        learner: Learner,
        config: ModelSchedule,
        *,
        discount: float,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            spec, learner, config, discount=discount, generator=generator, device=device
        )
        self.learned = LearnedModel(spec, config.model, generator=generator, device=device)
        self._ended = np.zeros(0, dtype=bool)
        self._prepare()
        if config.planning:
            self._plans = self._controllers(generator)

    def _prepare(self) -> None:
        """What a subclass does once there is a model."""

    def _controllers(self, generator: Generator) -> Controllers:
        config, learned, guide = self.config.plan, self.learned, self.guide()
        if config.particles % learned.model.members:
            raise ValueError(
                f"plan.particles: want a multiple of the model's {learned.model.members} members, "
                f"got {config.particles}"
            )
        low, high = bounds(self.spec.action, device=self.device)
        mpc, own = config.build(low, high), on_device(generator, self.device)

        def make() -> Controller:
            return Controller(
                learned.model,
                mpc,
                config,
                reward=learned.reward,
                terminated=learned.terminated,
                guide=guide,
                generator=own,
            )

        return Controllers(make, generator=own)

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A): as of `OffPolicy`, or planned."""
        if self._plans is None or not self.fits:
            return super().act(obs, explore=explore)
        return self._plans.act(obs, explore=explore)

    def observe(self, step: Transition) -> None:
        """Store N transitions; raises as that of `OffPolicy`."""
        super().observe(step)
        self._ended = (step.terminated | step.truncated).numpy()

    def player(self, *, generator: Generator) -> Any:
        """A player for evaluation episodes: the policy, or plans, with another random stream."""
        if self._plans is not None and self.fits:
            return self._controllers(generator)
        return super().player(generator=generator)

    def give_up(self, places: np.ndarray) -> None:
        """As that of `OffPolicy`; plans of these episodes are forgotten."""
        super().give_up(places)
        if self._plans is not None:
            self._plans.reset(places)

    def update(self) -> Metrics:
        """Refit the model if that is due; then the updates that are due."""
        config, metrics = self.config, dict[str, float]()
        if self._plans is not None and self.fits and self._ended.any():
            metrics |= self._plans.said(self._ended)
            self._plans.reset(self._ended)
        since = self.steps - config.learning_starts
        if since >= 0 and since // config.fit_every >= self.fits and len(self.replay) > 1:
            metrics |= self.learned.fit(self.replay, margin=config.margin, generator=self.generator)
            metrics |= self._after_fit()
        return {**metrics, **super().update()}

    def _after_fit(self) -> Metrics:
        """What is done with the model after each fit."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """As of `OffPolicy`, with the model and the current plans."""
        return super().state_dict() | {
            "learned": self.learned.state_dict(),
            "plans": None if self._plans is None else self._plans.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, RuntimeError, KeyError: it is from a different agent.
        """
        super().load_state_dict(state)
        self.learned.load_state_dict(state["learned"])
        if self._plans is not None:
            self._plans.load_state_dict(state["plans"])


K = TypeVar("K", bound=ModelLearning)


def model_learning(
    kind: type[K],
    name: str,
    spec: Spec,
    config: Any,
    settings: Any,
    learners: Mapping[str, str],
    *,
    generator: Generator,
    device: torch.device | str = "cpu",
) -> K:
    """The agent of an environment.

    Args:
        kind: the class of the agent.
        name: of the algorithm, for messages.
        spec: the environment.
        config: the schedule, of the kind that the class takes.
        settings: of the learner.
        learners: "module:class" of the learner for each of the `KINDS` of actions that there may
            be.
        generator: draws the initial weights, and then whatever the agent draws.
        device: where it is to be.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    if is_image(spec.obs):
        raise ValueError(f"{name}: a model of images is not learned here; want vectors or indices")
    actions = actions_of(spec.action, name, device, tuple(learners))
    own = with_discount(settings, spec)
    learner = imported(learners[kind_of(spec.action)])
    made = learner(Vectors(spec.obs).size, actions, own, generator=generator, device=device)
    return kind(spec, made, config, discount=own.discount, generator=generator, device=device)
