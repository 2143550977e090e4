"""Advantage actor-critic (Mnih et al. 2016, arXiv 1602.01783), in its synchronous form.

One step of one optimiser for each short rollout: the policy by n-step advantages, the value by
their targets. With λ = 1 the advantages are the paper's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Generator

from mbrl import losses, returns
from mbrl.learners.on_policy import (
    Actor,
    OnPolicyLearner,
    Pair,
    Said,
    criticised,
    value_of,
)
from mbrl.learners.on_policy_configs import A2CConfig
from mbrl.nn import Block, StackedMLP
from mbrl.types import Transition


class A2C(OnPolicyLearner[A2CConfig]):
    """A `Learner` from rollouts."""

    def _make_blocks(self, actor: Actor, critic: Callable[[], StackedMLP]) -> dict[str, Block]:
        rmsprop = self.config.optimiser == "rmsprop"
        self.pair = Block(
            Pair(actor, critic()),
            learning_rate=self.config.learning_rate,
            optimiser=self.config.optimiser,
            betas=(0.9, 0.99 if rmsprop else 0.999),
            eps=1e-5,
            clip=self.config.clip,
        )
        return {"pair": self.pair}

    def _learn(self, batch: Transition, generator: Generator) -> Said:
        config, module = self.config, cast(Pair, self.pair.module)
        critique = criticised(module.critic, batch, self.config)
        advantage = (
            returns.normalised(critique.advantage) if config.normalise else critique.advantage
        )
        actions = module.actor.distribution(batch.obs)
        policy = losses.policy_gradient(actions.log_prob(batch.action), advantage).mean()
        error = losses.value_loss(value_of(module.critic, batch.obs), critique.target).mean()
        entropy = actions.entropy().mean()
        loss = policy + config.value_weight * error - config.entropy_weight * entropy
        norm = self.pair.minimise(loss)
        return {
            "actor_loss": policy.detach(),
            "value_loss": error.detach(),
            "entropy": entropy.detach(),
            "explained_variance": returns.explained(critique.value, critique.target),
            "grad_norm": norm,
            "learning_rate": self.pair.learning_rate,
        }
