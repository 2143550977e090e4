"""REINFORCE (Williams 1992): the policy gradient from returns of whole episodes.

The gradient is the mean over episodes of Σ_t ∇log π(a_t | s_t) Ψ_t. Settings choose Ψ: the return
of the whole episode, or the reward-to-go (Sutton et al. 1999), minus a baseline: the mean over the
other episodes, the constant of least variance (Greensmith et al. 2004), or a learned value.
Baselines come from other episodes or from the state alone, so the gradient stays unbiased.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from mbrl import losses, returns
from mbrl.learners.episodes import episodes, one_column, step_of
from mbrl.learners.on_policy import (
    Actor,
    OnPolicyLearner,
    Said,
    value_of,
)
from mbrl.learners.on_policy_configs import ReinforceConfig
from mbrl.nn import Block, StackedMLP
from mbrl.types import Transition


class Reinforce(OnPolicyLearner[ReinforceConfig]):
    """A `Learner` from whole episodes, one after another (T,), or in columns (T, N).

    Steps after the last end of a column count as an episode too, which is cut off.
    """

    def _make_blocks(self, actor: Actor, critic: Callable[[], StackedMLP]) -> dict[str, Block]:
        self.actor = Block(actor, learning_rate=self.config.learning_rate)
        if self.config.baseline != "value":
            return {"actor": self.actor}
        value = Block(critic(), learning_rate=self.config.value_learning_rate)
        return {"actor": self.actor, "critic": value}

    def _learn(self, batch: Transition, generator: Generator) -> Said:
        batch = one_column(batch)
        episode = episodes(batch.terminated | batch.truncated)
        count = int(episode[-1]) + 1
        psi = self.returns(batch)
        metrics: dict[str, Tensor | float] = {"episodes": float(count)}
        if self.config.baseline == "optimal":
            gradient = self.optimal_gradient(batch, psi, episode)
            # a linear loss whose gradient is the one that we have
            parameters = [each.flatten() for each in self.actor.module.parameters()]
            self.actor.minimise(-(torch.cat(parameters) @ gradient))
            metrics["grad_norm"] = torch.linalg.vector_norm(gradient)
        else:
            loss = self.loss(batch, psi, episode)
            self.actor.minimise(loss)
            grad = self.actor.value.grad
            assert grad is not None
            metrics |= {"actor_loss": loss.detach(), "grad_norm": torch.linalg.vector_norm(grad)}
        if self.config.baseline == "value":
            metrics |= self._fit(batch)
        with torch.no_grad():
            entropy = self.policy.distribution(batch.obs).entropy().mean()
        return metrics | {"entropy": entropy, "learning_rate": self.actor.learning_rate}

    def returns(self, batch: Transition) -> Float[Tensor, " T"]:
        """Ψ without a baseline."""
        ends, config = (batch.terminated, batch.truncated), self.config
        if not config.to_go:
            return returns.episode_returns(batch.reward, *ends, discount=self.discount)
        return returns.reward_to_go(
            batch.reward, *ends, discount=self.discount, from_start=config.from_start
        )

    def loss(
        self, batch: Transition, psi: Float[Tensor, " T"], episode: Int[Tensor, " T"]
    ) -> Float[Tensor, ""]:
        """The loss whose gradient is minus the policy gradient."""
        count = int(episode[-1]) + 1
        if self.config.baseline == "mean":
            psi = psi - others_mean(psi, episode)
        elif self.config.baseline == "value":
            critic = self.blocks["critic"].module
            with torch.no_grad():
                psi = psi - value_of(critic, batch.obs) * self._weights(episode, psi)
        if self.config.normalise and len(psi) > 1:
            psi = psi / (psi.std() + 1e-8)
        log_prob = cast(Actor, self.actor.module).distribution(batch.obs).log_prob(batch.action)
        return losses.policy_gradient(log_prob, psi).sum() / count

    def optimal_gradient(
        self, batch: Transition, psi: Float[Tensor, " T"], episode: Int[Tensor, " T"]
    ) -> Float[Tensor, " D"]:
        """The policy gradient with the constant baseline of least variance for each parameter.

        For x_i = Σ_t ∇log π Ψ_t and the score g_i = Σ_t ∇log π of episode i it is E[g x] / E[g²],
        which is E[g² r] / E[g²] where Ψ is the return r of the whole episode. Each episode's
        baseline is that of the others.
        """
        log_prob = cast(Actor, self.actor.module).distribution(batch.obs).log_prob(batch.action)
        score, weighted = (
            self._each(torch.zeros_like(psi[: int(episode[-1]) + 1]).index_add(0, episode, rows))
            for rows in (log_prob, log_prob * psi)
        )
        return baselined(score, weighted).mean(0)

    def _each(self, total: Float[Tensor, " K"]) -> Float[Tensor, "K D"]:
        """The gradient of each of K numbers."""
        slopes = torch.autograd.grad(
            total,
            [*self.actor.module.parameters()],
            torch.eye(len(total), device=total.device),
            retain_graph=True,
            is_grads_batched=True,
        )
        return torch.cat([slope.flatten(1) for slope in slopes], 1)

    def _weights(self, episode: Tensor, like: Tensor) -> Tensor:
        """γ^t from the start of each episode if discounts count from there, else 1."""
        if not self.config.from_start:
            return torch.ones_like(like)
        return self.discount ** step_of(episode).to(like)

    def _fit(self, batch: Transition) -> dict[str, Tensor | float]:
        """Fit the value to the rewards-to-go, after it has been a baseline for them."""
        critic, ends = self.blocks["critic"], (batch.terminated, batch.truncated)
        target = returns.reward_to_go(batch.reward, *ends, discount=self.discount)
        with torch.no_grad():
            known = returns.explained(value_of(critic.module, batch.obs), target)
        loss = torch.zeros(())
        for _ in range(self.config.value_updates):
            loss = losses.value_loss(value_of(critic.module, batch.obs), target).mean()
            critic.minimise(loss)
        return {"value_loss": loss.detach(), "explained_variance": known}


def others_mean(psi: Float[Tensor, " T"], episode: Int[Tensor, " T"]) -> Float[Tensor, " T"]:
    """The mean of Ψ at the same step of the other episodes; 0 where all others are over."""
    step = step_of(episode)
    size = int(step.max()) + 1
    total = psi.new_zeros(size).index_add(0, step, psi)
    count = psi.new_zeros(size).index_add(0, step, torch.ones_like(psi))
    return (total[step] - psi) / (count[step] - 1).clamp_min(1)


def baselined(score: Float[Tensor, "K D"], weighted: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
    """Each episode's gradient minus its score times the optimal baseline of the others."""
    product, square = score * weighted, score.square()
    products, squares = product.sum(0) - product, square.sum(0) - square
    baseline = torch.where(squares > 0, products / squares.clamp_min(1e-30), 0)
    return weighted - baseline * score
