"""An agent with an off-policy learner and a model that is refitted at intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Generator

from mbrl.agents.dyna_config import ModelSchedule
from mbrl.agents.learned_model import LearnedModel
from mbrl.agents.makers import imported
from mbrl.agents.off_policy import OffPolicy
from mbrl.agents.policies import actions_of, kind_of
from mbrl.agents.schedules import with_discount
from mbrl.encoders.images import is_image
from mbrl.spaces import Vectors
from mbrl.types import Learner, Metrics, Spec


class ModelLearning(OffPolicy):
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

    @property
    def model(self) -> Any:
        """The model."""
        return self.learned.model

    @property
    def reward(self) -> Any:
        """The reward as a function; None if the model predicts it."""
        return self.learned.reward

    @property
    def terminated(self) -> Any:
        """The termination as a function; None if the model predicts it."""
        return self.learned.terminated

    @property
    def fits(self) -> int:
        """How often the model was fitted."""
        return self.learned.fits

    def update(self) -> Metrics:
        """Refit the model if that is due; then the updates that are due."""
        config, metrics = self.config, dict[str, float]()
        since = self.steps - config.learning_starts
        if since >= 0 and since // config.fit_every >= self.fits and len(self.replay) > 1:
            metrics |= self.learned.fit(self.replay, margin=config.margin, generator=self.generator)
            metrics |= self._after_fit()
        return {**metrics, **super().update()}

    def _after_fit(self) -> Metrics:
        """What is done with the model after each fit."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """As of `OffPolicy`, with the model."""
        return super().state_dict() | {"learned": self.learned.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, RuntimeError, KeyError: it is from a different agent.
        """
        super().load_state_dict(state)
        self.learned.load_state_dict(state["learned"])


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
