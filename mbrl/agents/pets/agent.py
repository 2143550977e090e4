"""The agent of PETS, with its model, its data and its current plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator

from mbrl.agents.guide import Guide
from mbrl.agents.model_planning import Model, ModelPlanning
from mbrl.agents.pets.config import Config
from mbrl.agents.schedules import with_discount
from mbrl.data import Replay
from mbrl.distributions import Bounds
from mbrl.dynamics.own import OwnModel
from mbrl.learners.sac import SAC
from mbrl.nn.block import check_finite
from mbrl.spaces import obs_size
from mbrl.types import Metrics, Spec, Transition

__all__ = ["PETS", "Model", "make"]

LEARNER_BATCH = 256
"""Transitions in an update of the learner."""


class PETS(ModelPlanning):
    """An `Agent` that learns a model and plans through it, in N environments at once.

    Args:
        spec: the environment; observations must be vectors, actions in a bounded box.
        config: settings; `Config.suited(spec)` if None.
        model: any fittable `Dynamics` of these observations and actions; that of `config.model` if
            None.
        generator: random stream of the agent, on the CPU.
        device: device of the model and the plans.

    Raises:
        ValueError: settings out of range; a reward that is neither known nor learned; particles
            that are not a multiple of the members; other kinds of spaces.
    """

    replay: Replay

    def __init__(
        self,
        spec: Spec,
        config: Config | None = None,
        *,
        model: Model | None = None,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        config = config or Config.suited(spec)
        own = model is not None or isinstance(config.model, OwnModel)  # may predict rewards
        if spec.reward is None and not (config.model.learn_reward or own):
            raise ValueError("the reward is not known: give it, or set model.learn_reward")
        self._size = obs_size(spec.obs)
        self._observed = 0
        self._learned: list[Metrics] = []
        self.learner: SAC | None = None
        super().__init__(spec, config, model=model, generator=generator, device=device)
        if config.guide:
            discounted = with_discount(config.sac, spec, 0.99)
            box = Bounds(self.low, self.high)
            self.learner = SAC(self._size, box, discounted, generator=generator)

    def _make_model(self) -> Any:
        return self.config.model.make(self._size, len(self.low), generator=self.generator)

    def _make_replay(self) -> Replay:
        return Replay(self.config.capacity, self._size, len(self.low), device=self.low.device)

    def _guide(self) -> Guide | None:
        if self.learner is None:
            return None
        return Guide(self.learner.value, self.learner.policy, self.learner.discount)

    def _refits(self) -> bool:
        return self.config.aggregate

    def _fitted(self) -> Metrics:
        return self.model.fit(self.replay.all(), generator=self.generator)

    def observe(self, step: Transition) -> None:
        """Store N real transitions.

        Raises:
            ValueError: wrong shapes, or a number that is not finite.
        """
        super().observe(step)
        self._observed += len(step.reward)

    def update(self) -> Metrics:
        """Refit the model if that is due; metrics of it, and of the plans of ended episodes."""
        if self.learner is not None and len(self.replay) >= self.config.random_steps:
            for _ in range(self.config.sac_updates * self._observed):
                batch = self.replay.sample(LEARNER_BATCH, generator=self.generator)
                self._learned.append(self.learner.update(batch, generator=self.generator))
                check_finite(self._learned[-1])
        self._observed = 0
        return super().update()

    def _said(self) -> dict[str, float]:
        """Means over the updates of the learner since the last call."""
        learned, self._learned = self._learned, []
        names = {name for metrics in learned for name in metrics}
        each = {name: [m[name] for m in learned if name in m] for name in sorted(names)}
        return {f"learner_{name}": float(sum(found)) / len(found) for name, found in each.items()}

    def state_dict(self) -> dict[str, Any]:
        """The model, the data, the current plans, the generators and the counters."""
        return super().state_dict() | {
            "learner": None if self.learner is None else self.learner.state_dict(),
            "learned": [{name: float(x) for name, x in m.items()} for m in self._learned],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, RuntimeError, KeyError: it is from a different agent.
        """
        super().load_state_dict(state)
        if self.learner is not None:
            self.learner.load_state_dict(state["learner"])
        self._learned = list(state["learned"])


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> PETS:
    """A new PETS agent; see `PETS`."""
    return PETS(spec, config, generator=generator, device=device)
