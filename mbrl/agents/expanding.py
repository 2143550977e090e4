"""Value expansion: the targets of an off-policy learner look some imagined steps ahead.

Model-based value expansion (MVE; Feinberg et al. 2018, arXiv 1803.00101) and its stochastic
ensemble form (STEVE; Buckman et al. 2018, arXiv 1807.01675).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from mbrl.agents.dyna_config import ExpansionSchedule
from mbrl.agents.model_learning import ModelLearning
from mbrl.imagination import rollout
from mbrl.learners.off_policy import Bootstrapping
from mbrl.returns import horizon_targets, steve, value_expansion
from mbrl.types import Learner, Metrics, Spec, Transition


class _Ahead(NamedTuple):
    """Imagined steps from the next states of a batch, one trajectory by each member."""

    state: Float[Tensor, "H1 E B S"]  # H + 1 of them
    action: Float[Tensor, "H E B A"]
    reward: Float[Tensor, "H E B"]  # in the learner's units, with the entropy's; 0 if not kept
    bonus: Float[Tensor, "H E B"]  # the entropy's part of it
    terminated: Bool[Tensor, "H E B"]
    kept: Bool[Tensor, "H E B"]  # neither behind an end, nor out of bounds
    cut: Bool[Tensor, "H E B"]  # the step after this one is out of bounds


class Expanding(ModelLearning):
    """A `ModelLearning` agent whose learner gets targets that look H imagined steps ahead.

    From the next state of each real transition every member of the model follows the target policy
    for H steps. The learner is handed the transition with the target as its reward, and marked as
    terminated, so that the target is all that its critics learn. Where a member leaves the bounds
    of the data, its trajectory is cut off and the critics take over there.

    Args:
        spec: as for `ModelLearning`.
        learner: a learner that is `Bootstrapping`.
        config: the schedule, and how far and by what rule targets are expanded.
        discount: γ.
        generator: as for `ModelLearning`.
        device: as for `ModelLearning`.

    Raises:
        ValueError: as `ModelLearning`; a learner that does not say what its targets are made of.
    """

    config: ExpansionSchedule

    def __init__(
        self,
        spec: Spec,
        learner: Learner,
        config: ExpansionSchedule,
        *,
        discount: float,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        if not isinstance(learner, Bootstrapping):
            raise ValueError(
                f"mve: needs a learner with target_policy, target_values and entropy_bonus; "
                f"a {type(learner).__name__} has not all"
            )
        super().__init__(
            spec, learner, config, discount=discount, generator=generator, device=device
        )
        self._targets: Bootstrapping = learner

    def _updated(self) -> Metrics:
        batch = self._drawn(self.config.batch)
        if not self.fits:
            return self.learner.update(self._processed(batch), generator=self.generator)
        batch, said = self.expanded(batch)
        return {**self.learner.update(batch, generator=self.generator), **said}

    @torch.no_grad()
    def expanded(self, batch: Transition) -> tuple[Transition, dict[str, Any]]:
        """What the learner learns instead of a batch of real transitions, and metrics.

        Args:
            batch: B real transitions, of observations as vectors.

        Returns:
            Transitions whose rewards are targets, in the learner's units: the B real ones, and with
            `imagined_states` also those of one member's imagined trajectory from each of them.
        """
        ahead = self._ahead(batch)
        own = self._processed(batch)
        if self.config.steve:
            target, said = self._weighted(own, ahead)
            rows = _answered(own, target)
        else:
            rows, said = self._expanded(own, ahead)
        return rows, said | {"expansion_steps": ahead.kept.sum(0).float().mean()}

    def _ahead(self, batch: Transition) -> _Ahead:
        learned, config = self.learned, self.config
        imagined = rollout(
            learned.model,
            learned.model.encode(batch.next_obs),
            learned.policy(self._target_policy),
            horizon=config.horizon,
            particles=learned.model.members,
            sample=config.sample,
            reward=learned.reward,
            terminated=learned.terminated,
            generator=self.generator,
        )
        state = imagined.state.movedim(2, 0)
        action, reward, terminated, alive = (part.movedim(2, 0) for part in imagined[1:])
        sane = state[1:].isfinite().all(-1) & reward.isfinite()
        if learned.bounds is not None:
            low, high = learned.bounds
            sane &= ((state[1:] >= low) & (state[1:] <= high)).all(-1)
        sane = sane.cummin(0).values
        kept = alive & sane
        cut = torch.zeros_like(kept)
        cut[:-1] = kept[:-1] & ~sane[1:]
        if self.config.scale_reward:
            reward = reward / self.scale.value
        bonus = self._targets.entropy_bonus(self._scaled(state[:-1]), generator=self.generator)
        reward, bonus = (torch.where(kept, part, 0.0) for part in (reward + bonus, bonus))
        return _Ahead(state, action, reward, bonus, terminated & kept, kept, cut)

    def _target_policy(self, state: Tensor, *, generator: Generator, explore: bool) -> Tensor:
        return self._targets.target_policy(
            self._scaled(state), generator=generator, explore=explore
        )

    def _values(self, state: Tensor) -> Any:
        return self._targets.target_values(self._scaled(state), generator=self.generator)

    def _expanded(self, batch: Transition, ahead: _Ahead) -> tuple[Transition, dict[str, Any]]:
        """The targets of horizon H, mean over members."""
        steps = ahead.kept.sum(0)  # (E, B)
        index = steps[None, ..., None].expand(1, *ahead.state.shape[1:])
        last = self._values(ahead.state.gather(0, index)[0]).least
        found = value_expansion(
            ahead.reward, last, ahead.terminated, truncated=ahead.cut, discount=self.discount
        )
        first = torch.where(steps > 0, found.target[0], last).mean(0)
        now = self._values(ahead.state[0, 0]).least
        real = self._bootstrapped(batch, first)
        rows = _answered(batch, real)
        said = {
            "target": real.mean(),
            "expansion_shift": (real - self._bootstrapped(batch, now)).mean(),
        }
        if not self.config.imagined_states:
            return rows, said
        count, members = len(first), ahead.kept.shape[1]
        each = torch.arange(count, device=first.device)
        drawn = torch.randint(
            members, (count,), generator=self.generator, device=self.generator.device
        ).to(first.device)
        ours = (ahead.kept & ~batch.terminated)[:, drawn, each]  # (H, B)
        own = found.target - ahead.bonus  # Q(s, a) has no value for the entropy of a itself
        state, after, action, target = (
            part[:, drawn, each][ours]
            for part in (ahead.state[:-1], ahead.state[1:], ahead.action, own)
        )
        no_end = torch.zeros_like(target, dtype=torch.bool)
        imagined = Transition(
            self._scaled(state),
            self.learned.indices(action),
            target,
            self._scaled(after),
            ~no_end,
            no_end,
        )
        both = zip(rows, imagined, strict=True)
        return Transition(*(torch.cat(columns) for columns in both)), said

    def _weighted(self, batch: Transition, ahead: _Ahead) -> tuple[Tensor, dict[str, Any]]:
        """The targets of all horizons, weighted by their inverse variance."""
        horizons, members, count = ahead.state.shape[:3]
        each = self._values(ahead.state).each  # (C, H + 1, E, B)
        critics = len(each)

        def column(first: Tensor, others: Tensor) -> Tensor:
            """What the real step has, then the imagined ones: (H + 1, E, C, B)."""
            whole = torch.cat((first.expand(1, members, count), others))
            return whole.unsqueeze(2).expand(-1, -1, critics, -1)

        targets = horizon_targets(
            column(batch.reward, ahead.reward),
            each.permute(1, 2, 0, 3),
            column(batch.terminated, ahead.terminated),
            truncated=column(~ahead.kept[0], ahead.cut),
            discount=self.discount,
        )
        found = steve(targets.reshape(horizons, members * critics, count))
        weight = found.weight.mean(1)
        said = {
            "target": found.target.mean(),
            "expansion_shift": (found.target - targets[0].mean((0, 1))).mean(),
            "steve_horizon": (weight * torch.arange(horizons, device=weight.device)).sum(),
            **{f"steve_weight_{h}": weight[h] for h in range(horizons)},
        }
        return found.target, said

    def _bootstrapped(self, batch: Transition, next_value: Tensor) -> Tensor:
        return batch.reward + self.discount * next_value.masked_fill(batch.terminated, 0.0)


def _answered(batch: Transition, target: Float[Tensor, " B"]) -> Transition:
    """Transitions whose targets are these, whatever a learner adds to rewards."""
    ends = torch.ones_like(batch.terminated)
    return batch._replace(reward=target, terminated=ends, truncated=~ends)
