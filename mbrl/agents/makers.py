"""How agents with a model-free learner are made.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mbrl.agents.schedules import EpisodeSchedule, with_discount

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.off_policy import OffPolicy
    from mbrl.agents.on_policy import OnPolicy
    from mbrl.types import Spec

C = TypeVar("C")
Given = TypeVar("Given", contravariant=True)
Made = TypeVar("Made", covariant=True)


class Make(Protocol[Given, Made]):
    """Makes an agent."""

    def __call__(
        self, spec: Spec, config: Given, *, generator: Generator, device: str = "cpu"
    ) -> Made:
        """The agent of an environment.

        Args:
            spec: the environment.
            config: the schedule, with the learner's settings as `learner`.
            generator: draws the initial weights, and then whatever the agent draws.
            device: where it is to be.

        Raises:
            ValueError: observations or actions that it cannot use.
        """
        ...


def on_policy(name: str, config: type[C], learner: str) -> Make[C, OnPolicy]:
    """`make` of an agent that learns from its own rollouts.

    Args:
        name: of the algorithm, for messages.
        config: the class of its settings.
        learner: "module:class" of an `OnPolicyLearner`, imported when an agent is made.
    """

    def make(spec: Spec, config: C, *, generator: Generator, device: str = "cpu") -> OnPolicy:
        from mbrl.agents.on_policy import OnPolicy, Steps, WholeEpisodes
        from mbrl.agents.policies import actions_of
        from mbrl.spaces import Vectors

        given: Any = config
        actions, own = actions_of(spec.action, name, device), with_discount(given.learner, spec)
        whole = isinstance(config, EpisodeSchedule)
        if whole and not spec.ends and spec.terminated is None and spec.episode_steps is None:
            raise ValueError(f"{name}: needs episodes that end; this environment's never do")
        size = Vectors(spec.obs).size
        made = imported(learner)(size, actions, own, generator=generator, device=device)
        store = WholeEpisodes(given.episodes) if whole else Steps(given.rollout)
        return OnPolicy(made, spec, config, store, generator=generator, device=device)

    make.__module__ = config.__module__  # where an agent's `Config` is looked for
    return make


def off_policy(name: str, config: type[C], learners: Mapping[str, str]) -> Make[C, OffPolicy]:
    """`make` of an agent that learns from a replay buffer.

    Args:
        name: of the algorithm, for messages.
        config: the class of its settings.
        learners: "module:class" of an `OffPolicyLearner` for each kind of actions that there may
            be, as in `mbrl.agents.policies.KINDS`; imported when an agent is made.
    """

    def make(spec: Spec, config: C, *, generator: Generator, device: str = "cpu") -> OffPolicy:
        from mbrl.agents.off_policy import OffPolicy, states_of
        from mbrl.agents.policies import actions_of, kind_of

        given: Any = config
        actions = actions_of(spec.action, name, device, tuple(learners))
        own = with_discount(given.learner, spec)
        size, encoder = states_of(spec, given.images, generator=generator)
        made = imported(learners[kind_of(spec.action)])(
            size, actions, own, encoder=encoder, generator=generator, device=device
        )
        return OffPolicy(
            spec,
            made,
            given,
            images=None if encoder is None else given.images,
            discount=own.discount,
            generator=generator,
            device=device,
        )

    make.__module__ = config.__module__
    return make


def imported(path: str) -> Any:
    """The object of "module:name"."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
