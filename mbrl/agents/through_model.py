"""Agents whose policy is improved by gradients through a learned model."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.agents.model_learning import ModelLearning
from mbrl.agents.through_model_config import DoubleHorizonSchedule, GradientSchedule
from mbrl.imagination import disagreement, rollout
from mbrl.imagination.branched import members_multiple
from mbrl.learners.svg import SVG, World
from mbrl.nn.block import check_finite
from mbrl.parallel import single_thread
from mbrl.types import GaussianDynamics, Metrics, Transition

LOOKED_AT = 1000
"""Imagined steps over which the members' disagreement is averaged."""


class ThroughModel(ModelLearning):
    """A `ModelLearning` whose learner imagines with the model in its updates.

    Args:
        learner: of a box of actions.
    """

    learner: SVG
    config: GradientSchedule

    def _prepare(self) -> None:
        learned = self.learned
        self.learner.world = World(learned.model, learned.reward, learned.terminated)

    def _after_fit(self) -> Metrics:
        if self.config.normalise_obs:
            self.learner.rescale(self.replay.all().obs)
        return {}

    def _scaled(self, state: Tensor) -> Tensor:
        """The state itself: the learner scales it, because it also acts in the model."""
        return state

    def _drawn(self, count: int) -> Transition:
        return super()._drawn(self._batch(count))

    def _batch(self, count: int) -> int:
        """The least number of rows that the model's members divide evenly."""
        return members_multiple(count, self.learned.model.members)


class DoubleHorizon(ThroughModel):
    """DHMBPO (Kubo et al. 2025): long rollouts give states, short ones gradients.

    All learning is done in iterations: refit the model; then, with a new buffer of states and a
    fresh optimiser, updates of the critics alone and updates of critics and policy. The states come
    from rollouts of many steps without gradients (the distribution rollout), and each update
    imagines few steps from a batch of them (the training rollout). No real transition enters an
    update.
    """

    config: DoubleHorizonSchedule

    def _due(self) -> int:
        return self.updates  # all are done after a fit

    def _after_fit(self) -> Metrics:
        return {**super()._after_fit(), **self._iterate(first=self.fits == 1)}

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
        learned.resample(self.generator)
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
