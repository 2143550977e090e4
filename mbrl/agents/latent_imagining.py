"""An agent whose policy learns from imagined steps in the latent space of a recurrent model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mbrl.agents.latent_replay import LatentReplay
from mbrl.agents.schedules import with_discount
from mbrl.data import Replay
from mbrl.distributions import Bounds
from mbrl.imagination import branched
from mbrl.learners.sac import SAC
from mbrl.nn.block import check_finite
from mbrl.rng import on_device
from mbrl.spaces import bounds, random_actions
from mbrl.types import Dynamics, Metrics, Policy, Spec, Transition


class FilteringPlayer:
    """A `Player` that acts by a policy on the states that a model filters.

    Args:
        model: the dynamics.
        policy: of its states.
        device: of both.
        generator: random stream of the policy's draws.
    """

    def __init__(
        self, model: Dynamics, policy: Policy, *, device: torch.device, generator: Generator
    ) -> None:
        self.model, self.policy, self.device = model, policy, device
        self.generator = on_device(generator, device)
        self.state: Tensor | None = None  # (N, S)
        self.action: Tensor | None = None  # (N, A)
        self.begins: Tensor | None = None  # (N,) bool

    @torch.no_grad()
    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, A) for observations (N, *O), after those before."""
        seen = torch.as_tensor(obs, device=self.device)
        if seen.ndim != 4:  # images stay as they are
            seen = seen.float()
        if self.state is None or len(self.state) != len(seen):
            state = self.model.encode(seen)
        else:
            state = self.model.encode(seen, state=self.state, action=self.action)
            if self.begins is not None and bool(self.begins.any()):
                fresh = self.model.encode(seen)
                state = torch.where(self.begins.unsqueeze(-1), fresh, state)
        action = self.policy(state, generator=self.generator, explore=explore)
        self.state, self.action, self.begins = state, action, None
        return action.cpu().numpy()

    def reset(self, begins: np.ndarray) -> None:
        """Forget the states of the environments where `begins` (N,) is True."""
        fresh = torch.as_tensor(begins, device=self.device)
        self.begins = fresh if self.begins is None else self.begins | fresh

    def state_dict(self) -> dict[str, Any]:
        """The last states and actions, and the generator."""
        kept = {name: getattr(self, name) for name in ("state", "action", "begins")}
        own = {name: None if x is None else x.clone() for name, x in kept.items()}
        return own | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name in ("state", "action", "begins"):
            found = state[name]
            setattr(self, name, None if found is None else found.to(self.device).clone())
        self.generator.set_state(state["generator"].cpu())


