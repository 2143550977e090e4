"""Deep deterministic policy gradient (DDPG; Lillicrap et al. 2016, arXiv 1509.02971) and TD3.

TD3 (Fujimoto et al. 2018, arXiv 1802.09477) is a setting, `TD3Config`: two critics whose minimum is
the target, noise on the target policy's actions, and a policy that is updated less often.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl import losses
from mbrl.distributions import Bounds
from mbrl.encoders.encoder import Encoder
from mbrl.learners.actors import normal
from mbrl.learners.encoding import attach, encode, policy_of
from mbrl.learners.off_policy import Factor, OffPolicyLearner, TargetValues
from mbrl.learners.value_configs import DDPGConfig
from mbrl.nn import Block, StackedMLP, Target
from mbrl.types import Transition


class DeterministicActor(nn.Module):
    """One action for each state, by tanh inside the box; exploration adds Gaussian noise.

    Args:
        net: gives the action before tanh.
        bounds: the box of actions.
        noise: std of the noise, in half widths of the box.
    """

    def __init__(self, net: StackedMLP, bounds: Bounds, noise: float) -> None:
        super().__init__()
        self.net, self.bounds, self.noise = net, bounds, noise

    def forward(
        self, state: Float[Tensor, "*lead S"], *, generator: Generator, explore: bool
    ) -> Float[Tensor, "*lead A"]:
        """Actions, with noise if `explore`."""
        action = self.mean(state)
        if not explore:
            return action
        bounds = self.bounds
        noisy = action + self.noise * bounds.half * normal(action, generator=generator)
        return noisy.clamp(bounds.low, bounds.high)

    def mean(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead A"]:
        """Actions without noise."""
        raw = self.net(state.reshape(1, -1, state.shape[-1])).view(*state.shape[:-1], -1)
        return torch.addcmul(self.bounds.centre, self.bounds.half, raw.tanh())


class DDPG(OffPolicyLearner[DDPGConfig, Bounds]):
    """A `Learner` of a deterministic policy in a box of actions, by the gradient of its critic.

    `TD3Config` makes it TD3. `errors` are sizes of TD errors, the mean over critics.
    """

    PARTS = ("actor", "critic", "actor_target", "critic_target")

    def _build(self, encoder: Encoder | None, generator: Generator) -> tuple[int, ...]:
        config, size, actions = self.config, self.size, len(self.actions.low)

        def mlp(members: int, *sizes: int) -> StackedMLP:
            return StackedMLP(
                members, sizes, activation=config.activation, init="uniform", generator=generator
            )

        net = mlp(1, size, *config.hidden, actions)
        actor = DeterministicActor(net, self.actions, config.noise).to(self.device)
        hidden = config.critic_hidden or config.hidden
        critic = mlp(config.critics, size + actions, *hidden, 1)
        shape = attach(critic, size, encoder)
        rates = config.learning_rate, config.critic_learning_rate or config.learning_rate
        self.actor = Block(actor, learning_rate=rates[0], clip=config.clip)
        self.critic = Block(critic.to(self.device), learning_rate=rates[1], clip=config.clip)
        self.actor_target, self.critic_target = Target(self.actor), Target(self.critic)
        self.errors = torch.zeros(0, device=self.device)
        return shape

    @property
    def policy(self) -> Any:
        """The current policy: differentiable in the states, with constant parameters."""
        return policy_of(self.critic.fixed, self.actor.fixed)

    def value(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead"]:
        """The least critic's value of the policy's action without exploration."""
        state = encode(self.critic.fixed, obs)
        rows = state.reshape(-1, self.size)
        action = cast(DeterministicActor, self.actor.fixed).mean(rows)
        return self._value(self.critic.fixed, rows, action).amin(0).view(state.shape[:-1])

    def _learn(
        self, batch: Transition, weights: Tensor | None, discount: Factor, generator: Generator
    ) -> dict[str, Tensor]:
        state = encode(self.critic.module, batch.obs)
        q = self._value(self.critic.module, state, batch.action)  # (C, B)
        target = self._target(batch, discount, generator)
        rows = losses.value_loss(q, target.expand_as(q)).sum(0)
        loss = losses.average(rows, weight=weights)
        self.critic.minimise(loss)
        self.errors = (q.detach() - target).abs().mean(0)
        said = {"q": q.detach().mean(), "critic_loss": loss.detach()}
        said["td_error"] = self.errors.mean()
        if self._due(self.config.actor_every):
            actor_loss = self._actor_loss(encode(self.critic.fixed, batch.obs))
            self.actor.minimise(actor_loss)
            said["actor_loss"] = actor_loss.detach()
            self.actor_target.follow(self.config.polyak)
            self.critic_target.follow(self.config.polyak)
        return said

    @torch.no_grad()
    def target_policy(
        self,
        state: Shaped[Tensor, "*lead *O"],
        *,
        generator: Generator | None = None,
        explore: bool = False,
    ) -> Float[Tensor, "*lead A"]:
        """Actions of the target policy, without noise."""
        state = encode(self.critic_target.module, state)
        return cast(DeterministicActor, self.actor_target.module).mean(state)

    @torch.no_grad()
    def target_values(
        self, obs: Shaped[Tensor, "*lead *O"], *, generator: Generator
    ) -> TargetValues:
        """Q'(s, a') of the target critics, for the target policy's a', in TD3 with noise.

        `least` is their minimum.
        """
        state = encode(self.critic_target.module, obs)
        each = self._next_values(state.reshape(-1, self.size), generator)
        each = each.view(-1, *state.shape[:-1])
        return TargetValues(each, each.amin(0))

    def entropy_bonus(
        self, obs: Shaped[Tensor, "*lead *O"], *, generator: Generator
    ) -> Float[Tensor, "*lead"]:
        """0: the policy is deterministic."""
        return obs.new_zeros(obs.shape[: obs.ndim - len(self._obs_shape)], dtype=torch.float32)

    @torch.no_grad()
    def _target(
        self, batch: Transition, discount: Factor, generator: Generator
    ) -> Float[Tensor, " B"]:
        """r + γ min_C Q'(s', a'), for the target policy's a' with noise."""
        next_state = encode(self.critic_target.module, batch.next_obs)
        next_q = self._next_values(next_state, generator).amin(0)
        return losses.td_error(
            torch.zeros_like(next_q), batch.reward, next_q, batch.terminated, discount=discount
        )

    def _next_values(
        self, state: Float[Tensor, "B S"], generator: Generator
    ) -> Float[Tensor, "C B"]:
        action = cast(DeterministicActor, self.actor_target.module).mean(state)
        if self.config.target_noise > 0:
            action = losses.td3_target_action(
                action,
                normal(action, generator=generator),
                self.actions.low,
                self.actions.high,
                std=self.config.target_noise,
                clip=self.config.target_noise_clip,
            )
        return self._value(self.critic_target.module, state, action)

    def _actor_loss(self, state: Float[Tensor, "B S"]) -> Float[Tensor, ""]:
        """-Q(s, μ(s)) by the first critic."""
        action = cast(DeterministicActor, self.actor.module).mean(state)
        return losses.dpg(self._value(self.critic.fixed, state, action)[0]).mean()

    def _value(
        self, critic: nn.Module, state: Float[Tensor, "B S"], action: Float[Tensor, "B A"]
    ) -> Float[Tensor, "C B"]:
        rows = torch.cat((state, action), -1).expand(self.config.critics, -1, -1)
        return critic(rows).squeeze(-1)
