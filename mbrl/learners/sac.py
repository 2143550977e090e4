"""Soft actor-critic and its family (Haarnoja et al. 2018, arXiv 1812.05905).

Settings make the variants: REDQ (Chen et al. 2021) has ten critics and a minimum over a random pair
of them, DroQ (Hiraoka et al. 2022) dropout and layer norm, CrossQ (Bhatt et al. 2024) batch norm
and no target networks, XQC (Palenicek et al. 2025) batch norm, unit weights and critics that
predict the distribution of returns, and FlashSAC (2026, arXiv 2604.04539) the same with residual
blocks. `DiscreteSAC` is that of Christodoulou (2019).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, cast

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl import losses
from mbrl.distributions import Bounds, categorical_projection
from mbrl.encoders.encoder import Encoder
from mbrl.learners.actors import CategoricalActor, SquashedActor, normal
from mbrl.learners.configs import SACConfig
from mbrl.learners.encoding import attach, encode, policy_of
from mbrl.learners.off_policy import A, Factor, OffPolicyLearner, TargetValues
from mbrl.nn import Block, StackedBlocks, StackedMLP, Target
from mbrl.types import Transition

Body = StackedMLP | StackedBlocks


class _SoftActorCritic(OffPolicyLearner[SACConfig, A]):
    """What the learners of both kinds of actions share: networks and the order of an update."""

    PARTS = ("actor", "critic", "target")

    target_entropy: float

    def _build(self, encoder: Encoder | None, generator: Generator) -> tuple[int, ...]:
        config = self.config
        actor, critic = self._nets(generator)
        if config.unit_weights:
            cast(Body, actor.net).to_unit_weights()
            critic.to_unit_weights()
        shape = attach(critic, self.size, encoder)
        start = config.first_temperature if config.temperature is None else config.temperature
        # in the actor's block, for one step of the optimiser moves both
        actor.log_temperature = nn.Parameter(torch.tensor(math.log(max(start, 1e-30))))
        betas, rate = (config.beta1, 0.999), config.learning_rate
        rates = {"actor": rate, "critic": config.critic_learning_rate or rate}
        self.actor, self.critic = (
            Block(net.to(self.device), learning_rate=rates[name], betas=betas, clip=config.clip)
            for name, net in (("actor", actor), ("critic", critic))
        )
        self.critic.fixed.train(not config.batch_norm)  # dropout stays on, as in DroQ
        self.actor.fixed.eval()
        self.target = Target(self.critic) if config.target else None
        return shape

    @abstractmethod
    def _nets(self, generator: Generator) -> tuple[SquashedActor | CategoricalActor, Body]:
        """Actor and critics; `target_entropy` is set, too."""

    @property
    def policy(self) -> Any:
        """The current policy: differentiable in the states, with constant parameters."""
        return policy_of(self.critic.fixed, self.actor.fixed)

    @property
    def temperature(self) -> Tensor:
        """α, the weight of the entropy, a constant."""
        return cast(Tensor, self.actor.fixed.log_temperature).exp()

    @torch.no_grad()
    def target_policy(
        self, state: Shaped[Tensor, "*lead *O"], *, generator: Generator, explore: bool = True
    ) -> Shaped[Tensor, "*lead A"]:
        """Actions drawn from the current policy, whether they are to explore or not."""
        return self.policy(state, generator=generator, explore=True)

    @torch.no_grad()
    def target_values(
        self, obs: Shaped[Tensor, "*lead *O"], *, generator: Generator
    ) -> TargetValues:
        """V(s) = Q'(s, a') - α log π(a' | s) of the target critics, for a' drawn by the policy.

        `least` is the minimum over critics, or over a random subset of them (REDQ), in the first
        term. Indices of actions are not drawn: V(s) is the expectation. Without target networks
        (CrossQ) the critics' values count.
        """
        critic = self.critic.fixed if self.target is None else self.target.module
        lead = obs.shape[: obs.ndim - len(self._obs_shape)]
        rows = obs.reshape(-1, *self._obs_shape)
        state, target_state = encode(self.critic.fixed, rows), encode(critic, rows)
        each, least, log_prob = self._soft_values(critic, state, target_state, generator)
        bonus = -self.temperature * log_prob
        return TargetValues((each + bonus).view(-1, *lead), (least + bonus).view(lead))

    @abstractmethod
    def _soft_values(
        self,
        critic: nn.Module,
        state: Float[Tensor, "B S"],
        target_state: Float[Tensor, "B S"],
        generator: Generator,
    ) -> tuple[Float[Tensor, "C B"], Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Values of each critic, their least, and log π; `state` is the policy's."""

    def _learn(
        self, batch: Transition, weights: Tensor | None, discount: Factor, generator: Generator
    ) -> dict[str, Tensor]:
        for net in self._critics():
            net.resample(generator=generator)
        q, rows = self._critic_loss(batch, discount, generator)
        loss = losses.average(rows, weight=weights)
        self.critic.minimise(loss)
        if self.config.unit_weights:
            cast(Body, self.critic.module).to_unit_weights()
        metrics = {"q": q.detach().mean(), "critic_loss": loss.detach()}
        if self._due(self.config.actor_every):
            metrics |= self._improve(self._actor_state(batch.obs), generator)
        self._follow()
        return metrics

    def _follow(self) -> None:
        if self.target is not None:
            self.target.follow(self.config.polyak)

    def _critic_state(self, obs: Tensor) -> Tensor:
        """The states of observations, with the gradient of the critics' loss."""
        return encode(self.critic.module, obs)

    def _actor_state(self, obs: Tensor) -> Tensor:
        """The states from which the policy learns, after the critics' step."""
        return encode(self.critic.fixed, obs)

    def _improve(self, state: Tensor, generator: Generator) -> dict[str, Tensor]:
        loss, temperature_loss, entropy = self._actor_loss(state, generator)
        total = loss if self.config.temperature is not None else loss + temperature_loss
        self.actor.minimise(total)
        if self.config.unit_weights:
            cast(Body, self.actor.module.net).to_unit_weights()
        return {"actor_loss": loss.detach(), "entropy": entropy, "temperature": self.temperature}

    @abstractmethod
    def _critic_loss(
        self, batch: Transition, discount: Factor, generator: Generator
    ) -> tuple[Float[Tensor, "C B"], Float[Tensor, " B"]]:
        """Q(s, a) of each critic, and the loss of each row."""

    @abstractmethod
    def _actor_loss(self, state: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]: ...

    def _critics(self) -> list[Body]:
        nets = [self.critic.module, self.critic.fixed]
        return cast(list[Body], nets + ([] if self.target is None else [self.target.module]))

    def _log_temperature(self) -> Tensor:
        return cast(Tensor, self.actor.module.log_temperature)

    def _subset(self, q: Float[Tensor, "C ..."], generator: Generator) -> Tensor:
        """The critics whose minimum is the target."""
        if self.config.subset is None or self.config.subset == len(q):
            return q
        chosen = torch.randperm(len(q), generator=generator, device=generator.device)
        return q[chosen[: self.config.subset].to(q.device)]


class SAC(_SoftActorCritic[Bounds]):
    """A `Learner` of a stochastic policy in a box of actions, by the gradient of its critics."""

    def _nets(self, generator: Generator) -> tuple[SquashedActor, Body]:
        config, bounds, actions = self.config, self.actions, len(self.actions.low)
        net = _policy_net(self.size, 2 * actions, config, generator)
        critic = _critic_net(self.size + actions, config.atoms, config, generator)
        self.atoms = torch.linspace(*config.value_range, config.atoms, device=self.device)
        entropy = -1.0  # of each dimension of an action in [-1, 1]
        if config.target_std is not None:
            entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(config.target_std)
        # in a box of other sizes the density is divided by the product of half its sizes
        scaled = actions * entropy + bounds.log_half
        self.target_entropy = scaled if config.target_entropy is None else config.target_entropy
        return SquashedActor(net, bounds, smooth_std=config.smooth_std), critic

    def value(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead"]:
        """The least critic's value of the policy's median action, without the entropy's."""
        state = encode(self.critic.fixed, obs)
        rows = state.reshape(-1, self.size)
        action = cast(SquashedActor, self.actor.fixed).distribution(rows).mode
        out = self._value(self.critic.fixed, rows, action)
        return self._mean(out).amin(0).view(state.shape[:-1])

    @torch.no_grad()
    def entropy_bonus(
        self, obs: Shaped[Tensor, "*lead *O"], *, generator: Generator
    ) -> Float[Tensor, "*lead"]:
        """-α log π(a | s) of an action drawn in each state."""
        _, log_prob = self._drawn(self.actor.fixed, encode(self.critic.fixed, obs), generator)
        return -self.temperature * log_prob

    def _soft_values(
        self, critic: nn.Module, state: Tensor, target_state: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        action, log_prob = self._drawn(self.actor.fixed, state, generator)
        each = self._mean(self._value(critic, target_state, action))
        return each, self._subset(each, generator).amin(0), log_prob

    def _mean(self, out: Float[Tensor, "C B K"]) -> Float[Tensor, "C B"]:
        return out.squeeze(-1) if len(self.atoms) == 1 else out.softmax(-1) @ self.atoms

    def _critic_loss(
        self, batch: Transition, discount: Factor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            next_state = encode(self.critic.fixed, batch.next_obs)
            next_action, next_log_prob = self._drawn(self.actor.fixed, next_state, generator)
        if self.config.joint or self.target is None:
            out, next_out = self._joint(self.critic.module, batch, next_action)
            if self.target is not None:
                with torch.no_grad():
                    _, next_out = self._joint(self.target.module, batch, next_action)
            next_out = next_out.detach()
        else:
            with torch.no_grad():
                next_state = encode(self.target.module, batch.next_obs)
                next_out = self._value(self.target.module, next_state, next_action)
            state = self._critic_state(batch.obs)
            out = self._value(self.critic.module, state, batch.action)
        if len(self.atoms) > 1:
            return self._distributional(out, next_out, next_log_prob, batch, discount, generator)
        q = out.squeeze(-1)
        target = losses.sac_critic_target(
            batch.reward,
            self._subset(next_out.squeeze(-1), generator),
            next_log_prob,
            batch.terminated,
            discount=discount,
            temperature=self.temperature,
        )
        return q, losses.value_loss(q, target.expand_as(q)).sum(0)

    def _joint(
        self, critic: nn.Module, batch: Transition, next_action: Float[Tensor, "B A"]
    ) -> tuple[Float[Tensor, "C B K"], Float[Tensor, "C B K"]]:
        """Outputs for both states, from one pass: batch norms have the moments of both together."""
        states = encode(critic, torch.cat((batch.obs, batch.next_obs)))
        out = self._value(critic, states, torch.cat((batch.action, next_action)))
        now, after = out.chunk(2, 1)
        return now, after

    def _distributional(
        self,
        out: Float[Tensor, "C B K"],
        next_out: Float[Tensor, "C B K"],
        next_log_prob: Float[Tensor, " B"],
        batch: Transition,
        discount: Factor,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """C51's loss against the distribution of the critic with the least mean (XQC)."""
        probs = self._subset(next_out, generator).softmax(-1)  # (M, B, K)
        least = (probs @ self.atoms).argmin(0)  # (B,)
        chosen = probs[least, torch.arange(len(least), device=least.device)]
        goes_on = (discount * (~batch.terminated)).unsqueeze(-1)
        soft = self.atoms - (self.temperature * next_log_prob).unsqueeze(-1)
        atoms = batch.reward.unsqueeze(-1) + goes_on * soft  # (B, K)
        target = categorical_projection(atoms, chosen, self.atoms)
        rows = losses.categorical_cross_entropy(out, target.expand_as(out)).sum(0)
        return self._mean(out.detach()), rows

    def _actor_loss(self, state: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        action, log_prob = self._drawn(self.actor.module, state, generator)
        q = self._mean(self._value(self.critic.fixed, state, action))
        if self.config.mean_of_critics:
            q = q.mean(0, keepdim=True)
        loss = losses.sac_actor(log_prob, q, temperature=self.temperature).mean()
        tuned = losses.sac_temperature(
            self._log_temperature(), log_prob, target_entropy=self.target_entropy
        )
        return loss, tuned.mean(), -log_prob.detach().mean()

    def _drawn(
        self, actor: nn.Module, state: Float[Tensor, "B S"], generator: Generator
    ) -> tuple[Float[Tensor, "B A"], Float[Tensor, " B"]]:
        distribution = cast(SquashedActor, actor).distribution(state)
        return distribution.sample_and_log_prob(normal(distribution.mean, generator=generator))

    def _value(
        self, critic: nn.Module, state: Float[Tensor, "B S"], action: Float[Tensor, "B A"]
    ) -> Float[Tensor, "C B K"]:
        return critic(torch.cat((state, action), -1).expand(self.config.critics, -1, -1))


class DiscreteSAC(_SoftActorCritic[int]):
    """`SAC` for a choice among K actions: expectations over all of them replace samples.

    Settings with `atoms` or `joint`, or without target networks, are refused: they need a box.
    """

    def _nets(self, generator: Generator) -> tuple[CategoricalActor, Body]:
        config = self.config
        if config.atoms > 1 or config.joint or not config.target:
            raise ValueError(
                "atoms, joint, target: discrete actions need 1 atom and target networks, not joint"
            )
        actor = CategoricalActor(_policy_net(self.size, self.actions, config, generator))
        greatest = math.log(self.actions)
        own = config.target_entropy
        self.target_entropy = 0.98 * greatest if own is None else own
        return actor, _critic_net(self.size, self.actions, config, generator)

    def value(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead"]:
        """The least critic's expectation over the policy's actions, without the entropy's value."""
        state = encode(self.critic.fixed, obs)
        rows = state.reshape(-1, self.size)
        probs = cast(CategoricalActor, self.actor.fixed).distribution(rows).probs
        values = (self._values(self.critic.fixed, rows) * probs).sum(-1)
        return values.amin(0).view(state.shape[:-1])

    @torch.no_grad()
    def entropy_bonus(
        self, obs: Shaped[Tensor, "*lead *O"], *, generator: Generator
    ) -> Float[Tensor, "*lead"]:
        """α times the entropy of the policy in each state."""
        state = encode(self.critic.fixed, obs)
        return (
            self.temperature
            * cast(CategoricalActor, self.actor.fixed).distribution(state).entropy()
        )

    def _soft_values(
        self, critic: nn.Module, state: Tensor, target_state: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        distribution = cast(CategoricalActor, self.actor.fixed).distribution(state)
        q, probs = self._values(critic, target_state), distribution.probs
        least = (self._subset(q, generator).amin(0) * probs).sum(-1)
        return (q * probs).sum(-1), least, -distribution.entropy()

    def _critic_loss(
        self, batch: Transition, discount: Factor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        assert self.target is not None
        with torch.no_grad():
            next_state = encode(self.critic.fixed, batch.next_obs)
            log_probs = cast(CategoricalActor, self.actor.fixed).distribution(next_state)
            next_state = encode(self.target.module, batch.next_obs)
            target = losses.discrete_sac_critic_target(
                batch.reward,
                self._subset(self._values(self.target.module, next_state), generator),
                log_probs.log_probs,
                batch.terminated,
                discount=discount,
                temperature=self.temperature,
            )
        state = self._critic_state(batch.obs)
        q = self._values(self.critic.module, state)
        taken = losses.taken(q, batch.action.expand(len(q), -1))
        return taken, losses.value_loss(taken, target.expand_as(taken)).sum(0)

    def _actor_loss(self, state: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        distribution = cast(CategoricalActor, self.actor.module).distribution(state)
        log_probs = distribution.log_probs
        with torch.no_grad():
            q = self._values(self.critic.fixed, state)
            q = q.mean(0, keepdim=True) if self.config.mean_of_critics else q
        loss = losses.discrete_sac_actor(log_probs, q, temperature=self.temperature).mean()
        tuned = losses.discrete_sac_temperature(
            self._log_temperature(), log_probs, target_entropy=self.target_entropy
        )
        return loss, tuned.mean(), distribution.entropy().detach().mean()

    def _values(self, critic: nn.Module, state: Float[Tensor, "B S"]) -> Float[Tensor, "C B K"]:
        return critic(state.expand(self.config.critics, -1, -1))


def _policy_net(size: int, outputs: int, config: SACConfig, generator: Generator) -> Body:
    sizes = (size, *config.hidden, outputs)
    if config.body == "blocks":
        return StackedBlocks(1, sizes, activation=config.activation, generator=generator)
    return StackedMLP(
        1,
        sizes,
        activation=config.activation,
        init="uniform",
        norm=config.policy_norm,
        generator=generator,
    )


def _critic_net(size: int, outputs: int, config: SACConfig, generator: Generator) -> Body:
    hidden = config.hidden if config.critic_hidden is None else config.critic_hidden
    count, sizes = config.critics, (size, *hidden, outputs)
    if config.body == "blocks":
        return StackedBlocks(count, sizes, activation=config.activation, generator=generator)
    return StackedMLP(
        count,
        sizes,
        activation=config.activation,
        init="uniform",
        norm=config.norm,
        dropout=config.dropout,
        generator=generator,
    )
