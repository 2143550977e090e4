"""The general recipe of Dyna: an off-policy learner that learns from real and imagined steps.

The model is refitted at intervals. After each fit there is a burst of short rollouts from states of
the replay buffer, which go into a buffer of their own, and every batch of the learner is drawn from
both (Sutton 1990; Janner et al. 2019, "When to trust your model", MBPO).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mbrl.agents.controllers import Controller, Controllers
from mbrl.agents.dyna_config import DynaSchedule
from mbrl.agents.learned_model import LearnedModel
from mbrl.agents.makers import imported
from mbrl.agents.off_policy import OffPolicy
from mbrl.agents.policies import actions_of, kind_of
from mbrl.agents.schedules import with_discount
from mbrl.data import Replay
from mbrl.encoders.images import is_image
from mbrl.imagination import branched, disagreement
from mbrl.imagination.branched import members_multiple
from mbrl.rng import on_device
from mbrl.spaces import Vectors, bounds, random_actions
from mbrl.types import GaussianDynamics, Learner, Metrics, Spec, Transition

LOOKED_AT = 1000
"""Imagined steps over which the members' disagreement is averaged."""


class Imagining(OffPolicy):
    """An `Agent` and `ModelBased` with a replay buffer, a model, imagined steps and a learner.

    Args:
        spec: the environment; observations must be a box of vectors, or indices.
        learner: as for `OffPolicy`.
        config: the schedule.
        discount: as for `OffPolicy`.
        generator: random stream of the agent, on the CPU.
        device: device of the learner, the model and the buffers.

    Attributes:
        learned: the model with its reward, termination and fits.
        imagined: the imagined transitions; None before the first burst.

    Raises:
        ValueError: as `OffPolicy` and `LearnedModel`.
    """

    config: DynaSchedule
    _plans: Controllers | None = None

    def __init__(
        self,
        spec: Spec,
        learner: Learner,
        config: DynaSchedule,
        *,
        discount: float,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            spec, learner, config, discount=discount, generator=generator, device=device
        )
        self.learned = LearnedModel(spec, config.model, generator=generator, device=device)
        self.imagined: Replay | None = None
        self._ended = np.zeros(0, dtype=bool)
        if config.planning:
            self._plans = self._controllers(generator)

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
        """Refit the model and imagine steps if that is due; then the updates that are due."""
        config, metrics = self.config, dict[str, float]()
        if self._plans is not None and self.fits and self._ended.any():
            metrics |= self._plans.said(self._ended)
            self._plans.reset(self._ended)
        since = self.steps - config.learning_starts
        if since >= 0 and since // config.fit_every >= self.fits and len(self.replay) > 1:
            fitted = self.learned.fit(self.replay, margin=config.margin, generator=self.generator)
            metrics |= fitted
            if config.real < 1:
                metrics |= self.imagine()
        return {**metrics, **super().update()}

    @torch.no_grad()
    def imagine(self) -> Metrics:
        """A burst of rollouts into the buffer of imagined transitions."""
        config, learned = self.config, self.learned
        length = config.length(self.steps)
        starts = members_multiple(config.starts, learned.model.members)
        drawn = self.replay.sample(starts, generator=self.generator)
        first: Tensor | None = None
        if config.actions == "buffer":
            first = learned.vectors(drawn.action)
        elif config.actions == "random":
            uniform = random_actions(self.spec.action, starts, generator=self.generator)
            given = torch.as_tensor(uniform, device=self.device)
            first = learned.vectors(given - self._zero if self._zero is not None else given)
        found = branched(
            learned.model,
            learned.model.encode(drawn.obs),
            learned.policy(self.policy),
            horizon=length,
            first=first,
            propagation=config.propagation,
            reward=learned.reward,
            terminated=learned.terminated,
            halt=self.halt(drawn),
            bounds=learned.bounds,
            generator=self.generator,
        )
        rows = found.transitions
        self._keep(rows._replace(action=learned.indices(rows.action)), starts * length)
        said = {
            "rollout_horizon": float(length),
            "rollout_steps": found.steps,
            "rollout_terminated": found.terminated,
            "rollout_halted": found.halted,
            "rollout_dropped": found.dropped,
            "rollout_reward": float(rows.reward.mean()) if len(rows.reward) else 0.0,
        }
        if len(rows.reward) and isinstance(learned.model, GaussianDynamics):
            some = slice(None, None, -(-len(rows.reward) // LOOKED_AT))
            apart = disagreement(learned.model, rows.obs[some], rows.action[some])
            said["rollout_disagreement"] = float(apart.mean())
        return said

    def halt(self, starts: Transition) -> Any:
        """The rule of trust that cuts rollouts off; None: none."""
        return None

    @property
    def _zero(self) -> Tensor | None:
        """The first index of actions; None for a box."""
        return None if self._first is None else torch.as_tensor(self._first, device=self.device)

    def _keep(self, rows: Transition, burst: int) -> None:
        """Add imagined transitions; the buffer has room for `retain` bursts of this size."""
        capacity, kept = burst * self.config.retain, self.imagined
        if kept is None or kept.capacity != capacity:
            self.imagined = self._buffer(capacity)
            if kept is not None and len(kept):
                self.imagined.append(kept.all())
        assert self.imagined is not None
        if len(rows.reward):
            self.imagined.append(rows)

    def _buffer(self, capacity: int) -> Replay:
        return Replay(
            capacity,
            self.learned.size,
            tuple(self.spec.action.shape or ()),
            action_dtype=torch.float32 if self._first is None else torch.int64,
            device=self.device,
        )

    def _drawn(self, count: int) -> Transition:
        """A batch of real and imagined transitions."""
        if self.imagined is None or not len(self.imagined):
            return super()._drawn(count)
        real = int(self.config.real * count)
        parts = [self.imagined.sample(count - real, generator=self.generator)]
        if real:
            parts.append(self.replay.sample(real, generator=self.generator))
        return Transition(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """As of `OffPolicy`, with the model and the imagined transitions."""
        imagined = self.imagined
        return super().state_dict() | {
            "learned": self.learned.state_dict(),
            "imagined": None if imagined is None else imagined.state_dict(),
            "imagined_capacity": 0 if imagined is None else imagined.capacity,
            "plans": None if self._plans is None else self._plans.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, RuntimeError, KeyError: it is from a different agent.
        """
        super().load_state_dict(state)
        self.learned.load_state_dict(state["learned"])
        self.imagined = None
        if state["imagined"] is not None:
            self.imagined = self._buffer(state["imagined_capacity"])
            self.imagined.load_state_dict(state["imagined"])
        if self._plans is not None:
            self._plans.load_state_dict(state["plans"])


def imagining(
    name: str,
    spec: Spec,
    config: DynaSchedule,
    settings: Any,
    learners: Mapping[str, str],
    *,
    generator: Generator,
    device: torch.device | str = "cpu",
    kind: type[Imagining] = Imagining,
) -> Imagining:
    """The agent of an environment.

    Args:
        name: of the algorithm, for messages.
        spec: the environment.
        config: the schedule.
        settings: of the learner.
        learners: "module:class" of the learner for each of the `KINDS` of actions that there may
            be.
        generator: draws the initial weights, and then whatever the agent draws.
        device: where it is to be.
        kind: the class of the agent.

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
