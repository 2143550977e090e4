"""An agent that plans in the latent space of a world model, and learns it from sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mbrl.agents.controllers import Controller, Controllers
from mbrl.agents.guide import Guide
from mbrl.agents.off_policy import CAPACITY, CAPACITY_OF_IMAGES
from mbrl.agents.world_config import WorldSchedule
from mbrl.data.sequences import SequenceReplay
from mbrl.encoders.images import Images, is_image, random_shift
from mbrl.learners.tdmpc import TDMPC
from mbrl.nn.block import check_finite
from mbrl.rng import on_device
from mbrl.spaces import Vectors, bounds, random_actions
from mbrl.types import Metrics, Spec, Transition


class WorldPlanning:
    """An `Agent` with a replay buffer of sequences and the learner of TD-MPC2, in N environments.

    Args:
        spec: the environment.
        learner: the learner, of observations that are vectors or images.
        config: the schedule, and the settings of planning.
        generator: random stream of the agent, on the CPU.
        device: device of the learner and of the replay buffer.

    Attributes:
        steps: environment steps so far.
        updates: updates of the learner so far.

    Raises:
        ValueError: a replay buffer that does not fit into memory, or is shorter than a sequence.
    """

    def __init__(
        self,
        spec: Spec,
        learner: TDMPC,
        config: WorldSchedule,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.spec, self.learner, self.config, self.generator = spec, learner, config, generator
        self.device, self.steps, self.updates = torch.device(device), 0, 0
        self._image = is_image(spec.obs)
        self.vectors = (
            Images(spec.obs.shape or (), device=device)
            if self._image
            else Vectors(spec.obs, device=device)
        )
        self.random_steps = config.random_steps or max(1000, 5 * (spec.episode_steps or 0))
        self.replay = self._buffer(1)
        self.mpc = config.plan.build(*bounds(spec.action, device=device))
        world = learner.world
        self._guide = Guide(world.value, learner.policy, learner.discount, of_states=True)
        self.playing = self.player(generator=generator)
        self._ended = np.zeros(0, dtype=bool)
        self._logged = 0
        self._totals: dict[str, float | Tensor] = {}
        self._counted = 0

    def _buffer(self, environments: int) -> SequenceReplay:
        config = self.config
        capacity = config.capacity or (CAPACITY_OF_IMAGES if self._image else CAPACITY)
        least = config.learner.horizon * environments
        if capacity < least:
            raise ValueError(f"capacity: want {least} or more, for one sequence, got {capacity}")
        return SequenceReplay(
            capacity,
            self.vectors.size,
            tuple(self.spec.action.shape or ()),
            environments=environments,
            obs_dtype=torch.uint8 if self._image else torch.float32,
            distinct=self._image,
            device=self.device,
        )

    def _state(self, obs: np.ndarray) -> Tensor:
        """The latent state (Z,) of an observation (*O,)."""
        return self.learner.world.encode(self.vectors(obs[None]))[0]

    def player(self, *, generator: Generator) -> Controllers:
        """A player for evaluation episodes: the same world, other plans and random stream."""
        own = on_device(generator, self.device)
        return Controllers(lambda: self.controller(generator=own), generator=own)

    def controller(self, *, generator: Generator) -> Controller:
        """A new controller for one environment, which plans in latent space."""
        return Controller(
            self.learner.world,
            self.mpc,
            self.config.plan,
            reward=None,
            terminated=None,
            state_of=self._state,
            guide=self._guide,
            generator=on_device(generator, self.device),
        )

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, A): random at first, then planned."""
        if self.steps < self.random_steps:
            return random_actions(self.spec.action, len(obs), generator=self.generator)
        return self.playing.act(obs, explore=explore)

    def observe(self, step: Transition) -> None:
        """Store N transitions.

        Raises:
            ValueError: wrong shapes, a number that is not finite, or another N than before.
        """
        count = len(step.reward)
        if not self.steps and count != self.replay.environments:
            self.replay = self._buffer(count)
        if count != self.replay.environments:
            raise ValueError(
                f"want transitions of {self.replay.environments} environments, got {count}"
            )
        obs, next_obs = self.vectors(step.obs), self.vectors(step.next_obs)
        self.replay.append(step._replace(obs=obs, next_obs=next_obs))
        self.steps += count
        self._ended = (step.terminated | step.truncated).numpy()

    def give_up(self, places: np.ndarray) -> None:
        """Forget the plans of episodes that do not go on, and end their sequences there."""
        self.playing.reset(places)
        self.replay.give_up(torch.from_numpy(places))

    def update(self) -> Metrics:
        """Do the updates that are due.

        Returns:
            Every `log_every` steps the means of their metrics, and numbers of the plans of the
            episodes that ended.

        Raises:
            Diverged: a metric of an update is not finite.
            ValueError: no episode is as long as a sequence.
        """
        metrics: dict[str, float] = {}
        if self._ended.any():
            metrics |= self.playing.said(self._ended)
            self.playing.reset(self._ended)
            self._ended = np.zeros_like(self._ended)
        due = self._due()
        while self.updates < due:
            said = self.learner.update(self._drawn(), generator=self.generator)
            self.updates += 1
            if self.device.type == "cpu":  # elsewhere a number would have to be waited for
                said = {name: float(value) for name, value in said.items()}
                check_finite(said)
            for name, value in said.items():
                self._totals[name] = self._totals.get(name, 0.0) + value
            self._counted += 1
        logged = self.steps // self.config.log_every
        if logged > self._logged and self._counted:
            means = {name: float(x) / self._counted for name, x in self._totals.items()}
            check_finite(means)
            metrics |= means | {"updates": self.updates}
            self._totals, self._counted = {}, 0
        self._logged = logged
        return metrics

    def _due(self) -> int:
        """Updates that should have been done by now."""
        config, since = self.config, self.steps - self.random_steps
        if since < 0 or self.steps < config.learner.horizon * self.replay.environments:
            return 0  # in many environments no sequence may be complete after the random steps
        first = config.first_updates
        if first is None:
            first = self.random_steps // config.train_every * config.updates
        return first + since // config.train_every * config.updates

    def _drawn(self) -> Transition:
        """Sequences drawn uniformly, their images shifted as the settings say."""
        config = self.config
        batch = self.replay.sequences(
            config.batch, config.learner.horizon, generator=self.generator
        )
        if not (self._image and config.images.shift):
            return batch
        obs, next_obs = (
            random_shift(x.flatten(0, 1), config.images.shift, generator=self.generator).view_as(x)
            for x in (batch.obs, batch.next_obs)
        )
        return batch._replace(obs=obs, next_obs=next_obs)

    def state_dict(self) -> dict[str, Any]:
        """The learner, the data, the current plans, the generators and the counters."""
        return {
            "learner": self.learner.state_dict(),
            "environments": self.replay.environments,
            "replay": self.replay.state_dict(),
            "playing": self.playing.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
            "updates": self.updates,
            "totals": {name: float(total) for name, total in self._totals.items()},
            "counted": self._counted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is from a different agent.
        """
        if min(state[name] for name in ("steps", "updates", "counted")) < 0:
            raise ValueError("steps, updates and counted must be >= 0")
        if state["environments"] < 1:
            raise ValueError(f"environments must be >= 1, got {state['environments']}")
        self.learner.load_state_dict(state["learner"])
        self.replay = self._buffer(state["environments"])
        self.replay.load_state_dict(state["replay"])
        self.playing.load_state_dict(state["playing"])
        self.generator.set_state(state["generator"].cpu())
        self.steps, self.updates = state["steps"], state["updates"]
        self._totals = {name: float(total) for name, total in state["totals"].items()}
        self._counted = state["counted"]
        self._logged = self.steps // self.config.log_every
        self._ended = np.zeros(0, dtype=bool)
