"""Actor-critic methods (Konda and Tsitsiklis 2000; Sutton and Barto 2018, chapter 13).

`ActorCritic` learns from rollouts of its own policy: first the value, then the policy by its
advantages. Long rollouts make it the batch actor-critic, single steps the online one.
`OffPolicyActorCritic` learns from a replay buffer, as its critic judges the actions of the current
policy: the target's action and that of the policy's step are drawn anew, not those of the buffer
(Degris et al. 2012, with the action resampled).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl import losses, returns
from mbrl.encoders.encoder import Encoder
from mbrl.learners.actions import Actions, as_features, features_of
from mbrl.learners.encoding import attach, encode, policy_of
from mbrl.learners.off_policy import Factor, OffPolicyLearner
from mbrl.learners.on_policy import (
    Actor,
    OnPolicyLearner,
    Said,
    criticised,
    make_actor,
    make_critic,
    value_of,
)
from mbrl.learners.on_policy_configs import ActorCriticConfig, OffPolicyActorCriticConfig
from mbrl.nn import Block, StackedMLP, Target
from mbrl.types import Transition


class ActorCritic(OnPolicyLearner[ActorCriticConfig]):
    """A `Learner` from rollouts."""

    def _make_blocks(self, actor: Actor, critic: Callable[[], StackedMLP]) -> dict[str, Block]:
        config = self.config
        self.actor = Block(actor, learning_rate=config.learning_rate, clip=config.clip)
        self.critic = Block(critic(), learning_rate=config.value_learning_rate, clip=config.clip)
        return {"actor": self.actor, "critic": self.critic}

    def _learn(self, batch: Transition, generator: Generator) -> Said:
        config, critic = self.config, self.critic.module
        known, error = None, torch.zeros(())
        for _ in range(config.value_updates):
            critique = criticised(critic, batch, config)  # targets follow the value
            known = returns.explained(critique.value, critique.target) if known is None else known
            error = losses.value_loss(value_of(critic, batch.obs), critique.target).mean()
            self.critic.minimise(error)
        advantage = criticised(critic, batch, config).advantage
        advantage = returns.normalised(advantage) if config.normalise else advantage
        actions = cast(Actor, self.actor.module).distribution(batch.obs)
        loss = losses.policy_gradient(actions.log_prob(batch.action), advantage).mean()
        entropy = actions.entropy().mean()
        norm = self.actor.minimise(loss - config.entropy_weight * entropy)
        assert known is not None
        return {
            "actor_loss": loss.detach(),
            "value_loss": error.detach(),
            "entropy": entropy.detach(),
            "explained_variance": known,
            "grad_norm": norm,
            "learning_rate": self.actor.learning_rate,
        }


class OffPolicyActorCritic(OffPolicyLearner[OffPolicyActorCriticConfig, Actions]):
    """A `Learner` from batches (B,) of a replay buffer, whose actions any policy took.

    Actions in a box are those of the environment. The policy's step is the score function's: the
    gradient of log π(a | s) weighted by Q(s, a) minus the mean over the other samples.
    """

    PARTS = ("actor", "critic", "target")

    def _build(self, encoder: Encoder | None, generator: Generator) -> tuple[int, ...]:
        config, size = self.config, self.size
        actor = make_actor(size, self.actions, config, generator=generator)
        critic = make_critic(size + features_of(self.actions), config, generator=generator)
        shape = attach(critic, size, encoder)
        actor, critic = actor.to(self.device), critic.to(self.device)
        self.actor = Block(actor, learning_rate=config.learning_rate, clip=config.clip)
        self.critic = Block(critic, learning_rate=config.value_learning_rate, clip=config.clip)
        self.target = Target(self.critic)
        self.errors = torch.zeros(0, device=self.device)
        return shape

    @property
    def policy(self) -> Any:
        """The current policy: differentiable in the states, with constant parameters."""
        return policy_of(self.critic.fixed, self.actor.fixed)

    def _learn(
        self, batch: Transition, weights: Tensor | None, discount: Factor, generator: Generator
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            next_state = encode(self.critic.fixed, batch.next_obs)
            actor = cast(Actor, self.actor.fixed)
            next_action = actor(next_state, generator=generator, explore=True)
            next_state = encode(self.target.module, batch.next_obs)
            next_q = self._q(self.target.module, next_state, next_action)
        state = encode(self.critic.module, batch.obs)
        q = self._q(self.critic.module, state, batch.action)
        error = losses.td_error(q, batch.reward, next_q, batch.terminated, discount=discount)
        critic_loss = losses.average(0.5 * error.square(), weight=weights)
        self.critic.minimise(critic_loss)
        self.errors = error.detach().abs()
        with torch.no_grad():
            state = encode(self.critic.fixed, batch.obs)
        loss, entropy = self._actor_loss(state, generator)
        self.actor.minimise(loss - self.config.entropy_weight * entropy)
        self.target.follow(self.config.polyak)
        return {
            "critic_loss": critic_loss.detach(),
            "q": q.detach().mean(),
            "td_error": self.errors.mean(),
            "actor_loss": loss.detach(),
            "entropy": entropy.detach(),
        }

    def _actor_loss(
        self, state: Float[Tensor, "B S"], generator: Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        count, actor = self.config.samples, cast(Actor, self.actor.module)
        actions = actor.distribution(state)
        many = state.expand(count, *state.shape)
        with torch.no_grad():
            drawn = actor.draw(many, generator=generator)
            q = self._q(self.critic.fixed, many, actor.emit(drawn))  # (count, B)
            if count > 1:
                q = (q - q.mean(0)) * (count / (count - 1))  # minus the mean of the others
        return losses.policy_gradient(actions.log_prob(drawn), q).mean(), actions.entropy().mean()

    def _q(
        self, critic: nn.Module, state: Float[Tensor, "*lead S"], action: Shaped[Tensor, "*lead A"]
    ) -> Float[Tensor, "*lead"]:
        return value_of(critic, torch.cat((state, as_features(action, self.actions)), -1))
