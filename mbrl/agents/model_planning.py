"""An agent that fits a model to what it sees, and plans every action through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator

from mbrl.agents.controllers import Controller, Controllers
from mbrl.agents.guide import Guide
from mbrl.imagination.propagation import check_particles
from mbrl.rng import on_device
from mbrl.spaces import bounds
from mbrl.types import Dynamics, Fittable, Metrics, Spec, Transition
from planners.checks import check_memory


class Model(Fittable, Dynamics, Protocol):
    """A model that can step, be fitted and be saved, like a PyTorch module."""

    def state_dict(self) -> dict[str, Any]:
        """All learned values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any:
        """Restore what `state_dict` returned."""
        ...


class ModelPlanning(ABC):
    """An `Agent` and `ModelBased` that learns a model and plans through it, in N environments.

    It acts at random until the first fit, which comes at the end of an episode; the model is
    refitted at the end of each later one. A subclass makes the model and the replay buffer, and
    says how the model is fitted.

    Args:
        spec: the environment; actions must be in a bounded box.
        config: settings: `mpc`, `model`, `random_steps`, `fit_every`.
        model: a model to take the place of that of `config.model`.
        generator: random stream of the agent, on the CPU.
        device: device of the model and the plans.

    Raises:
        ValueError: settings out of range; a reward that is neither known nor learned; particles
            that are not a multiple of the members; a propagation or a penalty for which the model
            would have to predict a Gaussian; a planner that needs more of the model or the settings
            (see `Controller`); other kinds of spaces.
    """

    replay: Any

    def __init__(
        self,
        spec: Spec,
        config: Any,
        *,
        model: Any = None,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.spec, self.generator = config, spec, generator
        self.low, self.high = bounds(spec.action, device=device)
        self.reward = None if config.model.learn_reward else spec.reward
        self.terminated = None if config.model.learn_termination else spec.terminated
        horizon = None
        if config.mpc.replan_every == 0:
            if spec.episode_steps is None:
                raise ValueError("replan_every 0 needs an episode of bounded length")
            horizon = -(-spec.episode_steps // config.mpc.action_repeat)
        made: Any = model
        if made is None:
            made = self._make_model()
            made = made.to(self.low.device) if hasattr(made, "to") else made
        self.mpc = config.mpc.build(self.low, self.high, horizon=horizon)
        self.replay = self._make_replay()
        self.fit_every = config.fit_every
        if self.fit_every is None and spec.episode_steps is None:
            self.fit_every = config.random_steps
        self.fits = self.since_fit = 0
        self.due = False
        self._ended = np.zeros(0, dtype=bool)
        self._model = self._checked(made)
        self.playing = self._controllers(generator)

    @abstractmethod
    def _make_model(self) -> Any:
        """The model of the settings."""

    @abstractmethod
    def _make_replay(self) -> Any:
        """An empty replay buffer."""

    @abstractmethod
    def _fitted(self) -> Metrics:
        """Fit the model to the replay buffer."""

    def _guide(self) -> Guide | None:
        """What guides the plans."""
        return None

    def _refits(self) -> bool:
        """Whether the model is fitted again after its first fit."""
        return True

    @property
    def model(self) -> Model:
        """The model, which can be replaced by setting this attribute.

        Raises ValueError, when set, for a model that is not a fittable `Dynamics`, whose number of
        members does not divide the number of particles, or that predicts no Gaussian or has no
        derivatives where the settings need them.
        """
        return self._model

    @model.setter
    def model(self, model: Model) -> None:
        self._model = self._checked(model)
        self.playing = self._controllers(self.playing.generator)

    def _checked(self, model: Model) -> Model:
        if not (isinstance(model, Dynamics) and isinstance(model, Fittable)):
            raise ValueError(
                f"{type(self).__name__} needs a model that can step and be fitted "
                f"(mbrl.types.Dynamics, Fittable), not a {type(model).__name__}"
            )
        particles, members = self.config.mpc.particles, model.members
        all_see_all = self.config.mpc.propagation in ("expectation", "distribution")
        if not all_see_all and (particles < 1 or particles % members):
            raise ValueError(
                f"particles must be a positive multiple of the {members} members that step, "
                f"got {particles}"
            )
        mpc = self.config.mpc
        check_particles(model, mpc.propagation, particles, self.mpc.planner.horizon, mpc.penalty)
        check_memory(
            f"particles {particles}, horizon {self.mpc.planner.horizon}: the noise of a plan",
            4 * particles * self.mpc.planner.horizon * max(1, *model.noise_shape),
        )
        # what the planner needs of the model and the settings is asked for now, not after a fit
        own, ends = self.reward, self.terminated
        Controller(model, self.mpc, mpc, reward=own, terminated=ends, generator=Generator())
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
        self.since_fit += len(step.reward)
        self._ended = (step.terminated | step.truncated).numpy()
        wanted = self._ended.any() or (
            self.fit_every is not None and self.since_fit >= self.fit_every
        )
        allowed = self._refits() or not self.fits
        self.due = wanted and allowed and len(self.replay) >= self.config.random_steps

    def give_up(self, places: np.ndarray) -> None:
        """Forget the plans of episodes that do not go on; see `mbrl.types.Resumed`."""
        self.playing.reset(places)

    def update(self) -> Metrics:
        """Refit the model if that is due; metrics of it, and of the plans of ended episodes."""
        metrics: dict[str, float] = {}
        if self._ended.any():
            metrics |= self.playing.said(self._ended) | self._said()
            self.playing.reset(self._ended)
            self._ended = np.zeros_like(self._ended)
        if self.due:
            metrics |= {f"model_{name}": value for name, value in self._fitted().items()}
            self.fits += 1
            self.since_fit = 0
            self.due = False
        return metrics

    def _said(self) -> dict[str, float]:
        """Further metrics at the end of an episode."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The model, the data, the current plans, the generators and the counters."""
        return {
            "model": dict(self.model.state_dict()),
            "replay": self.replay.state_dict(),
            "generator": self.generator.get_state(),
            "playing": self.playing.state_dict(),
            "fits": self.fits,
            "since_fit": self.since_fit,
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
