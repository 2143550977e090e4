"""Agents whose policy is improved by gradients through a learned model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl.agents.learned_model import LearnedModel
from mbrl.agents.off_policy import OffPolicy
from mbrl.agents.policies import actions_of
from mbrl.agents.schedules import with_discount
from mbrl.agents.through_model_config import DoubleHorizonSchedule, GradientSchedule
from mbrl.encoders.images import is_image
from mbrl.imagination import disagreement, rollout
from mbrl.imagination.branched import members_multiple
from mbrl.learners.svg import SVG, World
from mbrl.nn.block import check_finite
from mbrl.parallel import single_thread
from mbrl.spaces import Vectors
from mbrl.types import GaussianDynamics, Metrics, Spec

LOOKED_AT = 1000
"""Imagined steps over which the members' disagreement is averaged."""

K = TypeVar("K", bound="ThroughModel")


class ThroughModel(OffPolicy):
    """An `Agent` and `ModelBased` that learns from real steps and gradients through a model.

    The model is refitted at intervals. Its weights need no gradient between fits, so that its
    derivatives with respect to states and actions are quick.

    Args:
        spec: the environment; observations must be a box of vectors, or indices.
        learner: of a box of actions; it imagines with the model.
        config: the schedule.
        discount: γ.
        generator: random stream of the agent, on the CPU.
        device: device of the learner, the model and the buffers.

    Attributes:
        learned: the model with its reward, termination and fits.

    Raises:
        ValueError: as `OffPolicy` and `LearnedModel`.
    """

    learner: SVG
    config: GradientSchedule
    _margin = 1.0  # of `LearnedModel.bounds`, which only distribution rollouts use

    def __init__(
        self,
        spec: Spec,
        learner: SVG,
        config: GradientSchedule,
        *,
        discount: float,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            spec, learner, config, discount=discount, generator=generator, device=device
        )
        self.learned = LearnedModel(spec, config.model, generator=generator, device=device)
        learner.world = World(self.learned.model, self.learned.reward, self.learned.terminated)
        model = self.learned.model
        parameters = model.parameters() if isinstance(model, nn.Module) else []
        self._trained = [part for part in parameters if part.requires_grad]
        self._freeze(True)

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
        """Refit the model if that is due, and do the updates that are due."""
        metrics = self.refit() if self._fit_due() else {}
        return {**metrics, **super().update()}

    def refit(self) -> Metrics:
        """Fit the model to all real transitions; returns metrics of `LearnedModel.fit`."""
        self._freeze(False)
        try:
            metrics = self.learned.fit(self.replay, margin=self._margin, generator=self.generator)
        finally:
            self._freeze(True)
        if self.config.normalise_obs:
            self.learner.rescale(self.replay.all().obs)
        return metrics

    def _fit_due(self) -> bool:
        since = self.steps - self.config.learning_starts
        due = since >= 0 and since // self.config.fit_every >= self.fits
        return due and len(self.replay) > 1

    def _freeze(self, constant: bool) -> None:
        for parameter in self._trained:
            parameter.requires_grad_(not constant)

    def _scaled(self, state: Tensor) -> Tensor:
        """The state itself: the learner scales it, because it also acts in the model."""
        return state

    def state_dict(self) -> dict[str, Any]:
        """As of `OffPolicy`, with the model."""
        return super().state_dict() | {"learned": self.learned.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, RuntimeError, KeyError: it is from a different agent.
        """
        super().load_state_dict(state)
        self.learned.load_state_dict(state["learned"])


class DoubleHorizon(ThroughModel):
    """DHMBPO (Kubo et al. 2025): long rollouts give states, short ones gradients.

    All learning is done in iterations: refit the model; then, with a new buffer of states and a
    fresh optimiser, updates of the critics alone and updates of critics and policy. The states come
    from rollouts of many steps without gradients (the distribution rollout), and each update
    imagines few steps from a batch of them (the training rollout). No real transition enters an
    update. See `ThroughModel`.
    """

    config: DoubleHorizonSchedule

    @property
    def _margin(self) -> float:
        return self.config.margin

    def update(self) -> Metrics:
        """An iteration, if one is due.

        Raises:
            Diverged: a metric of an update is not finite.
        """
        if not self._fit_due():
            return {}
        metrics = dict(self.refit())
        return metrics | self._iterate(first=self.fits == 1)

    @single_thread()
    def _iterate(self, *, first: bool) -> dict[str, float]:
        config, learner, generator = self.config, self.learner, self.generator
        learner.restart()
        states = States(config.states, self.learned.size, device=self.device)
        totals: dict[str, Tensor] = {}
        counts: dict[str, int] = {}

        def add(metrics: Metrics) -> None:
            for name, value in metrics.items():
                total = totals.get(name)
                totals[name] = torch.as_tensor(value) if total is None else total + value
                counts[name] = counts.get(name, 0) + 1

        def improve(*, actor: bool) -> None:
            drawn = states.sample(self._batch(config.batch), generator=generator)
            metrics = learner.improve(drawn, actor=actor, generator=generator)
            if self.device.type == "cpu":
                check_finite(metrics)
            self.updates += 1
            if actor:
                add(metrics)

        add(self.visit(states))
        for _ in range(config.critic_updates):
            improve(actor=False)
        for i in range((config.updates or config.fit_every) * (config.first if first else 1)):
            if i % config.visit_every == 0:
                add(self.visit(states))
            improve(actor=True)
        means = {name: float(total) / counts[name] for name, total in totals.items()}
        check_finite(means)
        return means | {"updates": self.updates}

    @torch.no_grad()
    def visit(self, states: States) -> Metrics:
        """A distribution rollout: add the states that the policy visits in the model.

        Returns:
            `rollout_steps`: mean number of steps. `rollout_terminated`: share of trajectories that
            the model ended. `rollout_dropped`: share cut off because a state left all bounds.
            `rollout_disagreement`: that of the members (`mbrl.imagination.disagreement`).
        """
        config, learned, model = self.config, self.learned, self.learned.model
        starts = self.replay.sample(self._batch(config.starts), generator=self.generator).obs
        imagined = rollout(
            model,
            model.encode(starts).view(model.members, -1, learned.size),
            self.learner.policy,
            horizon=config.visit_steps,
            particles=model.members,
            propagation=self.config.learner.propagation,
            terminated=learned.terminated,
            generator=self.generator,
        )
        after = imagined.state[..., 1:, :]
        sane = after.isfinite().all(-1)
        if learned.bounds is not None:
            low, high = learned.bounds
            sane &= ((after >= low) & (after <= high)).all(-1)
        sane = sane.cummin(-1).values
        lives = imagined.alive & ~imagined.terminated & sane
        first = torch.ones_like(lives[..., :1])
        states.append(imagined.state[torch.cat((first, lives), -1)])
        kept = imagined.alive & sane
        said = {
            "rollout_steps": float(kept.sum(-1).float().mean()),
            "rollout_terminated": float((kept & imagined.terminated).any(-1).float().mean()),
            "rollout_dropped": float((imagined.alive & ~kept).any(-1).float().mean()),
        }
        if isinstance(model, GaussianDynamics) and bool(kept.any()):
            before, action = imagined.state[..., :-1, :][kept], imagined.action[kept]
            some = slice(None, None, -(-len(before) // LOOKED_AT))
            apart = disagreement(model, before[some], action[some])
            said["rollout_disagreement"] = float(apart.mean())
        return said

    def _batch(self, count: int) -> int:
        """The least number of rows that the model's members divide evenly."""
        return members_multiple(count, self.learned.model.members)


class States:
    """A ring buffer of states.

    Args:
        capacity: most states kept; the oldest are overwritten.
        size: S.
        device: where they are kept.
    """

    def __init__(self, capacity: int, size: int, *, device: torch.device | str = "cpu") -> None:
        self._rows, self._written = torch.empty(capacity, size, device=device), 0

    def __len__(self) -> int:
        return min(self._written, len(self._rows))

    def append(self, state: Float[Tensor, "T S"]) -> None:
        """Add T states."""
        capacity = len(self._rows)
        state = state[-capacity:]
        at = (self._written + torch.arange(len(state), device=state.device)) % capacity
        self._rows[at] = state
        self._written += len(state)

    def sample(self, count: int, *, generator: Generator) -> Float[Tensor, "B S"]:
        """B states, drawn uniformly with replacement."""
        index = torch.randint(len(self), (count,), generator=generator, device=generator.device)
        return self._rows[index.to(self._rows.device)]


def through_model(
    name: str,
    spec: Spec,
    config: GradientSchedule,
    kind: type[K],
    *,
    discount: float,
    generator: Generator,
    device: torch.device | str = "cpu",
) -> K:
    """The agent of an environment.

    Args:
        name: of the algorithm, for messages.
        spec: the environment.
        config: the schedule, with the learner's settings.
        kind: the class of the agent.
        discount: γ where neither the settings nor the environment give one.
        generator: draws the initial weights, and then whatever the agent draws.
        device: where it is to be.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    if is_image(spec.obs):
        raise ValueError(f"{name}: a model of images is not learned here; want vectors or indices")
    actions: Any = actions_of(spec.action, name, device, ("box",))
    own = with_discount(config.learner, spec, discount)
    size = Vectors(spec.obs).size
    learner = SVG(size, actions, own, generator=generator, device=device)
    assert own.discount is not None
    return kind(spec, learner, config, discount=own.discount, generator=generator, device=device)
