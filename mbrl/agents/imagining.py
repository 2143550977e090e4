"""The general recipe of Dyna: an off-policy learner that learns from real and imagined steps.

The model is refitted at intervals. After each fit there is a burst of short rollouts from states of
the replay buffer, which go into a buffer of their own, and every batch of the learner is drawn from
both (Sutton 1990; Janner et al. 2019, "When to trust your model", MBPO).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from mbrl.agents.dyna_config import DynaSchedule
from mbrl.agents.model_learning import ModelLearning, model_learning
from mbrl.data import Replay
from mbrl.imagination import branched, disagreement
from mbrl.imagination.branched import members_multiple
from mbrl.spaces import random_actions
from mbrl.types import GaussianDynamics, Learner, Metrics, Spec, Transition

LOOKED_AT = 1000
"""Imagined steps over which the members' disagreement is averaged."""


class Imagining(ModelLearning):
    """A `ModelLearning` agent whose learner also learns from imagined steps.

    Args:
        spec: the environment; observations must be a box of vectors, or indices.
        learner: as for `OffPolicy`.
        config: the schedule.
        discount: as for `OffPolicy`.
        generator: random stream of the agent, on the CPU.
        device: device of the learner, the model and the buffers.

    Attributes:
        imagined: the imagined transitions; None before the first burst.

    Raises:
        ValueError: as `ModelLearning`.
    """

    config: DynaSchedule

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
        self.imagined: Replay | None = None

    def _after_fit(self) -> Metrics:
        return self.imagine() if self.config.real < 1 else {}

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
        """As of `ModelLearning`, with the imagined transitions."""
        imagined = self.imagined
        return super().state_dict() | {
            "imagined": None if imagined is None else imagined.state_dict(),
            "imagined_capacity": 0 if imagined is None else imagined.capacity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, RuntimeError, KeyError: it is from a different agent.
        """
        super().load_state_dict(state)
        self.imagined = None
        if state["imagined"] is not None:
            self.imagined = self._buffer(state["imagined_capacity"])
            self.imagined.load_state_dict(state["imagined"])


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
    """`model_learning` of an agent that imagines steps."""
    return model_learning(
        kind, name, spec, config, settings, learners, generator=generator, device=device
    )
