"""Dyna (Sutton 1990) with a Bayesian linear model and a deterministic policy gradient.

At intervals the model is fitted to all real transitions, and the policy is updated with real and
imagined ones. Imagined rollouts begin in real states and follow the policy for a few steps, each
particle with its own weight sample (as in MBPO, Janner et al. 2019).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Generator

from mbrl.agents.policies import PolicyPlayer
from mbrl.data import Replay
from mbrl.dynamics.neural import NeuralDynamics
from mbrl.imagination import rollout
from mbrl.parallel import single_thread
from mbrl.spaces import bounds, obs_size, random_actions
from mbrl.training.offline import fit_offline
from mbrl.types import Metrics, Spec, Transition
from tests.proof import bayesian_linear as bayes
from tests.proof import deterministic_policy_gradient as dpg


@dataclass(frozen=True)
class Config:
    """Dyna with a Bayesian linear model and a deterministic policy gradient."""

    model: bayes.Config = field(default_factory=bayes.Config)
    """The model and its fit."""
    learner: dpg.Config = field(default_factory=dpg.Config)
    """The policy and its updates."""
    random_steps: int = 20
    """Steps of uniformly random actions before the first burst."""
    every: int = 10
    """Environment steps between bursts."""
    real: int = 20
    """Updates in a burst from real transitions."""
    imagined: int = 60
    """Updates in a burst from imagined transitions; 0 makes it the learner alone."""
    starts: int = 100
    """Number of real observations from which imagined rollouts start in a burst."""
    horizon: int = 3
    """Imagined steps from each."""
    batch: int = 64
    """Transitions in an update."""
    capacity: int = 100_000
    """Real transitions kept."""

    @classmethod
    def suited(cls, spec: Spec) -> "Config":
        """The settings for an environment; ValueError if its termination is not known."""
        return cls(bayes.Config(learn_reward=spec.reward is None, learn_termination=spec.ends))


class Dyna:
    """An `Agent` and `ModelBased` of vectors and boxes; the reward must be known or learned."""

    def __init__(self, spec: Spec, config: Config, *, generator: Generator, device="cpu") -> None:
        self.spec, self.config, self.generator = spec, config, generator
        low, high = bounds(spec.action, device=device)
        size = obs_size(spec.obs)
        self.model = NeuralDynamics(size, len(low), config.model, generator=generator).to(device)
        self.learner = dpg.DeterministicPolicyGradient(
            size, low, high, config.learner, generator=generator
        )
        self.replay = Replay(config.capacity, size, len(low), device=device)
        self.reward = None if config.model.learn_reward else spec.reward
        self.terminated = spec.terminated
        if spec.reward is None and not config.model.learn_reward:
            raise ValueError("the reward is not known: give it, or set model.learn_reward")
        self.playing = self.player(generator=generator)
        self.fits = self.since = 0

    def player(self, *, generator: Generator) -> PolicyPlayer:
        """A player with the policy and its own generator."""
        return PolicyPlayer(
            self.learner.policy, device=self.learner.policy.low.device, generator=generator
        )

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, A): random before the first update, then those of the policy."""
        if not self.fits:
            return random_actions(self.spec.action, len(obs), generator=self.generator)
        return self.playing.act(obs, explore=explore)

    def observe(self, step: Transition) -> None:
        """Store N real transitions."""
        self.replay.append(step)
        self.since += len(step.reward)

    @single_thread()  # the products are small
    def update(self) -> Metrics:
        """A round of updates if it is due, else {}."""
        config = self.config
        if self.since < config.every or len(self.replay) < config.random_steps:
            return {}
        fitted = self.model.fit(self.replay.all(), generator=self.generator)
        said = {f"model_{name}": value for name, value in fitted.items()}
        sources = {"real": (self.replay, config.real)}
        if config.imagined:
            sources["imagined"] = (self.imagine(), config.imagined)
        for name, (data, updates) in sources.items():
            found = fit_offline(
                self.learner, data, updates=updates, batch=config.batch, generator=self.generator
            )
            said |= {f"{name}_{key}": value for key, value in found.items()}
        self.fits, self.since = self.fits + 1, 0
        return said

    def imagine(self) -> Replay:
        """Short rollouts of the policy from real states."""
        config = self.config
        starts = self.replay.sample(config.starts, generator=self.generator)
        steps = rollout(
            self.model,
            self.model.encode(starts.obs),
            self.learner.policy,
            horizon=config.horizon,
            particles=self.model.members,
            reward=self.reward,
            terminated=self.terminated,
            generator=self.generator,
        ).transitions()
        sizes = self.learner.size, steps.action.shape[-1]
        found = Replay(len(steps.reward), *sizes, device=steps.obs.device)
        found.append(steps)
        return found

    def state_dict(self) -> dict[str, Any]:
        parts = {name: dict(getattr(self, name).state_dict()) for name in PARTS}
        counts = {"fits": self.fits, "since": self.since}
        return parts | counts | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.fits, self.since = state["fits"], state["since"]
        self.generator.set_state(state["generator"].cpu())


PARTS = ("model", "learner", "replay")


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> Dyna:
    """A fresh agent; see `Dyna`."""
    return Dyna(spec, config, generator=generator, device=device)
