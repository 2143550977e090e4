"""Stochastic value gradients: a policy improved by gradients through a model.

The policy acts for H steps in a model, and the discounted sum of rewards, with a critic's value of
the last state, is differentiated with respect to the policy's parameters (Heess et al. 2015;
SAC-SVG(H), Amos et al. 2021). In DHMBPO (Kubo et al. 2025, "Double horizon model-based policy
optimization") the critics learn from the same trajectories.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from mbrl import losses
from mbrl.data import Normaliser
from mbrl.distributions import Bounds
from mbrl.encoders.encoder import Encoder
from mbrl.imagination import rollout
from mbrl.learners.actions import as_features
from mbrl.learners.actors import SquashedActor, normal
from mbrl.learners.off_policy import Factor, OffPolicyLearner
from mbrl.learners.svg_config import SVGConfig
from mbrl.nn import Block, NormedMLP, StackedMLP, Target
from mbrl.parallel import single_thread
from mbrl.types import Dynamics, Metrics, RewardFn, TerminatedFn, Transition

__all__ = ["SVG", "SVGConfig", "Trajectories", "World", "soft_return"]


class World(NamedTuple):
    """A model to learn in, whose states are observations."""

    model: Dynamics
    reward: RewardFn | None = None  # None: the model's own
    terminated: TerminatedFn | None = None  # likewise


class Trajectories(NamedTuple):
    """H imagined steps from each of P · N states, and the policy's action in the last state."""

    state: Float[Tensor, "P N H+1 S"]
    action: Float[Tensor, "P N H+1 A"]
    log_prob: Float[Tensor, "P N H+1"]
    reward: Float[Tensor, "P N H"]
    alive: Bool[Tensor, "P N H+1"]  # the trajectory has not ended before the step


