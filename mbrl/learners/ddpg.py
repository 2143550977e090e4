"""Deep deterministic policy gradient (DDPG; Lillicrap et al. 2016, arXiv 1509.02971) and TD3.

TD3 (Fujimoto et al. 2018, arXiv 1802.09477) is a setting, `TD3Config`: two critics whose minimum is
the target, noise on the target policy's actions, and a policy that is updated less often.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl import losses
from mbrl.checks import check_batch
from mbrl.distributions import Bounds
from mbrl.encoders.encoder import Encoder
from mbrl.learners.actors import normal
from mbrl.learners.encoding import attach, encode, policy_of
from mbrl.learners.value_configs import DDPGConfig
from mbrl.nn import Block, StackedMLP, Target
from mbrl.parallel import single_thread
from mbrl.types import Metrics, Transition


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


class DDPG:
    """A `Learner` of a deterministic policy in a box of actions, by the gradient of its critic.

    Attributes:
        errors: (B,), size of the TD error of each row of the last update, the mean over critics,
            for prioritised replay.

    Args:
        size: S, of states.
        bounds: the box of actions, on the device where the learner is to be.
        config: settings; the discount must be set. `TD3Config` makes it TD3.
        encoder: turns observations into states, of S features; the critics' loss trains it, the
            policy's does not (Yarats et al. 2021). If None, observations are states.
        generator: draws the initial weights.

    Raises:
        ValueError: a discount that is unset; an encoder of other than S features.
    """

    def __init__(
        self,
        size: int,
        bounds: Bounds,
        config: DDPGConfig,
        *,
        encoder: Encoder | None = None,
        generator: Generator,
    ) -> None:
        if config.discount is None:
            raise ValueError("discount: want a number, it is unset")
        self.size, self.bounds, self.config = size, bounds, config
        self.discount, self.updates = config.discount, 0
        actions, device, rate = len(bounds.low), bounds.low.device, config.learning_rate

        def mlp(members: int, *sizes: int) -> StackedMLP:
            return StackedMLP(
                members, sizes, activation=config.activation, init="uniform", generator=generator
            )

        actor = DeterministicActor(mlp(1, size, *config.hidden, actions), bounds, config.noise)
        hidden = config.critic_hidden or config.hidden
        critic = mlp(config.critics, size + actions, *hidden, 1)
        self._shape = attach(critic, size, encoder)  # of an observation
        self.actor = Block(actor.to(device), learning_rate=rate, clip=config.clip)
        self.critic = Block(
            critic.to(device),
            learning_rate=config.critic_learning_rate or rate,
            clip=config.clip,
        )
        self.actor_target, self.critic_target = Target(self.actor), Target(self.critic)
        self.errors = torch.zeros(0, device=device)

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

    @single_thread()  # small products are faster on one thread
    def update(
        self,
        batch: Transition,
        *,
        weights: Float[Tensor, " B"] | None = None,
        discount: Float[Tensor, " B"] | None = None,
        generator: Generator,
    ) -> Metrics:
        """One step of the critics and, every `actor_every` updates, of the policy and the targets.

        Args:
            batch: B transitions.
            weights: weight of each row in the critics' loss; equal ones if None.
            discount: what multiplies the value of each next state; γ if None. For n-step returns,
                γ^n.
            generator: draws the noise of the target policy.

        Raises:
            ValueError: wrong shapes, or numbers that are not finite; nothing is changed then.
        """
        check_batch(batch, self._shape, tuple(self.bounds.low.shape))
        state = encode(self.critic.module, batch.obs)
        q = self._value(self.critic.module, state, batch.action)  # (C, B)
        target = self._target(batch, self.discount if discount is None else discount, generator)
        rows = losses.value_loss(q, target.expand_as(q)).sum(0)
        loss = losses.average(rows, weight=weights)
        self.critic.minimise(loss)
        self.errors = (q.detach() - target).abs().mean(0)
        said = {"q": q.detach().mean(), "critic_loss": loss.detach()}
        said["td_error"] = self.errors.mean()
        self.updates += 1
        if self.updates % self.config.actor_every == 0:
            actor_loss = self._actor_loss(encode(self.critic.fixed, batch.obs))
            self.actor.minimise(actor_loss)
            said["actor_loss"] = actor_loss.detach()
            self.actor_target.follow(self.config.polyak)
            self.critic_target.follow(self.config.polyak)
        return cast(Metrics, said)

    @torch.no_grad()
    def _target(
        self, batch: Transition, discount: float | Tensor, generator: Generator
    ) -> Float[Tensor, " B"]:
        """r + γ min_C Q'(s', a'), for the target policy's a' with noise."""
        next_state = encode(self.critic_target.module, batch.next_obs)
        action = cast(DeterministicActor, self.actor_target.module).mean(next_state)
        if self.config.target_noise > 0:
            action = losses.td3_target_action(
                action,
                normal(action, generator=generator),
                self.bounds.low,
                self.bounds.high,
                std=self.config.target_noise,
                clip=self.config.target_noise_clip,
            )
        next_q = self._value(self.critic_target.module, next_state, action).amin(0)
        return losses.td_error(
            torch.zeros_like(next_q), batch.reward, next_q, batch.terminated, discount=discount
        )

    def _actor_loss(self, state: Float[Tensor, "B S"]) -> Float[Tensor, ""]:
        """-Q(s, μ(s)) by the first critic."""
        action = cast(DeterministicActor, self.actor.module).mean(state)
        return losses.dpg(self._value(self.critic.fixed, state, action)[0]).mean()

    def _value(
        self, critic: nn.Module, state: Float[Tensor, "B S"], action: Float[Tensor, "B A"]
    ) -> Float[Tensor, "C B"]:
        rows = torch.cat((state, action), -1).expand(self.config.critics, -1, -1)
        return critic(rows).squeeze(-1)

    def state_dict(self) -> dict[str, Any]:
        """Networks, targets, moments of the optimisers and the number of updates."""
        return {
            "actor": self.actor.state_dict(),
            "critic": self.critic.state_dict(),
            "actor_target": self.actor_target.state_dict(),
            "critic_target": self.critic_target.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is from a different learner.
        """
        self.actor.load_state_dict(state["actor"])
        self.critic.load_state_dict(state["critic"])
        self.actor_target.load_state_dict(state["actor_target"])
        self.critic_target.load_state_dict(state["critic_target"])
        self.updates = state["updates"]
