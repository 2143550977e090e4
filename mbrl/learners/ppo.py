"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347).

Several passes of minibatches over each rollout, with an objective that does not gain from moving
far: clipped ratios, or a KL penalty whose weight adapts, or both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor

from mbrl import losses, returns
from mbrl.distributions import Distribution, kl, rows_of
from mbrl.learners.on_policy import (
    Actor,
    OnPolicyLearner,
    Pair,
    Said,
    constant,
    criticised,
    flat,
    value_of,
)
from mbrl.learners.on_policy_configs import PPOConfig
from mbrl.nn import Block, StackedMLP
from mbrl.types import Transition


class Rows(NamedTuple):
    """What an update of PPO learns from, B rows."""

    obs: Float[Tensor, "B S"]
    action: Shaped[Tensor, "B A"]
    old: Distribution
    """Of actions, before the update."""
    old_log_prob: Float[Tensor, " B"]
    advantage: Float[Tensor, " B"]
    value: Float[Tensor, " B"]
    """V(s) before the update."""
    target: Float[Tensor, " B"]
    """What V(s) learns."""

    def rows(self, index: Int[Tensor, " M"] | slice) -> Rows:
        """Some of the rows."""
        obs, action, old, *others = self
        return Rows(obs[index], action[index], rows_of(old, index), *(x[index] for x in others))

    def batches(self, size: int) -> Iterator[Rows]:
        """All rows in order, `size` at a time."""
        starts = range(0, len(self.obs), size)
        olds = [rows_of(self.old, slice(start, start + size)) for start in starts]
        parts = [olds if x is self.old else cast(Tensor, x).split(size) for x in self]
        return (Rows._make(columns) for columns in zip(*parts, strict=True))


class PPO(OnPolicyLearner[PPOConfig]):
    """A `Learner` from rollouts.

    Attributes:
        beta: the weight of the KL penalty.
    """

    def _make_blocks(self, actor: Actor, critic: Callable[[], StackedMLP]) -> dict[str, Block]:
        config, self.beta = self.config, self.config.beta
        pair = Pair(actor, critic())
        self.pair = Block(pair, learning_rate=config.learning_rate, eps=1e-5, clip=config.clip)
        return {"pair": self.pair}

    def _learn(self, batch: Transition, generator: Generator) -> Said:
        config, module = self.config, cast(Pair, self.pair.module)
        critique = criticised(module.critic, batch, self.config)
        batch = flat(batch)
        old = constant(module.actor, batch.obs)
        old_log_prob = old.log_prob(batch.action)
        value, advantage, target = (
            x.flatten() for x in (critique.value, critique.advantage, critique.target)
        )
        data = Rows(batch.obs, batch.action, old, old_log_prob, advantage, value, target)
        sums, updates, passes = self._passes(data, generator)
        metrics = {name: total / updates for name, total in sums.items()}
        with torch.no_grad():
            moved = kl(old, module.actor.distribution(batch.obs)).mean()
        if config.objective != "clip":
            metrics["beta"] = torch.tensor(self.beta)
            if bool(moved.isfinite()):
                beta = losses.adapted_beta(self.beta, float(moved), target=config.penalty_kl)
                self.beta = min(max(beta, 1e-10), 1e10)
        return metrics | {
            "kl": moved,
            "explained_variance": returns.explained(value, target),
            "passes": float(passes),
            "learning_rate": self.pair.learning_rate,
        }

    def _passes(self, data: Rows, generator: Generator) -> tuple[dict[str, Tensor], int, int]:
        """Sums of the metrics of minibatches, the number of minibatches and that of passes."""
        config, sums, updates = self.config, {}, 0
        clip_range = config.clip_range * (self.left if config.decay_clip else 1.0)
        clip_range = max(clip_range, 1e-8)  # the loss wants it positive
        for passed in range(1, config.epochs + 1):
            order = torch.randperm(len(data.obs), generator=generator, device=generator.device)
            shuffled = data.rows(order.to(data.obs.device))
            for rows in shuffled.batches(config.batch):
                loss, said = self.loss(rows, clip_range=clip_range)
                said["grad_norm"] = self.pair.minimise(loss)
                updates += 1
                for name, number in said.items():
                    sums[name] = sums[name] + number if name in sums else number
                if config.max_kl is not None and float(said["kl"]) > 1.5 * config.max_kl:
                    return sums, updates, passed
        return sums, updates, config.epochs

    def loss(self, rows: Rows, *, clip_range: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a minibatch, and metrics.

        Args:
            rows: the minibatch.
            clip_range: ε.
        """
        config, module = self.config, cast(Pair, self.pair.module)
        advantage = returns.normalised(rows.advantage) if config.normalise else rows.advantage
        new = module.actor.distribution(rows.obs)
        log_prob = new.log_prob(rows.action)
        if config.objective == "penalty":
            policy = losses.trpo_surrogate(log_prob, rows.old_log_prob, advantage)
        else:
            policy = losses.ppo_clip(log_prob, rows.old_log_prob, advantage, clip=clip_range)
        value = value_of(module.critic, rows.obs)
        if config.value_clip is None:
            error = losses.value_loss(value, rows.target)
        else:
            error = losses.clipped_value_loss(
                value, rows.value, rows.target, clip=config.value_clip
            )
        policy, error, entropy = policy.mean(), error.mean(), new.entropy().mean()
        loss = policy + config.value_weight * error
        if config.entropy_weight:
            loss = loss - config.entropy_weight * entropy
        if config.objective != "clip":
            loss = loss + self.beta * kl(rows.old, new).mean()
        with torch.no_grad():
            log_ratio = log_prob - rows.old_log_prob
            more = log_ratio.exp() - 1  # of the ratio
            said = {
                "actor_loss": policy.detach(),
                "value_loss": error.detach(),
                "entropy": entropy.detach(),
                "kl": (more - log_ratio).mean(),  # Schulman's k3 estimate
                "clip_fraction": (more.abs() > clip_range).float().mean(),
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
        super().load_state_dict(state)
        self.beta = state["beta"]