class LatentImagining:
    """An `Agent` and `ModelBased` with a recurrent model and soft actor-critic on its states.

    Every `fit_every` steps the model is fitted to sequences, and a burst of rollouts by the policy
    starts from each filtered state of some sequences. The learner's batches are drawn from the last
    burst and from the real steps between those states, since older states are those of an older
    model.

    Args:
        spec: the environment; observations must be vectors or images, actions in a bounded box.
        config: settings, a `mbrl.agents.latent_mbpo.Config`.
        generator: random stream of the agent, on the CPU.
        device: device of the model, the learner and the buffers.

    Attributes:
        steps: environment steps so far.
        fits: how often the model was fitted.

    Raises:
        ValueError: as `LatentReplay`; images that are too small.
    """

    reward = None  # the model predicts it

    def __init__(
        self,
        spec: Spec,
        config: Any,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        if not config.model.learn_reward:
            raise ValueError("model.learn_reward: rollouts need rewards; want True")
        self.spec, self.config, self.generator = spec, config, generator
        self.terminated = None if config.model.learn_termination else spec.terminated
        self.device = torch.device(device)
        self.replay = LatentReplay(spec, config.model, config.capacity, device=device)
        low, high = bounds(spec.action, device=device)
        made = config.model.make(self.replay.shape, len(low), generator=generator)
        self.model: Any = made.to(self.device)
        own = with_discount(config.learner, spec, 0.99)
        self.learner = SAC(self.model.size, Bounds(low, high), own, generator=generator)
        self.steps = self.fits = self.fitted_at = 0
        self._ended = np.zeros(0, dtype=bool)
        self.playing = self.player(generator=generator)

    def run_for(self, steps: int) -> None:
        """Say how many environment steps the run has, over which step sizes may change."""
        self.learner.run_for(steps)

    def player(self, *, generator: Generator) -> FilteringPlayer:
        """A player for evaluation episodes: the same weights, another random stream."""
        policy = self.learner.policy
        return FilteringPlayer(self.model, policy, device=self.device, generator=generator)

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, A): random before the first fit, then the policy's."""
        if not self.fits:
            return random_actions(self.spec.action, len(obs), generator=self.generator)
        return self.playing.act(obs, explore=explore)

    def observe(self, step: Transition) -> None:
        """Store N real transitions.

        Raises:
            ValueError: wrong shapes, or a number that is not finite; another N than before.
        """
        self.replay.append(step)
        self.steps += len(step.reward)
        self.learner.progress(self.steps)
        self._ended = (step.terminated | step.truncated).numpy()

    def give_up(self, places: np.ndarray) -> None:
        """Forget the states of episodes that do not go on, and end their sequences there."""
        self.playing.reset(places)
        self.replay.give_up(torch.from_numpy(places))

    def update(self) -> Metrics:
        """Every `fit_every` steps, the updates of the model and of the learner."""
        config = self.config
        if self._ended.any():
            self.playing.reset(self._ended)
            self._ended = np.zeros_like(self._ended)
        since = self.steps - self.fitted_at
        early = self.steps < config.random_steps or (self.fits and since < config.fit_every)
        if early or not self.replay.ready:
            return {}
        first = None if self.fits else config.first_updates
        fitted = self.model.fit(self.replay, updates=first, generator=self.generator)
        metrics = {f"model_{name}": value for name, value in fitted.items()}
        real, imagined, said = self.imagine()
        count = config.updates * (since if self.fits else config.fit_every)
        metrics |= said | self._learn(real, imagined, count)
        self.fits, self.fitted_at = self.fits + 1, self.steps
        return metrics

    @torch.no_grad()
    def imagine(self) -> tuple[Replay, Replay, dict[str, float]]:
        """Real steps between filtered states, imagined ones from these states, and metrics."""
        config, length = self.config, self.config.model.length
        data = self.replay.sequences(config.sequences, length, generator=self.generator)
        shape = config.sequences, length + 1, *self.model.noise_shape
        noise = torch.randn(shape, generator=self.generator).to(self.device)
        states = self.model.states(data, noise)
        starts, after = (part.flatten(0, 1) for part in (states[:, :-1], states[:, 1:]))
        columns = (part.flatten(0, 1) for part in data[1:])
        action, reward, _, terminated, truncated = columns
        real = Transition(starts, action, reward, after, terminated, truncated)
        found = branched(
            self.model,
            starts,
            self.learner.policy,
            horizon=config.horizon,
            propagation="tsinf",
            terminated=self.terminated,
            generator=on_device(self.generator, self.device),
        )
        rows = found.transitions
        said = {
            "rollout_steps": found.steps,
            "rollout_terminated": found.terminated,
            "rollout_reward": float(rows.reward.mean()) if len(rows.reward) else 0.0,
            "real_reward": float(reward.mean()),
        }
        return self._buffer(real), self._buffer(rows), said

    def _buffer(self, rows: Transition) -> Replay:
        capacity = max(1, len(rows.reward))
        made = Replay(capacity, self.model.size, rows.action.shape[-1], device=self.device)
        if len(rows.reward):
            made.append(rows)
        return made

    def _learn(self, real: Replay, imagined: Replay, updates: int) -> dict[str, float]:
        """Updates of the learner; means of their metrics."""
        config, totals = self.config, dict[str, float]()
        count = round(config.real * config.batch) if len(imagined) else config.batch
        parts = [(real, count), (imagined, config.batch - count)]
        for _ in range(updates):
            drawn = [
                buffer.sample(rows, generator=self.generator) for buffer, rows in parts if rows
            ]
            batch = Transition(*(torch.cat(columns) for columns in zip(*drawn, strict=True)))
            metrics = self.learner.update(batch, generator=self.generator)
            now = {name: float(value) for name, value in metrics.items()}
            check_finite(now)
            for name, value in now.items():
                totals[name] = totals.get(name, 0.0) + value
        return {name: total / updates for name, total in totals.items()}

    def state_dict(self) -> dict[str, Any]:
        """The model, the learner, the data, the states of episodes, the generator and counters."""
        return {
            "model": dict(self.model.state_dict()),
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "playing": self.playing.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
            "fits": self.fits,
            "fitted_at": self.fitted_at,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, RuntimeError, KeyError: it is from a different agent.
        """
        counts = "steps", "fits", "fitted_at"
        if min(state[name] for name in counts) < 0:
            raise ValueError(f"{', '.join(counts)} must be >= 0")
        for name in ("model", "learner", "replay", "playing"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"].cpu())
        for name in counts:
            setattr(self, name, state[name])
