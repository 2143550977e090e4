"""The policy gradient from episodes of another policy, by importance ratios.

Levine et al. 2020 (arXiv 2005.01643), section 3: ratios of whole episodes, of the steps up to each
action (Precup 2000), or of each action alone, which is right to first order for close policies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from mbrl import losses, returns
from mbrl.learners.episodes import in_columns
from mbrl.learners.on_policy import (
    Actor,
    OnPolicyLearner,
    Said,
)
from mbrl.learners.on_policy_configs import OffPolicyPGConfig
from mbrl.nn import Block, StackedMLP
from mbrl.parallel import single_thread
from mbrl.types import Metrics, Transition


class OffPolicyPG(OnPolicyLearner[OffPolicyPGConfig]):
    """A `Learner` that takes several gradient steps from each batch of whole episodes."""

    def _make_blocks(self, actor: Actor, critic: Callable[[], StackedMLP]) -> dict[str, Block]:
        self.actor = Block(actor, learning_rate=self.config.learning_rate)
        return {"actor": self.actor}

    @single_thread()  # small products are faster on one thread
    def update(
        self,
        batch: Transition,
        *,
        behaviour_log_prob: Float[Tensor, " T *N"] | None = None,
        generator: Generator,
    ) -> Metrics:
        """Learn from episodes.

        Args:
            batch: whole episodes, one after another (T,), or in columns (T, N).
            behaviour_log_prob: log μ(a_t | s_t) of the policy that took the actions; that of the
                current policy if None.
            generator: not used.

        Raises:
            ValueError: wrong shapes, or numbers that are not finite; nothing is changed then.
            Diverged: a loss or a parameter is no longer finite.
        """
        if behaviour_log_prob is not None:
            if behaviour_log_prob.shape != batch.reward.shape:
                raise ValueError(
                    f"behaviour_log_prob must have shape {tuple(batch.reward.shape)}, "
                    f"got {tuple(behaviour_log_prob.shape)}"
                )
            if not bool(behaviour_log_prob.isfinite().all()):
                raise ValueError("behaviour_log_prob holds a number that is not finite")
        learn = partial(self._learn, behaviour=behaviour_log_prob)
        return self._update(batch, learn, generator)

    def _learn(
        self, batch: Transition, generator: Generator, behaviour: Tensor | None = None
    ) -> Said:
        if behaviour is None:
            with torch.no_grad():
                behaviour = self.policy.distribution(batch.obs).log_prob(batch.action)
        columns, behaviour, mask = in_columns(batch, behaviour)
        loss, ratio = torch.zeros(()), torch.ones(())
        for _ in range(self.config.updates):
            loss, ratio = self.loss(columns, behaviour, mask)
            self.actor.minimise(loss)
        with torch.no_grad():
            entropy = self.policy.distribution(batch.obs).entropy().mean()
        return {
            "actor_loss": loss.detach(),
            "greatest_ratio": ratio.max(),
            "entropy": entropy,
            "learning_rate": self.actor.learning_rate,
        }

    def loss(
        self,
        batch: Transition,
        behaviour: Float[Tensor, "T K"],
        mask: Bool[Tensor, "T K"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "T K"]]:
        """The loss whose gradient is minus the policy gradient, and the ratios.

        Args:
            batch: K episodes in columns.
            behaviour: log μ(a_t | s_t).
            mask: False behind the end of an episode.
        """
        config = self.config
        log_prob = cast(Actor, self.actor.module).distribution(batch.obs).log_prob(batch.action)
        known = log_prob.detach()
        ratio = losses.importance_ratio(known, behaviour, over=config.over, mask=mask)
        later = None
        if config.over == "causal":
            later = losses.importance_ratio(known, behaviour, over="step", mask=mask)
        psi = returns.reward_to_go(
            batch.reward,
            batch.terminated,
            batch.truncated,
            discount=self.discount,
            from_start=config.from_start,
            ratio=later,
        )
        rows = losses.off_policy_policy_gradient(
            log_prob, behaviour, psi, over=config.over, mask=mask
        )
        return rows.sum(0).mean(), ratio