class SVG(OffPolicyLearner[SVGConfig, Bounds]):
    """A `Learner` in a box of actions, by gradients through a model.

    `update` takes real transitions, of which imagined trajectories begin, and `improve` states
    alone. Both need `world`. Networks see states scaled by `rescale`.

    Attributes:
        world: the model; set it before the first update.
        inputs: the scale of states.
        range: (2,), low and high bound of returns, nan before the first update.

    Raises:
        ValueError: `bounded` with discount 1; an encoder of images.
    """

    PARTS = ("actor", "critic", "target")

    world: World | None = None

    def _build(self, encoder: Encoder | None, generator: Generator) -> tuple[int, ...]:
        config, bounds, actions = self.config, self.actions, len(self.actions.low)
        if encoder is not None:
            raise ValueError("svg: a model of images is not learned here; want vectors")
        if config.tail and config.bounded and self.discount == 1:
            raise ValueError("bounded: returns with discount 1 have no range; want False")
        net = StackedMLP(
            1,
            (self.size, *config.hidden, 2 * actions),
            activation=config.activation,
            init="orthogonal",
            generator=generator,
        )
        actor = SquashedActor(net, bounds)
        start = config.first_temperature if config.temperature is None else config.temperature
        # in the actor's block, for one step of the optimiser moves both
        actor.log_temperature = nn.Parameter(torch.tensor(math.log(max(start, 1e-30))))
        self.actor = Block(
            actor.to(self.device), learning_rate=config.learning_rate, clip=config.clip
        )
        self.actor.fixed.eval()
        self.critic = self.target = None
        if config.tail:
            hidden = config.critic_hidden or config.hidden
            norms = max(len(hidden) - 1, 0)
            critic = NormedMLP(
                config.critics,
                (self.size + actions, *hidden, 1),
                eps=[0.0] * (len(hidden) + 1 - norms) + [config.critic_eps] * norms,
                dropout=[config.dropout] * len(hidden) + [0.0],
                activation=config.activation,
                zero_last=True,
                generator=generator,
            )
            self.critic = Block(
                critic.to(self.device),
                learning_rate=config.critic_learning_rate or config.learning_rate,
                clip=config.clip,
            )
            self.critic.fixed.eval()
            self.target = Target(self.critic)
            self.target.module.eval()
        self.inputs = Normaliser(self.size).to(self.device)
        self.range = torch.full((2,), math.nan, device=self.device)
        # that of [-1, 1]: in another box the density is divided by the product of half its sizes
        own = config.target_entropy
        self.target_entropy = bounds.log_half - actions if own is None else own
        return (self.size,)

    @property
    def policy(self) -> Any:
        """The current policy: differentiable in the states, with constant parameters."""
        return _ScaledPolicy(self.inputs, cast(SquashedActor, self.actor.fixed))

    @property
    def temperature(self) -> Tensor:
        """α, the weight of the entropy, a constant."""
        return cast(Tensor, self.actor.fixed.log_temperature).exp()

    def rescale(self, obs: Float[Tensor, "T S"]) -> None:
        """Scale the networks' inputs to mean 0 and std 1 on these states from now on."""
        self.inputs.fit(obs)

    def restart(self) -> None:
        """Forget the moments of the optimisers."""
        for block in (self.actor, self.critic):
            if block is not None:
                block.restart()

    def value(self, obs: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead"]:
        """Mean of the critics' values of the policy's median action, without the entropy's.

        Raises:
            ValueError: there are no critics.
        """
        if self.critic is None:
            raise ValueError("value: without a tail there are no critics")
        rows = obs.reshape(-1, self.size)
        action = self.policy(rows, generator=torch.Generator(), explore=False)
        return self._values(self.critic.fixed, rows, action).mean(0).view(obs.shape[:-1])

    @single_thread()  # small products are faster on one thread
    def improve(
        self, state: Float[Tensor, "B S"], *, actor: bool = True, generator: Generator
    ) -> Metrics:
        """One step of the critics from imagined trajectories, and of the policy.

        Args:
            state: where the trajectories begin; the rest is left out if B is no multiple of the
                model's members.
            actor: whether the policy is improved too.
            generator: draws actions, noise, members, subsets of critics and dropout.

        Raises:
            ValueError: wrong shapes, fewer states than members, or no `world`.
        """
        if state.ndim != 2 or state.shape[1] != self.size:
            raise ValueError(f"state must have shape {('B', self.size)}, got {tuple(state.shape)}")
        metrics = self._improve(state, self.config.critic_steps == "imagined", actor, generator)
        self.updates += 1
        return cast(Metrics, metrics)

    def _learn(
        self, batch: Transition, weights: Tensor | None, discount: Factor, generator: Generator
    ) -> dict[str, Tensor]:
        metrics: dict[str, Tensor] = {}
        real = self.config.critic_steps == "real"
        if self.critic is not None and real:
            metrics = self._learn_from_steps(batch, weights, discount, generator)
        return metrics | self._improve(batch.obs, not real, True, generator)

    def _improve(
        self, state: Tensor, critics: bool, actor: bool, generator: Generator
    ) -> dict[str, Tensor]:
        """The update from states; one rollout serves critics and policy."""
        metrics: dict[str, Tensor] = {}
        net = cast(SquashedActor, self.actor.module if actor else self.actor.fixed)
        imagined = self.trajectories(state, net, generator=generator)
        with torch.no_grad():
            alive, soft = imagined.alive[..., :-1], imagined.reward
            soft = soft - self.temperature * imagined.log_prob[..., :-1]
            if critics and self.critic is not None:
                self._widen(soft[alive])
            metrics["rollout_reward"] = imagined.reward.sum() / alive.sum()
            metrics["rollout_alive"] = imagined.alive[..., -1].float().mean()
        if critics and self.critic is not None:
            metrics |= self._learn_from_trajectories(imagined, generator)
        if actor:
            metrics |= self._improve_policy(imagined)
        return metrics

    def trajectories(
        self, state: Float[Tensor, "B S"], actor: SquashedActor, *, generator: Generator
    ) -> Trajectories:
        """H imagined steps from each state, differentiable in the actor's parameters.

        Raises:
            ValueError: fewer states than the model has members, or no `world`.
        """
        config, world = self.config, self.world
        if world is None:
            raise ValueError("world: the learner has no model; set it before an update")
        members = world.model.members
        rows = len(state) - len(state) % members
        if not rows:
            raise ValueError(f"state: want at least {members} rows, one a member, got {len(state)}")
        log_probs: list[Tensor] = []

        def acts(state: Tensor, *, generator: Generator, explore: bool) -> Tensor:
            action, log_prob = self._drawn(actor, state, generator)
            log_probs.append(log_prob)
            return action

        imagined = rollout(
            world.model,
            state[:rows].view(members, -1, self.size),
            acts,
            horizon=config.horizon,
            particles=members,
            propagation=config.propagation,
            reward=world.reward,
            terminated=world.terminated,
            gradients=True,
            generator=generator,
        )
        while len(log_probs) < config.horizon:  # all trajectories have ended
            log_probs.append(torch.zeros_like(log_probs[0]))
        last = imagined.state[..., -1, :]
        action, log_prob = self._drawn(actor, last, generator)
        goes_on = imagined.alive[..., -1:] & ~imagined.terminated[..., -1:]
        return Trajectories(
            imagined.state,
            torch.cat((imagined.action, action.unsqueeze(-2)), -2),
            torch.stack([*log_probs, log_prob], -1),
            imagined.reward,
            torch.cat((imagined.alive, goes_on), -1),
        )

    def _learn_from_trajectories(
        self, imagined: Trajectories, generator: Generator
    ) -> dict[str, Tensor]:
        """Critics of the first state and action against the discounted sum."""
        assert self.target is not None
        state, action, log_prob, reward, alive = (part.detach() for part in imagined)
        with torch.no_grad():
            last = self._values(self.target.module, state[..., -1, :], action[..., -1, :])
            log_prob = log_prob.clone()
            log_prob[..., 0] = 0.0  # the entropy of the first action is no part of its value
            target = soft_return(
                reward,
                log_prob,
                self._least(last, generator),
                alive,
                discount=self.discount,
                temperature=self.temperature,
            )
        return self._fit_critics(state[..., 0, :], action[..., 0, :], target, None, generator)

    def _learn_from_steps(
        self, batch: Transition, weights: Tensor | None, discount: Factor, generator: Generator
    ) -> dict[str, Tensor]:
        """Critics against one-step targets, as in SAC."""
        assert self.target is not None
        with torch.no_grad():
            actor = cast(SquashedActor, self.actor.fixed)
            action, log_prob = self._drawn(actor, batch.next_obs, generator)
            self._widen(batch.reward - self.temperature * log_prob)
            value = self._least(self._values(self.target.module, batch.next_obs, action), generator)
            target = losses.sac_critic_target(
                batch.reward,
                value.unsqueeze(0),
                log_prob,
                batch.terminated,
                discount=discount,
                temperature=self.temperature,
            )
        return self._fit_critics(batch.obs, batch.action, target, weights, generator)

    def _fit_critics(
        self,
        state: Float[Tensor, "*B S"],
        action: Float[Tensor, "*B A"],
        target: Float[Tensor, "*B"],
        weights: Tensor | None,
        generator: Generator,
    ) -> dict[str, Tensor]:
        assert self.critic is not None and self.target is not None
        cast(NormedMLP, self.critic.module).resample(generator=generator)
        q = self._values(self.critic.module, state, action)
        rows = losses.value_loss(q, target.expand_as(q)).sum(0)
        loss = losses.average(rows.flatten(), weight=weights)
        self.critic.minimise(loss)
        self.target.follow(self.config.polyak)
        return {
            "q": q.detach().mean(),
            "q_spread": q.detach().std(0).mean() if len(q) > 1 else q.new_zeros(()),
            "critic_loss": loss.detach(),
            **({"q_low": self.range[0], "q_high": self.range[1]} if self.config.bounded else {}),
        }

    def _improve_policy(self, imagined: Trajectories) -> dict[str, Tensor]:
        """The policy's step along the gradient of the soft return through the model."""
        last = imagined.reward.new_zeros(imagined.reward.shape[:-1])
        alive = imagined.alive
        if self.critic is not None:
            values = self._values(
                self.critic.fixed, imagined.state[..., -1, :], imagined.action[..., -1, :]
            )
            last = values.mean(0)
        else:  # nothing counts after the last step
            alive = torch.cat((alive[..., :-1], torch.zeros_like(alive[..., -1:])), -1)
        total = soft_return(
            imagined.reward,
            imagined.log_prob,
            last,
            alive,
            discount=self.discount,
            temperature=self.temperature,
        )
        loss, first = -total.mean(), imagined.log_prob[..., 0]
        objective = loss
        if self.config.temperature is None:
            objective = (
                loss
                + losses.sac_temperature(
                    cast(Tensor, self.actor.module.log_temperature),
                    first.flatten(),
                    target_entropy=self.target_entropy,
                ).mean()
            )
        self.actor.minimise(objective)
        gradient = self.actor.value.grad
        assert gradient is not None
        return {
            "actor_loss": loss.detach(),
            "actor_gradient": torch.linalg.vector_norm(gradient),
            "entropy": -first.detach().mean(),
            "temperature": self.temperature,
        }

    def _drawn(
        self, actor: SquashedActor, state: Float[Tensor, "*B S"], generator: Generator
    ) -> tuple[Float[Tensor, "*B A"], Float[Tensor, "*B"]]:
        distribution = actor.distribution(self.inputs.scale(state))
        return distribution.sample_and_log_prob(normal(distribution.mean, generator=generator))

    def _values(
        self, critic: nn.Module, state: Float[Tensor, "*B S"], action: Float[Tensor, "*B A"]
    ) -> Float[Tensor, " C *B"]:
        rows = torch.cat((self.inputs.scale(state), as_features(action, self.actions)), -1)
        out = critic(rows.view(1, -1, rows.shape[-1]).expand(self.config.critics, -1, -1))
        out = out.view(-1, *rows.shape[:-1])
        if not self.config.bounded:
            return out
        low, high = self.range
        return torch.addcmul(0.5 * (low + high), 0.5 * (high - low), out)

    def _least(self, q: Float[Tensor, " C *B"], generator: Generator) -> Float[Tensor, "*B"]:
        """The minimum of a random subset, within the range of returns."""
        chosen = torch.randperm(len(q), generator=generator, device=generator.device)
        least = q[chosen[: self.config.subset].to(q.device)].amin(0)
        return least.clamp(*self.range) if self.config.bounded else least

    def _widen(self, soft: Float[Tensor, " B"]) -> None:
        """Move the range of returns to the quantiles of soft rewards."""
        if not self.config.bounded or not len(soft):
            return
        share = self.config.quantile
        at = torch.tensor([share, 1 - share], dtype=soft.dtype, device=soft.device)
        found = torch.quantile(soft, at) / (1 - self.discount)
        fresh = self.range.isnan()
        self.range = torch.where(fresh, found, self.range.lerp(found, self.config.range_rate))

    def _parts(self) -> dict[str, Block | Target | None]:
        return {"actor": self.actor, "critic": self.critic, "target": self.target}

    def state_dict(self) -> dict[str, Any]:
        """As of `OffPolicyLearner`, with the scale of states and the range of returns."""
        # nan is no number for a checkpoint
        known = None if bool(self.range.isnan().any()) else self.range.clone()
        inputs = {name: value.clone() for name, value in self.inputs.state_dict().items()}
        return super().state_dict() | {"inputs": inputs, "range": known}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError, RuntimeError: it is from a different learner.
        """
        super().load_state_dict(state)
        self.inputs.load_state_dict(state["inputs"])
        known = state["range"]
        self.range = torch.full_like(self.range, math.nan) if known is None else known.clone()


class _ScaledPolicy:
    """A `Policy` of states from one of scaled states."""

    def __init__(self, inputs: Normaliser, actor: SquashedActor) -> None:
        self.inputs, self.actor = inputs, actor

    def __call__(
        self, state: Float[Tensor, "*lead S"], *, generator: Generator, explore: bool
    ) -> Float[Tensor, "*lead A"]:
        return self.actor(self.inputs.scale(state), generator=generator, explore=explore)


def soft_return(
    reward: Float[Tensor, "*B H"],
    log_prob: Float[Tensor, "*B H+1"],
    last_value: Float[Tensor, "*B"],
    alive: Bool[Tensor, "*B H+1"],
    *,
    discount: float,
    temperature: float | Tensor,
) -> Float[Tensor, "*B"]:
    """Σ_{k<H} γ^k (r_k - α log π_k) + γ^H (V - α log π_H), over the steps that are alive.

    Args:
        reward: r_k.
        log_prob: log π_k of the actions, that in the last state included.
        last_value: V, of the last state and action.
        alive: whether a trajectory has not ended before step k.
        discount: γ.
        temperature: α.
    """
    gain = torch.cat((reward, last_value.unsqueeze(-1)), -1) - temperature * log_prob
    powers = discount ** torch.arange(gain.shape[-1], device=gain.device, dtype=gain.dtype)
    return torch.where(alive, gain, 0.0) @ powers
