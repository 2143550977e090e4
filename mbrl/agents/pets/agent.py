"""The agent of PETS, with its model, its data and its current plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator

from mbrl.agents.controllers import Controller, Controllers
from mbrl.agents.guide import Guide
from mbrl.agents.pets.config import Config
from mbrl.agents.schedules import with_discount
from mbrl.data import Replay
from mbrl.distributions import Bounds
from mbrl.dynamics.own import OwnModel
from mbrl.learners.sac import SAC
from mbrl.nn.block import check_finite
from mbrl.rng import on_device
from mbrl.spaces import bounds, obs_size
from mbrl.types import Dynamics, Fittable, Metrics, Spec, Transition
from planners.checks import check_memory

LEARNER_BATCH = 256
"""Transitions in an update of the learner."""


class Model(Fittable, Dynamics, Protocol):
    """A model for PETS: it can step, be fitted and be saved, like a PyTorch module."""

    def state_dict(self) -> dict[str, Any]:
        """All learned values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any:
        """Restore what `state_dict` returned."""
        ...


class PETS:
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

    def __init__(
        self,
        spec: Spec,
        config: Config | None = None,
        *,
        model: Model | None = None,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config = config or Config.suited(spec)
        self.spec, self.generator = spec, generator
        own = model is not None or isinstance(config.model, OwnModel)  # may predict rewards
        if spec.reward is None and not (config.model.learn_reward or own):
            raise ValueError("the reward is not known: give it, or set model.learn_reward")
        self.low, self.high = bounds(spec.action, device=device)
        self.reward = None if config.model.learn_reward else spec.reward
        self.terminated = None if config.model.learn_termination else spec.terminated
        horizon = None
        if config.mpc.replan_every == 0:
            if spec.episode_steps is None:
                raise ValueError("replan_every 0 needs an episode of bounded length")
            horizon = -(-spec.episode_steps // config.mpc.action_repeat)
        size = obs_size(spec.obs)
        device = self.low.device
        if model is None:
            made: Any = config.model.make(size, len(self.low), generator=generator)
            made = made.to(device) if hasattr(made, "to") else made
        else:
            made = model
        self.mpc = config.mpc.build(self.low, self.high, horizon=horizon)
        self.replay = Replay(config.capacity, size, len(self.low), device=self.low.device)
        self.fit_every = config.fit_every
        if self.fit_every is None and spec.episode_steps is None:
            self.fit_every = config.random_steps
        self.learner = self._learner(size, generator)
        self._learned: list[Metrics] = []
        self._observed = 0
        self.fits = self.since_fit = 0
        self.due = False
        self._ended = np.zeros(0, dtype=bool)
        self._model = self._checked(made)
        self.playing = self._controllers(generator)

    def _learner(self, size: int, generator: Generator) -> SAC | None:
        if not self.config.guide:
            return None
        config = with_discount(self.config.sac, self.spec, 0.99)
        return SAC(size, Bounds(self.low, self.high), config, generator=generator)

    def _guide(self) -> Guide | None:
        if self.learner is None:
            return None
        return Guide(self.learner.value, self.learner.policy, self.learner.discount)

    @property
    def model(self) -> Model:
        """The model, which can be replaced by setting this attribute.

        Raises ValueError, when set, for a model that is not a fittable `Dynamics`, or whose number
        of members does not divide the number of particles.
        """
        return self._model

    @model.setter
    def model(self, model: Model) -> None:
        self._model = self._checked(model)
        self.playing = self._controllers(self.playing.generator)

    def _checked(self, model: Model) -> Model:
        if not (isinstance(model, Dynamics) and isinstance(model, Fittable)):
            raise ValueError(
                f"PETS needs a model that can step and be fitted (mbrl.types.Dynamics, Fittable), "
                f"not a {type(model).__name__}"
            )
        particles, members = self.config.mpc.particles, model.members
        all_see_all = self.config.mpc.propagation in ("expectation", "distribution")
        if not all_see_all and (particles < 1 or particles % members):
            raise ValueError(
                f"particles must be a positive multiple of the {members} members that step, "
                f"got {particles}"
            )
        check_memory(
            f"particles {particles}, horizon {self.mpc.planner.horizon}: the noise of a plan",
            4 * particles * self.mpc.planner.horizon * obs_size(self.spec.obs),
        )
        return model

    def _controllers(self, generator: Generator) -> Controllers:
        own = on_device(generator, self.low.device)
        return Controllers(lambda: self.controller(generator=own), generator=own)

    def controller(self, *, generator: Generator) -> Controller:
        """A new controller for one environment, which plans through the model."""
        return Controller(
            self.model,
            self.mpc,
            self.config.mpc,
            reward=self.reward,
            terminated=self.terminated,
            guide=self._guide(),
            generator=on_device(generator, self.low.device),
        )

    def player(self, *, generator: Generator) -> Controllers:
        """A player for evaluation episodes: the same model, but other plans and random stream."""
        return self._controllers(generator)

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, A): random before the first fit, planned after it."""
        if not self.fits:
            uniform = torch.rand((len(obs), len(self.low)), generator=self.generator).to(self.low)
            return (self.low + (self.high - self.low) * uniform).cpu().numpy()
        return self.playing.act(obs, explore=explore)

    def observe(self, step: Transition) -> None:
        """Store N real transitions.

        Raises:
            ValueError: wrong shapes, or a number that is not finite.
        """
        self.replay.append(step)
        self._observed += len(step.reward)
        self.since_fit += len(step.reward)
        self._ended = (step.terminated | step.truncated).numpy()
        wanted = self._ended.any() or (
            self.fit_every is not None and self.since_fit >= self.fit_every
        )
        allowed = self.config.aggregate or not self.fits
        self.due = wanted and allowed and len(self.replay) >= self.config.random_steps

    def update(self) -> Metrics:
        """Refit the model if that is due; metrics of it, and of the plans of ended episodes."""
        metrics: dict[str, float] = {}
        if self.learner is not None and len(self.replay) >= self.config.random_steps:
            for _ in range(self.config.sac_updates * self._observed):
                batch = self.replay.sample(LEARNER_BATCH, generator=self.generator)
                self._learned.append(self.learner.update(batch, generator=self.generator))
                check_finite(self._learned[-1])
        self._observed = 0
        if self._ended.any():
            metrics |= self.playing.said(self._ended) | self._learner_metrics()
            self.playing.reset(self._ended)
            self._ended = np.zeros_like(self._ended)
        if self.due:
            fitted = self.model.fit(self.replay.all(), generator=self.generator)
            metrics |= {f"model_{name}": value for name, value in fitted.items()}
            self.fits += 1
            self.since_fit = 0
            self.due = False
        return metrics

    def _learner_metrics(self) -> dict[str, float]:
        """Means over the updates of the learner since the last call."""
        learned, self._learned = self._learned, []
        names = {name for metrics in learned for name in metrics}
        each = {name: [m[name] for m in learned if name in m] for name in sorted(names)}
        return {f"learner_{name}": float(sum(found)) / len(found) for name, found in each.items()}

    def state_dict(self) -> dict[str, Any]:
        """The model, the data, the current plans, the generators and the counters."""
        return {
            "model": dict(self.model.state_dict()),
            "replay": self.replay.state_dict(),
            "generator": self.generator.get_state(),
            "playing": self.playing.state_dict(),
            "fits": self.fits,
            "since_fit": self.since_fit,
            "learner": None if self.learner is None else self.learner.state_dict(),
            "learned": [{name: float(x) for name, x in m.items()} for m in self._learned],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, RuntimeError, KeyError: it is from a different agent.
        """
        if min(state["fits"], state["since_fit"]) < 0:
            raise ValueError("fits and since_fit must be >= 0")
        self.model.load_state_dict(state["model"])
        self.replay.load_state_dict(state["replay"])
        self.generator.set_state(state["generator"].cpu())
        self.playing.load_state_dict(state["playing"])
        self.fits, self.since_fit = state["fits"], state["since_fit"]
        if self.learner is not None:
            self.learner.load_state_dict(state["learner"])
        self._learned = list(state["learned"])


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> PETS:
    """A new PETS agent; see `PETS`."""
    return PETS(spec, config, generator=generator, device=device)
