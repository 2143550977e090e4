"""Trust region policy optimisation (Schulman et al. 2015, arXiv 1502.05477).

The natural gradient by conjugate gradients on products with the Fisher matrix, scaled to the bound
on the KL divergence, and shortened until the bound holds and the surrogate improves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl import losses, returns
from mbrl.distributions import Distribution, kl
from mbrl.learners.on_policy import (
    Actor,
    OnPolicyLearner,
    Said,
    constant,
    criticised,
    flat,
    value_of,
)
from mbrl.learners.on_policy_configs import TRPOConfig
from mbrl.nn import Block, StackedMLP
from mbrl.types import Transition


class TRPO(OnPolicyLearner[TRPOConfig]):
    """A `Learner` from rollouts whose policy moves at most δ in mean KL divergence an update."""

    def _make_blocks(self, actor: Actor, critic: Callable[[], StackedMLP]) -> dict[str, Block]:
        self.actor = Block(actor, learning_rate=self.config.learning_rate)
        self.critic = Block(critic(), learning_rate=self.config.learning_rate)
        return {"actor": self.actor, "critic": self.critic}

    def _learn(self, batch: Transition, generator: Generator) -> Said:
        config = self.config
        critique = criticised(self.critic.module, batch, self.config)
        batch, value = flat(batch), critique.value.flatten()
        advantage, target = critique.advantage.flatten(), critique.target.flatten()
        metrics = self._improve(
            batch, returns.normalised(advantage) if config.normalise else advantage
        )
        error = self._fit(batch.obs, target, generator)
        return metrics | {
            "value_loss": error,
            "explained_variance": returns.explained(value, target),
            "learning_rate": self.critic.learning_rate,
        }

    def _improve(self, batch: Transition, advantage: Tensor) -> dict[str, Tensor | float]:
        actor, config = cast(Actor, self.actor.module), self.config
        old = constant(actor, batch.obs)
        old_log_prob = old.log_prob(batch.action)

        def surrogate() -> tuple[Tensor, Distribution]:
            new = actor.distribution(batch.obs)
            log_prob = new.log_prob(batch.action)
            return losses.trpo_surrogate(log_prob, old_log_prob, advantage).mean(), new

        before, _ = surrogate()
        gradient = self.actor.gradient(before).clone()
        product = fisher_product(actor, batch.obs, old, damping=config.damping)
        step = conjugate_gradient(product, -gradient, steps=config.cg_steps)
        curvature = step @ product(step)  # dᵀ F d, twice the KL divergence of the full step
        start, before = self.actor.value.detach().clone(), before.detach()
        loss, moved, share = before, before.new_zeros(()), 0.0
        if bool(curvature > 0) and bool(curvature.isfinite()):
            step = step * (2 * config.max_kl / curvature).sqrt()
            loss, moved, share = self._searched(surrogate, old, before, start, step)
        with torch.no_grad():
            entropy = actor.distribution(batch.obs).entropy().mean()
        return {
            "actor_loss": loss,
            "kl": moved,
            "step": share,
            "entropy": entropy,
            "grad_norm": torch.linalg.vector_norm(gradient),
        }

    @torch.no_grad()
    def _searched(
        self,
        surrogate: Callable[[], tuple[Tensor, Distribution]],
        old: Distribution,
        before: Tensor,
        start: Tensor,
        step: Tensor,
    ) -> tuple[Tensor, Tensor, float]:
        """Take the longest of shrinking steps that improves within the bound, or none."""
        share = 1.0
        for _ in range(self.config.line_search):
            self.actor.value.copy_(start + share * step)
            loss, new = surrogate()
            moved = kl(old, new).mean()
            if bool(moved <= self.config.max_kl) and bool(loss < before):
                return loss, moved, share
            share *= self.config.shrink
        self.actor.value.copy_(start)
        return before, torch.zeros_like(before), 0.0

    def _fit(self, obs: Tensor, target: Tensor, generator: Generator) -> Tensor:
        total, updates = torch.zeros((), device=obs.device), 0
        for _ in range(self.config.value_updates):
            order = torch.randperm(len(obs), generator=generator, device=generator.device)
            for rows in order.to(obs.device).split(self.config.batch):
                value = value_of(self.critic.module, obs[rows])
                loss = losses.value_loss(value, target[rows]).mean()
                self.critic.minimise(loss)
                total, updates = total + loss.detach(), updates + 1
        return total / updates


def fisher_product(
    actor: nn.Module, obs: Float[Tensor, "B S"], old: Distribution, *, damping: float
) -> Callable[[Tensor], Tensor]:
    """v -> (F + damping) v for the Fisher matrix F of a policy, averaged over states.

    F is the second derivative of KL(old ‖ policy) where the policy is the old one; the product
    needs two backward passes, and no matrix (Pearlmutter 1994).
    """
    parameters = [*actor.parameters()]
    divergence = kl(old, cast(Actor, actor).distribution(obs)).mean()
    slopes = torch.autograd.grad(divergence, parameters, create_graph=True)
    slope = torch.cat([part.flatten() for part in slopes])

    def product(vector: Tensor) -> Tensor:
        curved = torch.autograd.grad(slope @ vector, parameters, retain_graph=True)
        return torch.cat([part.flatten() for part in curved]) + damping * vector

    return product


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    target: Float[Tensor, " D"],
    *,
    steps: int,
    tolerance: float = 1e-10,
) -> Float[Tensor, " D"]:
    """x with A x = target for a positive definite A, given as v -> A v (Hestenes, Stiefel 1952).

    Stops where the squared residual is below `tolerance` of its start.
    """
    x, residual = torch.zeros_like(target), target.clone()
    direction, square = residual.clone(), residual @ residual
    least = tolerance * square
    for _ in range(steps):
        if not bool(square > least):  # also for NaN and for a target of 0
            break
        along = product(direction)
        length = square / (direction @ along)
        x, residual = x + length * direction, residual - length * along
        square, before = residual @ residual, square
        direction = residual + (square / before) * direction
    return x
