"""The general recipe of Dyna: an off-policy learner that learns from real and imagined steps.

The model is refitted at intervals. After each fit there is a burst of short rollouts from states of
the replay buffer, which go into a buffer of their own, and every batch of the learner is drawn from
both (Sutton 1990; Janner et al. 2019, "When to trust your model", MBPO).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mbrl.agents.dyna_config import DynaSchedule
from mbrl.agents.model_learning import ModelLearning
from mbrl.data import Replay
from mbrl.imagination import Halt, branched, disagreement
from mbrl.imagination.branched import members_multiple
from mbrl.imagination.trust import Infoprop, InformationLimits, Macura
from mbrl.spaces import random_actions
from mbrl.types import GaussianDynamics, Metrics, Transition

LOOKED_AT = 1000
"""Imagined steps over which the members' disagreement is averaged."""


class Imagining(ModelLearning):
    """A `ModelLearning` agent whose learner also learns from imagined steps.

    Attributes:
        imagined: the imagined transitions; None before the first burst.
    """

    config: DynaSchedule

    def _prepare(self) -> None:
        config = self.config
        self.imagined: Replay | None = None
        self._bursts: list[int] = []  # transitions of those that are kept, with a rule of trust
        self._macura = Macura(
            factor=config.macura.factor,
            quantile=config.macura.quantile,
            reward=self.learned.learns_reward,
        )
        model: object = self.learned.model
        if config.trust != "none" and not (
            isinstance(model, GaussianDynamics) and model.members > 1
        ):
            raise ValueError(
                f"trust: {config.trust} needs a model with `predict` (mbrl.types.GaussianDynamics) "
                f"and two members or more, not a {type(model).__name__}"
            )

    def _after_fit(self) -> Metrics:
        return self.imagine() if self.config.real < 1 else {}

    @torch.no_grad()
    def imagine(self) -> Metrics:
        """A burst of rollouts into the buffer of imagined transitions."""
        config, learned = self.config, self.learned
        length = config.length(self.steps)
        learned.resample(self.generator)
        starts = members_multiple(config.starts, learned.model.members)
        drawn = self.replay.sample(starts, generator=self.generator)
        first: Tensor | None = None
        if config.actions == "buffer":
            first = learned.vectors(drawn.action)
        elif config.actions == "random":
            uniform = random_actions(self.spec.action, starts, generator=self.generator)
            given = torch.as_tensor(uniform, device=self.device)
            first = learned.vectors(given - self._zero if self._zero is not None else given)
        state, policy = learned.model.encode(drawn.obs), learned.policy(self.policy)
        if first is None and config.trust == "macura":  # its limit is that of these very steps
            first = policy(state, generator=self.generator, explore=True)
        model, halt, limits = self._trusted(state, learned.vectors(drawn.action), first)
        found = branched(
            model,
            state,
            policy,
            horizon=length,
            first=first,
            propagation=config.propagation,
            reward=learned.reward,
            terminated=learned.terminated,
            halt=halt,
            bounds=learned.bounds,
            generator=self.generator,
        )
        rows = found.transitions
        self._keep(rows._replace(action=learned.indices(rows.action)), starts * length)
        said = limits | {
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

    def _trusted(
        self, state: Tensor, action: Tensor, first: Tensor | None
    ) -> tuple[Any, Halt | None, dict[str, float]]:
        """The model that is rolled, the rule that ends rollouts, and its limits as metrics.

        Args:
            state: where the burst starts.
            action: what was really done there.
            first: the first actions of the rollouts.
        """
        config, learned = self.config, self.learned
        model = learned.model
        if config.trust == "macura":
            assert first is not None
            self._macura.begin(model, state, first)
            return model, self._macura.halt(model), {"trust_kappa": self._macura.kappa}
        if config.trust == "infoprop":
            own = config.infoprop
            fused = Infoprop(
                model,
                reward=learned.learns_reward,
                termination=learned.learns_termination,
                unit=own.unit,
                size=learned.size,
            )
            limits = InformationLimits.of(
                fused, state, action, step=own.step, total=own.total, steps=own.steps
            )
            said = {
                "trust_step": float(limits.step.mean()),
                "trust_total": float(limits.total.mean()),
            }
            return fused, limits.halt, said
        return model, None, {}

    @property
    def _zero(self) -> Tensor | None:
        """The first index of actions; None for a box."""
        return None if self._first is None else torch.as_tensor(self._first, device=self.device)

    def _keep(self, rows: Transition, burst: int) -> None:
        """Add imagined transitions; the buffer has room for `retain` bursts of this size.

        With a rule of trust bursts differ in size, and it holds exactly the last of them.
        """
        if self.config.trust != "none":
            self._bursts = [*self._bursts, len(rows.reward)][-self.config.retain :]
            before, old = sum(self._bursts[:-1]), self.imagined
            self.imagined = self._buffer(max(1, sum(self._bursts)))
            if old is not None and before:
                self.imagined.append(Transition(*(column[-before:] for column in old.all())))
            if len(rows.reward):
                self.imagined.append(rows)
            return
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
        real = int(self.config.real * count + 1e-9)  # 0.29 * 100 is 28.999999999999996
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
            "bursts": list(self._bursts),
            "macura": self._macura.state_dict(),
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
        self._bursts = list(state["bursts"])
        self._macura.load_state_dict(state["macura"])
