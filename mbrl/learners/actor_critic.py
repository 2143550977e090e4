"""Actor-critic methods (Konda and Tsitsiklis 2000; Sutton and Barto 2018, chapter 13).

`ActorCritic` learns from rollouts of its own policy: first the value, then the policy by its
advantages. Long rollouts make it the batch actor-critic, single steps the online one.
`OffPolicyActorCritic` learns from a replay buffer, as its critic judges the actions of the current
policy: the target's action and that of the policy's step are drawn anew, not those of the buffer
(Degris et al. 2012, with the action resampled).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl import losses
from mbrl.checks import check_batch
from mbrl.distributions import Bounds
from mbrl.learners.on_policy import (
    Actions,
    Actor,
    OnPolicyLearner,
    criticised,
    device_of,
    discount_of,
    explained,
    make_actor,
    make_critic,
    normalised,
    shape_of,
    value_of,
)
from mbrl.learners.on_policy_configs import ActorCriticConfig, OffPolicyActorCriticConfig
from mbrl.nn import Block, Target
from mbrl.parallel import single_thread
from mbrl.types import Metrics, Transition


class ActorCritic(OnPolicyLearner):
    """A `Learner` from rollouts.

    Args:
        size: S, of states.
        actions: what actions there are.
        config: settings; the discount must be set.
        generator: draws the initial weights.
        device: where the learner is to be; for a box of actions, where its bounds are.
    """

    def __init__(
        self,
        size: int,
        actions: Actions,
        config: ActorCriticConfig,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, where = config, device_of(actions, device)
        actor = make_actor(size, actions, config, generator=generator).to(where)
        critic = make_critic(size, config, generator=generator).to(where)
        self.actor = Block(actor, learning_rate=config.learning_rate, clip=config.clip)
        self.critic = Block(critic, learning_rate=config.value_learning_rate, clip=config.clip)
        super().__init__(size, actions, config, {"actor": self.actor, "critic": self.critic})

    @property
    def policy(self) -> Actor:
        """The current policy: differentiable in the states, with constant parameters."""
        return cast(Actor, self.actor.fixed)

    def _learn(
        self, batch: Transition, generator: Generator, **more: Any
    ) -> Mapping[str, Tensor | float]:
        config, critic = self.config, self.critic.module
        known, error = None, torch.zeros(())
        for _ in range(config.value_updates):
            critique = self._criticised(batch)  # targets follow the value
            known = explained(critique.value, critique.target) if known is None else known
            error = losses.value_loss(value_of(critic, batch.obs), critique.target).mean()
            self.critic.minimise(error)
        advantage = self._criticised(batch).advantage
        advantage = normalised(advantage) if config.normalise else advantage
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

    def _criticised(self, batch: Transition) -> Any:
        return criticised(
            self.critic.module, batch, discount=self.discount, lambda_=self.config.trace_decay
        )


class OffPolicyActorCritic:
    """A `Learner` from batches (B,) of a replay buffer, whose actions any policy took.

    Actions in a box are those of the environment. The policy's step is the score function's: the
    gradient of log π(a | s) weighted by Q(s, a) minus the mean over the other samples.

    Args:
        size: S, of states.
        actions: what actions there are.
        config: settings; the discount must be set.
        generator: draws the initial weights.
        device: where the learner is to be; for a box of actions, where its bounds are.

    Raises:
        ValueError: a discount that is unset.
    """

    def __init__(
        self,
        size: int,
        actions: Actions,
        config: OffPolicyActorCriticConfig,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.size, self.actions, self.config = size, actions, config
        self.discount, where = discount_of(config), device_of(actions, device)
        width = features_of(actions)
        actor = make_actor(size, actions, config, generator=generator).to(where)
        critic = make_critic(size + width, config, generator=generator).to(where)
        self.actor = Block(actor, learning_rate=config.learning_rate, clip=config.clip)
        self.critic = Block(critic, learning_rate=config.value_learning_rate, clip=config.clip)
        self.target = Target(self.critic)

    @property
    def policy(self) -> Actor:
        """The current policy: differentiable in the states, with constant parameters."""
        return cast(Actor, self.actor.fixed)

    @single_thread()  # small products are faster on one thread
    def update(self, batch: Transition, *, generator: Generator) -> Metrics:
        """One step of the critic and one of the policy.

        Args:
            batch: B transitions.
            generator: draws actions.

        Raises:
            ValueError: wrong shapes, or numbers that are not finite; nothing is changed then.
        """
        check_batch(batch, (self.size,), shape_of(self.actions))
        with torch.no_grad():
            next_action = self.policy(batch.next_obs, generator=generator, explore=True)
            next_q = self._q(self.target.module, batch.next_obs, next_action)
        q = self._q(self.critic.module, batch.obs, batch.action)
        error = losses.td_error(q, batch.reward, next_q, batch.terminated, discount=self.discount)
        critic_loss = 0.5 * error.square().mean()
        self.critic.minimise(critic_loss)
        loss, entropy = self._actor_loss(batch.obs, generator)
        self.actor.minimise(loss - self.config.entropy_weight * entropy)
        self.target.follow(self.config.polyak)
        return cast(
            Metrics,
            {
                "critic_loss": critic_loss.detach(),
                "q": q.detach().mean(),
                "actor_loss": loss.detach(),
                "entropy": entropy.detach(),
            },
        )

    def _actor_loss(
        self, obs: Float[Tensor, "B S"], generator: Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        count, actor = self.config.samples, cast(Actor, self.actor.module)
        actions = actor.distribution(obs)
        many = obs.expand(count, *obs.shape)
        with torch.no_grad():
            drawn = actor.draw(many, generator=generator)
            q = self._q(self.critic.fixed, many, actor.emit(drawn))  # (count, B)
            if count > 1:
                q = (q - q.mean(0)) * (count / (count - 1))  # minus the mean of the others
        return losses.policy_gradient(actions.log_prob(drawn), q).mean(), actions.entropy().mean()

    def _q(
        self, critic: nn.Module, obs: Float[Tensor, "*lead S"], action: Shaped[Tensor, "*lead A"]
    ) -> Float[Tensor, "*lead"]:
        return value_of(critic, torch.cat((obs, as_features(action, self.actions)), -1))

    def state_dict(self) -> dict[str, Any]:
        """Networks, the target and the moments of the optimisers."""
        parts = {"actor": self.actor, "critic": self.critic, "target": self.target}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is from a different learner.
        """
        for name, part in (("actor", self.actor), ("critic", self.critic), ("target", self.target)):
            part.load_state_dict(state[name])


def features_of(actions: Actions) -> int:
    """How many numbers describe an action to a critic."""
    if isinstance(actions, int):
        return actions
    return len(actions.low) if isinstance(actions, Bounds) else sum(actions)


def as_features(action: Shaped[Tensor, "*lead A"], actions: Actions) -> Float[Tensor, "*lead F"]:
    """Actions for a critic: within [-1, 1] of their box, or one-hot for each choice."""
    if isinstance(actions, Bounds):
        return (action - actions.centre) / actions.half
    sizes: Sequence[int] = (actions,) if isinstance(actions, int) else actions
    each = (action,) if isinstance(actions, int) else action.unbind(-1)
    hot = [F.one_hot(own.long(), n) for own, n in zip(each, sizes, strict=True)]
    return torch.cat(hot, -1).float()
