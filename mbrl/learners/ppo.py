"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347).

Several passes of minibatches over each rollout, with an objective that does not gain from moving
far: clipped ratios, or a KL penalty whose weight adapts, or both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Generator, Tensor

from mbrl import losses
from mbrl.learners.on_policy import (
    Actions,
    Actor,
    OnPolicyLearner,
    Pair,
    criticised,
    device_of,
    explained,
    flat,
    kl,
    make_actor,
    make_critic,
    normalised,
    rows_of,
    value_of,
)
from mbrl.learners.on_policy_configs import PPOConfig
from mbrl.nn import Block
from mbrl.types import Transition


class PPO(OnPolicyLearner):
    """A `Learner` from rollouts.

    Attributes:
        beta: the weight of the KL penalty.

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
        config: PPOConfig,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.beta = config, config.beta
        pair = Pair(
            make_actor(size, actions, config, generator=generator),
            make_critic(size, config, generator=generator),
        ).to(device_of(actions, device))
        self.pair = Block(pair, learning_rate=config.learning_rate, eps=1e-5, clip=config.clip)
        super().__init__(size, actions, config, {"pair": self.pair})

    @property
    def policy(self) -> Actor:
        """The current policy: differentiable in the states, with constant parameters."""
        return cast(Pair, self.pair.fixed).actor

    def _learn(
        self, batch: Transition, generator: Generator, **more: Any
    ) -> Mapping[str, Tensor | float]:
        config, module = self.config, cast(Pair, self.pair.module)
        value, advantage = criticised(
            module.critic, batch, discount=self.discount, lambda_=config.trace_decay
        )
        target, value, advantage = ((value + advantage).flatten(), value.flatten(),
                                    advantage.flatten())  # fmt: skip
        batch = flat(batch)
        clip_range = config.clip_range * (self.left if config.decay_clip else 1.0)
        clip_range = max(clip_range, 1e-8)  # the loss wants it positive
        with torch.no_grad():
            old = module.actor.distribution(batch.obs)
            old_log_prob = old.log_prob(batch.action)
        sums: dict[str, Tensor] = {}
        updates, passes = 0, 0
        for _ in range(config.epochs):
            passes += 1
            far = False
            for rows in self._minibatches(len(value), generator):
                loss, said = self._loss(
                    batch.obs[rows],
                    batch.action[rows],
                    normalised(advantage[rows]) if config.normalise else advantage[rows],
                    old_log_prob[rows],
                    None if config.objective == "clip" else rows_of(old, rows),
                    value[rows],
                    target[rows],
                    clip_range,
                )
                if config.max_kl is not None and float(said["kl"]) > 1.5 * config.max_kl:
                    far = True
                    break
                said["grad_norm"] = self.pair.minimise(loss)
                updates += 1
                for name, number in said.items():
                    sums[name] = sums[name] + number if name in sums else number
            if far:
                break
        metrics = {name: total / max(updates, 1) for name, total in sums.items()}
        with torch.no_grad():
            moved = kl(old, module.actor.distribution(batch.obs)).mean()
        if config.objective != "clip":
            metrics["beta"] = torch.tensor(self.beta)
            if bool(moved.isfinite()):
                beta = losses.adapted_beta(self.beta, float(moved), target=config.penalty_kl)
                self.beta = min(max(beta, 1e-10), 1e10)
        return metrics | {
            "kl": moved,
            "explained_variance": explained(value, target),
            "passes": float(passes),
            "learning_rate": self.pair.learning_rate,
        }

    def _minibatches(self, rows: int, generator: Generator) -> tuple[Tensor, ...]:
        order = torch.randperm(rows, generator=generator, device=generator.device)
        return order.to(self.pair.value.device).split(self.config.batch)

    def _loss(
        self,
        obs: Tensor,
        action: Tensor,
        advantage: Tensor,
        old_log_prob: Tensor,
        old: Any,
        old_value: Tensor,
        target: Tensor,
        clip_range: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, module = self.config, cast(Pair, self.pair.module)
        new = module.actor.distribution(obs)
        log_prob = new.log_prob(action)
        if config.objective == "penalty":
            policy = losses.trpo_surrogate(log_prob, old_log_prob, advantage)
        else:
            policy = losses.ppo_clip(log_prob, old_log_prob, advantage, clip=clip_range)
        value = value_of(module.critic, obs)
        if config.value_clip is None:
            error = losses.value_loss(value, target).mean()
        else:
            error = losses.clipped_value_loss(
                value, old_value, target, clip=config.value_clip
            ).mean()
        policy, entropy = policy.mean(), new.entropy().mean()
        loss = policy + config.value_weight * error - config.entropy_weight * entropy
        if old is not None:
            loss = loss + self.beta * kl(old, new).mean()
        with torch.no_grad():
            log_ratio = log_prob - old_log_prob
            ratio = log_ratio.exp()
            said = {
                "actor_loss": policy.detach(),
                "value_loss": error.detach(),
                "entropy": entropy.detach(),
                "kl": (ratio - 1 - log_ratio).mean(),  # Schulman's k3 estimate
                "clip_fraction": ((ratio - 1).abs() > clip_range).float().mean(),
            }
        return loss, said

    def state_dict(self) -> dict[str, Any]:
        """Networks, moments of the optimiser, the number of steps and β."""
        return super().state_dict() | {"beta": self.beta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is from a different learner.
        """
        beta = state["beta"]
        super().load_state_dict(state)
        self.beta = beta
