"""PETS: probabilistic ensembles with trajectory sampling.

Chua et al. 2018, "Deep reinforcement learning in a handful of trials using probabilistic
dynamics models". Three settings make the versions of model-based RL:

0.5  plan once an episode, model from random data only   aggregate=False, replan_every=0
1.0  + add what was executed to the data                 aggregate=True,  replan_every=0
1.5  + replan after every action (MPC)                   aggregate=True,  replan_every=1
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from mbrl.agents.mpc import Controller, MPCConfig
from mbrl.data import Replay
from mbrl.dynamics.ensemble import Ensemble, EnsembleConfig
from mbrl.types import Metrics, RewardFn, TerminatedFn, Transition


@dataclass(frozen=True)
class PETSConfig(MPCConfig):
    """Probabilistic ensembles with trajectory sampling: plan through a learned model."""

    particles: int = 20
    """Trajectories sampled per candidate, a multiple of the members that step."""
    model: EnsembleConfig = field(default_factory=EnsembleConfig)
    """The ensemble and its fit."""
    random_steps: int = 200
    """Steps of uniformly random actions before the first fit."""
    aggregate: bool = True
    """Refit on executed data after every episode; without, only on the random steps."""
    fit_every: int | None = None
    """Refit also after this many steps within an episode."""
    capacity: int = 1_000_000
    """Transitions kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.random_steps < 2:
            raise ValueError(f"random_steps must be >= 2, got {self.random_steps}")
        for name in ("fit_every", "capacity"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")


class PETS:
    """An `Agent` that learns an ensemble and plans through it.

    Args:
        obs_size: O.
        low, high: bounds of the action box (A,); their device is where all runs.
        config: the recipe.
        reward: the known reward, or None: then the model must learn it.
        terminated: the known termination, or None for what the model says.
        episode_steps: the most steps of an episode; needed with `replan_every` 0.
        generator: all the agent's randomness, on the CPU.

    Raises:
        ValueError: settings out of range; no reward, known or learned; particles that are not
            a multiple of the members.
    """

    def __init__(
        self,
        obs_size: int,
        low: Tensor,
        high: Tensor,
        config: PETSConfig | None = None,
        *,
        reward: RewardFn | None = None,
        terminated: TerminatedFn | None = None,
        episode_steps: int | None = None,
        generator: Generator,
    ) -> None:
        self.config = config = config or PETSConfig()
        if reward is None and not config.model.learn_reward:
            raise ValueError("the reward is not known: give it, or set model.learn_reward")
        horizon = None
        if config.replan_every == 0:
            if episode_steps is None:
                raise ValueError("replan_every 0 needs an episode of bounded length")
            horizon = -(-episode_steps // config.action_repeat)
        self.low, self.high, self.generator = low, high, generator
        self.reward, self.terminated = reward, terminated
        self.model = Ensemble(obs_size, len(low), config.model, generator=generator)
        self.model.to(low.device)
        members = self.model.members
        if config.propagation not in ("expectation", "distribution") and (
            config.particles < 1 or config.particles % members
        ):
            raise ValueError(
                f"particles must be a positive multiple of the {members} members that step, "
                f"got {config.particles}"
            )
        self.mpc = config.build(low, high, horizon=horizon)
        self.replay = Replay(config.capacity, obs_size, len(low), device=low.device)
        self.fits = self.since_fit = 0
        self.due = self._ended = False
        self.playing = self.controller(generator=generator)

    def controller(self, *, generator: Generator) -> Controller:
        """A player of episodes with a plan and randomness of its own; it shares the model."""
        return Controller(
            self.model,
            self.mpc,
            self.config,
            reward=self.reward,
            terminated=self.terminated,
            generator=_on(generator, self.low.device),
        )

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """One action (A,): random before the first fit, planned after it."""
        if not self.fits:
            uniform = torch.rand(self.low.shape, generator=self.generator).to(self.low)
            return (self.low + (self.high - self.low) * uniform).cpu().numpy()
        return self.playing.act(obs)

    def observe(self, step: Transition) -> None:
        """Remember one real transition.

        Raises:
            ValueError: wrong shapes, or a number that is not finite.
        """
        self.replay.append(step)
        self.since_fit += 1
        ended = bool(step.terminated | step.truncated)
        every = self.config.fit_every
        wanted = ended or (every is not None and self.since_fit >= every)
        allowed = self.config.aggregate or not self.fits
        self.due = wanted and allowed and len(self.replay) >= self.config.random_steps
        self._ended = ended

    def update(self) -> Metrics:
        """Close an episode's books and refit where it is due; {} when nothing is."""
        metrics: dict[str, float] = {}
        if self._ended:
            playing = self.playing
            if playing.plans:
                metrics |= {
                    "plans": playing.plans,
                    "expected_score": playing.expected,
                    "evaluated": playing.evaluated,
                    "rejected": playing.rejected,
                }
            playing.reset()
        if self.due:
            fitted = self.model.fit(self.replay.all(), generator=self.generator)
            metrics |= {f"model_{name}": value for name, value in fitted.items()}
            self.fits += 1
            self.since_fit = 0
            self.due = False
        return metrics

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The model's weights, and everything else as tensors and plain values."""
        return self.model.state_dict(), {
            "replay": self.replay.state_dict(),
            "generator": self.generator.get_state(),
            "playing": self.playing.state_dict(),
            "playing_generator": self.playing.generator.get_state(),
            "fits": self.fits,
            "since_fit": self.since_fit,
        }

    def load_state_dict(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError, RuntimeError, KeyError: it is another agent's.
        """
        self.model.load_state_dict(weights)
        self.replay.load_state_dict(state["replay"])
        self.generator.set_state(state["generator"].cpu())
        self.playing.load_state_dict(state["playing"])
        self.playing.generator.set_state(state["playing_generator"].cpu())
        self.fits, self.since_fit = state["fits"], state["since_fit"]


def _on(generator: Generator, device: torch.device) -> Generator:
    """The generator itself, or one on the device seeded from it."""
    if generator.device.type == device.type:
        return generator
    seed = torch.randint(2**62, (), generator=generator)
    return torch.Generator(device).manual_seed(int(seed))


def version(name: Literal["0.5", "1.0", "1.5"], config: PETSConfig) -> PETSConfig:
    """`config` as one of the versions in this module's table."""
    return replace(
        config,
        aggregate=name != "0.5",
        replan_every=config.replan_every or 1 if name == "1.5" else 0,
    )
