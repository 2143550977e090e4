"""TD-MPC2 (Hansen et al. 2024, "TD-MPC2: scalable, robust world models for continuous control",
arXiv 2310.16828): a latent world model, critics and a policy, learned together from sequences.

With z_0 = h(s_0), z_{t+1} = d(z_t, a_t), and sg a constant, the loss of a sequence of H steps is

    Σ_t ρ^t [c ‖z_{t+1} - sg h(s_{t+1})‖² / Z + b CE(R(z_t, a_t), r_t) + q CE(Q(z_t, a_t), y_t)] / H

    y_t = r_t + γ (1 - terminated) min Q'(h(s_{t+1}), π(h(s_{t+1}))),

CE the cross entropy of a two-hot encoding, the second and the mean of all critics, and the minimum
over two of them. The policy maximises Σ_t ρ^t [Q(z_t, π(z_t)) / S + α H(π(z_t))], S the running
range of Q.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl import losses
from mbrl.checks import check_batch
from mbrl.distributions import Bounds, TwoHot, symlog, two_hot
from mbrl.dynamics.latent import LatentModel, LatentNets
from mbrl.encoders.encoder import Encoder
from mbrl.learners.actors import SquashedActor, normal
from mbrl.learners.configs import discount_of
from mbrl.learners.tdmpc_config import TDMPCConfig
from mbrl.nn import Block, StackedMLP, Target, minimise
from mbrl.parallel import single_thread
from mbrl.types import Metrics, Transition


class World(LatentModel):
    """The model to plan through, with the value of its latent states.

    Args:
        encoder: of observations.
        nets: the networks.
        critics: of latent states and actions.
        actor: the policy on latent states.
        subset: number of critics whose mean is the value; `resample` draws which.
    """

    def __init__(
        self, encoder: nn.Module, nets: nn.Module, critics: nn.Module, actor: nn.Module, subset: int
    ) -> None:
        super().__init__(encoder, nets)
        self.critics, self.actor = cast(StackedMLP, critics), cast(SquashedActor, actor)
        self.chosen = list(range(subset))

    def resample(self, *, generator: Generator) -> None:
        """Draw the critics whose mean is the value; the networks stay."""
        self.chosen = draw(self.critics.members, len(self.chosen), generator=generator)

    def value(self, state: Float[Tensor, "*lead Z"]) -> Float[Tensor, "*lead"]:
        """Q(z, a) for the median a of the policy, mean over the drawn critics."""
        action = self.actor.distribution(state).mode
        joined = self.nets.joined(state, action)
        return self.each(self.critics, joined, self.chosen).mean(0).view(state.shape[:-1])

    def each(
        self, critics: StackedMLP, joined: Float[Tensor, "1 B ZA"], chosen: list[int]
    ) -> Float[Tensor, "C B"]:
        """Values by some of the critics."""
        outs = critics.only(chosen, joined)
        return TwoHot(outs, self.nets.bins, symlog=True).mean


class TDMPC:
    """The learner of TD-MPC2.

    Attributes:
        world: the model, to plan through.
        policy: a `Policy` on latent states.
        scale: S, the running range of values, at least 1.
        updates: how many there have been.

    Args:
        encoder: turns observations into latent states of Z numbers.
        actions: the box of actions.
        config: settings; the discount must be set.
        termination: whether ends of episodes are predicted.
        generator: draws the initial weights.
        device: where the learner is to be, and the bounds of actions are.

    Raises:
        ValueError: a discount that is unset; an encoder of other than Z features.
    """

    PARTS = ("encoder", "nets", "critics", "target", "actor")

    def __init__(
        self,
        encoder: Encoder,
        actions: Bounds,
        config: TDMPCConfig,
        *,
        termination: bool,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        if encoder.features != config.latent:
            raise ValueError(
                f"latent: want the encoder's {encoder.features} features, got {config.latent}"
            )
        self.config, self.discount, self.updates = config, discount_of(config), 0
        self._obs_shape, self._actions = encoder.shape, len(actions.low)
        bins = torch.linspace(*config.value_range, config.bins)
        nets = LatentNets(
            config.latent, actions, config.hidden, group=config.group, bins=bins,
            termination=termination, generator=generator,
        )  # fmt: skip
        critics = StackedMLP(
            config.critics,
            (config.latent + self._actions, *config.hidden, config.bins),
            activation="mish",
            norm="layer",
            dropout=(config.dropout, *(0.0 for _ in config.hidden[1:])) if config.hidden else 0.0,
            generator=generator,
        )
        with torch.no_grad():
            critics.weights[-1].zero_()
        policy = StackedMLP(
            1,
            (config.latent, *config.hidden, 2 * self._actions),
            activation="mish",
            norm="layer",
            generator=generator,
        )
        rate = config.learning_rate
        self.encoder = Block(encoder.to(device), learning_rate=rate * config.encoder_rate)
        self.nets = Block(nets.to(device), learning_rate=rate)
        self.critics = Block(critics.to(device), learning_rate=rate)
        actor = SquashedActor(policy, actions, smooth_std=True).to(device)
        self.actor = Block(actor, learning_rate=rate, eps=1e-5, clip=config.clip)
        self.target = Target(self.critics)
        fixed = [
            block.fixed.eval() for block in (self.encoder, self.nets, self.critics, self.actor)
        ]
        self.target.module.eval()
        self.world = World(*fixed, subset=config.subset)
        self.policy = self.world.actor
        self.scale = torch.ones((), device=device)
        self._weights = config.rho ** torch.arange(config.horizon + 1, device=device)

    @single_thread()  # small products are faster on one thread
    def update(self, batch: Transition, *, generator: Generator) -> Metrics:
        """One step of the model and critics, one of the policy, and one of the targets.

        Args:
            batch: B sequences of H consecutive steps each, (B, H, ...). Only the last may end an
                episode.
            generator: draws actions, critics and dropout.

        Raises:
            ValueError: wrong shapes, or numbers that are not finite; nothing is changed then.
        """
        steps = self.config.horizon
        if batch.reward.ndim != 2 or batch.reward.shape[1] != steps:
            raise ValueError(
                f"reward must have shape (B, {steps}), of sequences of {steps} steps, got "
                f"{tuple(batch.reward.shape)}"
            )
        rows = Transition(*(column.transpose(0, 1).flatten(0, 1) for column in batch))
        check_batch(rows, self._obs_shape, (self._actions,))
        self.critics.module.train()
        cast(StackedMLP, self.critics.module).resample(generator=generator)
        loss, states, metrics = self.model_loss(rows, generator=generator)
        blocks = [self.encoder, self.nets, self.critics]
        metrics["gradient"] = minimise(loss, blocks, clip=self.config.clip)
        loss, said = self._policy_loss(states, generator=generator)
        self.actor.minimise(loss)
        self.target.follow(self.config.polyak)
        self.updates += 1
        return cast(Metrics, metrics | said)

    def model_loss(
        self, rows: Transition, *, generator: Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "H1 B Z"], dict[str, Tensor]]:
        """The loss of encoder, model and critics.

        Args:
            rows: all first steps of B sequences, then all second ones, ..., (H · B, ...).
            generator: draws actions and critics.

        Returns:
            The loss; the predicted latent states as constants; and metrics.
        """
        config, steps = self.config, self.config.horizon
        nets, bins = cast(LatentNets, self.nets.module), self.world.nets.bins
        with torch.no_grad():
            found = self.encoder.fixed(rows.next_obs)  # (H · B, Z)
            target = self.td_target(found, rows.reward, rows.terminated, generator=generator)
            target, reward = (two_hot(symlog(x), bins) for x in (target, rows.reward))
        count = len(rows.reward) // steps
        actions = rows.action.view(steps, count, -1)
        states, inputs, logits = [self.encoder.module(rows.obs[:count])], [], []
        for t in range(steps):
            inputs.append(nets.joined(states[-1], actions[t]))
            state, guess = nets(inputs[-1])
            states.append(state.squeeze(0))
            logits.append(guess)
        joined, predicted = torch.cat(inputs, 1), torch.cat(states[1:])
        weight = self._weights[:steps].repeat_interleave(count) / len(rows.reward)
        errors = (predicted - found).square().mean(-1)
        rewards = losses.categorical_cross_entropy(torch.cat(logits, 1)[0], reward)
        every = self.critics.module(joined.expand(config.critics, -1, -1))
        values = losses.categorical_cross_entropy(every, target.expand_as(every)).mean(0)
        parts = {
            "consistency_loss": errors @ weight,
            "reward_loss": rewards @ weight,
            "value_loss": values @ weight,
        }
        loss = (
            config.consistency * parts["consistency_loss"]
            + config.reward * parts["reward_loss"]
            + config.value * parts["value_loss"]
        )
        if nets.termination is not None:
            last = nets.termination(predicted.unsqueeze(0)).view(-1)
            ends = F.binary_cross_entropy_with_logits(last, rows.terminated.to(last))
            parts["termination_loss"] = ends
            loss = loss + config.termination * ends
        latent = torch.stack([state.detach() for state in states])
        return loss, latent, {name: part.detach() for name, part in parts.items()}

    @torch.no_grad()
    def td_target(
        self,
        next_state: Float[Tensor, "B Z"],
        reward: Float[Tensor, " B"],
        terminated: Shaped[Tensor, " B"],
        *,
        generator: Generator,
    ) -> Float[Tensor, " B"]:
        """y = r + γ (1 - terminated) min Q'(z', a'), a' drawn by the policy, over a few critics."""
        action = self.policy(next_state, generator=generator, explore=True)
        joined = self.world.nets.joined(next_state, action)
        chosen = draw(self.config.critics, self.config.subset, generator=generator)
        least = self.world.each(cast(StackedMLP, self.target.module), joined, chosen).amin(0)
        return reward + self.discount * least.masked_fill(terminated, 0.0)

    def _policy_loss(
        self, states: Float[Tensor, "H1 B Z"], *, generator: Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        config = self.config
        policy = cast(SquashedActor, self.actor.module).distribution(states)
        noise = normal(policy.mean, generator=generator)
        action, log_prob = policy.sample_and_log_prob(noise)  # (H + 1, B)
        chosen = draw(config.critics, config.subset, generator=generator)
        joined = self.world.nets.joined(states, action)
        q = self.world.each(self.world.critics, joined, chosen).mean(0).view(log_prob.shape)
        with torch.no_grad():
            low, high = torch.quantile(q[0], q.new_tensor([0.05, 0.95]))
            self.scale.lerp_((high - low).clamp_min(1.0), config.polyak)
        entropy = -log_prob * self._actions
        rows = -(q / self.scale + config.entropy * entropy).mean(1)
        loss = (rows * self._weights).mean()
        return loss, {
            "policy_loss": loss.detach(),
            "entropy": -log_prob.detach().mean(),
            "q": q.detach().mean(),
            "scale": self.scale.clone(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Networks, targets, moments of the optimisers, the range of values and the updates."""
        parts = {name: getattr(self, name).state_dict() for name in self.PARTS}
        return {**parts, "scale": self.scale.clone(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is from a different learner.
        """
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.scale.copy_(state["scale"])
        self.updates = state["updates"]


def draw(count: int, some: int, *, generator: Generator) -> list[int]:
    """Indices of `some` of `count` critics, drawn without replacement."""
    order = torch.randperm(count, generator=generator, device=generator.device)
    return order[:some].tolist()
