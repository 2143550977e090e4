"""The recurrent state-space model (RSSM; Hafner et al. 2019, PlaNet, arXiv 1811.04551).

A state is [h, s]: h is the memory of a GRU, s a Gaussian.

    h_t = GRU(h_{t-1}, s_{t-1}, a_{t-1})
    prior       p(s_t | h_t)
    posterior   q(s_t | h_t, o_t)
    decoder     p(o_t | h_t, s_t), and likewise the reward and the termination of the step to t

They are fitted together to sequences by the evidence lower bound

    Σ_t E_q[log p(o_t | h_t, s_t) + log p(r_t | h_t, s_t)] - KL(q(s_t | h_t, o_t) ‖ p(s_t | h_t)).

A sequence begins with h = 0, in the middle of an episode too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn
from torch.nn.utils import skip_init

from mbrl.data import Normaliser
from mbrl.distributions import DiagonalGaussian
from mbrl.dynamics.recurrent_config import RecurrentConfig
from mbrl.encoders.encoder import leading
from mbrl.encoders.networks import MLP, VectorScaling, networks
from mbrl.nn import ACTIVATIONS, Block
from mbrl.nn.block import check_finite
from mbrl.types import Metrics, Sequences, Step, Transition

SCALED_ON, SCALED_ON_IMAGES = 4096, 1024
"""Steps from which a fit takes the scales of observations, actions and rewards."""


class Bound(NamedTuple):
    """The terms of the evidence lower bound of sequences, in nats; L + 1 frames have L rewards."""

    obs: Float[Tensor, "B L+1"]  # log p(o_t | h_t, s_t)
    reward: Float[Tensor, "B L"]  # likewise of rewards; 0 if they are not learned
    ends: Float[Tensor, "B L"]  # likewise of terminations
    posterior: DiagonalGaussian  # (B, L+1, Z)
    prior: DiagonalGaussian  # (B, L+1, Z)

    def elbo(self) -> Float[Tensor, " B"]:
        """The bound, an unbiased estimate from one sample of s, of each sequence as a whole."""
        fit = self.obs.sum(-1) + self.reward.sum(-1) + self.ends.sum(-1)
        return fit - self.posterior.kl(self.prior).sum(-1)


class RecurrentDynamics(nn.Module):
    """A `Dynamics` with memory, of observations that are vectors or images.

    `encode` filters: it takes the state before and the action taken in it, and returns the memory
    and the posterior's mean. A step takes Z normal numbers, by which s is drawn from the prior.

    Args:
        shape: *O, of an observation: a vector, or an image of uint8.
        action_size: A.
        config: settings.
        generator: draws the weights.

    Attributes:
        members: 1.
        background: the mean image of the first fit's data, from which the decoder says how images
            differ; 0 for vectors.

    Raises:
        ValueError: a shape that is neither a vector's nor an image's, or images that are too small.
    """

    members = 1
    background: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        action_size: int,
        config: RecurrentConfig,
        *,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.config, self.shape, self.action_size = config, tuple(shape), action_size
        size, memory, width = config.latent, config.deterministic, config.width
        self.size = memory + size
        middle = (width,) if width else ()
        sizes = replace(config, latent=self.size)
        self.scaling, self.encoder, self.decoder = networks(
            shape, width or 2 * size, sizes, generator=generator
        )
        self.action_scaling, self.reward_scaling = Normaliser(action_size), Normaliser(1)
        self.register_buffer("background", torch.zeros(self.scaling.size))
        inputs = size + action_size
        self.inputs = _linear(inputs, width, generator) if width else nn.Identity()
        self.cell = cast(nn.Module, skip_init(nn.GRUCell, width or inputs, memory))
        _draw(self.cell, memory, generator)
        self.prior_net = MLP((memory, *middle, 2 * size), config.activation, generator=generator)
        # the first layer of the posterior is linear in h and in the encoder's last hidden layer
        self.recall = _linear(memory, width or 2 * size, generator)
        self.posterior_net = _linear(width, 2 * size, generator) if width else nn.Identity()
        self.act = ACTIVATIONS[config.activation] if width else lambda x: x
        heads = config.learn_reward, config.learn_termination
        self.reward, self.termination = (
            MLP((self.size, *2 * middle, 1), config.activation, generator=generator)
            if learned
            else None
            for learned in heads
        )
        self.log_noise, self.log_reward_noise = (
            nn.Parameter(torch.tensor(math.log(std or 1.0)), requires_grad=std is None)
            for std in (config.noise, config.reward_noise)
        )
        self._block: Block | None = None
        self._moments: Mapping[str, Any] | None = None

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(Z,)."""
        return (self.config.latent,)

    def encode(
        self,
        obs: Shaped[Tensor, "*lead *O"],
        *,
        state: Float[Tensor, "*lead S"] | None = None,
        action: Float[Tensor, "*lead A"] | None = None,
    ) -> Float[Tensor, "*lead S"]:
        """The state of an observation, after the state before and the action taken in it.

        Raises:
            ValueError: observations of another shape, images that are not uint8, vectors that are
                not finite, a state without an action.
        """
        lead = leading(obs, self.shape)
        if obs.is_floating_point() and not bool(obs.isfinite().all()):
            raise ValueError("observations: hold a number that is not finite")
        rows = self.encoder(self.scaling(obs.reshape(-1, *self.shape)))
        if state is None:
            h = rows.new_zeros(len(rows), self.config.deterministic)
        else:
            if action is None or state.shape != (*lead, self.size):
                raise ValueError(
                    f"state: want {(*lead, self.size)} and an action, got {tuple(state.shape)}"
                    f"{' without one' if action is None else ''}"
                )
            moved = self.action_scaling.scale(action.reshape(len(rows), -1))
            h = self._remember(state.reshape(len(rows), -1), moved)
        mean, _ = self._gaussian(self._posterior(h, rows))
        return torch.cat((h, mean), -1).view(*lead, self.size)

    def decode(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead *O"]:
        """The mean observation of a state: a vector, or an image of numbers from 0 to 1."""
        rows = self._decoded(state.reshape(-1, self.size))
        rows = self.scaling.back(rows.view(-1, *self.scaling.size))
        return rows.reshape(*state.shape[:-1], *self.shape)

    def step(
        self,
        state: Float[Tensor, "1 B S"],
        action: Float[Tensor, "1 B A"],
        *,
        noise: Float[Tensor, "1 B Z"] | None,
    ) -> Step:
        """One step by the prior, or to its mean; reward and termination are means too.

        Raises:
            ValueError: wrong shapes.
        """
        wanted = (1, state.shape[1] if state.ndim == 3 else 0)
        if state.shape != (*wanted, self.size) or action.shape != (*wanted, self.action_size):
            raise ValueError(
                f"state, action: want (1, B, {self.size}) and (1, B, {self.action_size}), "
                f"got {tuple(state.shape)} and {tuple(action.shape)}"
            )
        h = self._remember(state[0], self.action_scaling.scale(action[0]))
        mean, std = self._gaussian(self.prior_net(h))
        s = mean if noise is None else torch.addcmul(mean, std, noise[0])
        after = torch.cat((h, s), -1)
        reward, ends = h.new_zeros(len(h)), h.new_zeros(len(h), dtype=torch.bool)
        if self.reward is not None:
            reward = self.reward_scaling.unscale(self.reward(after)).squeeze(-1)
        if self.termination is not None:
            ends = self.termination(after).squeeze(-1) > 0
        return Step(after.unsqueeze(0), reward.unsqueeze(0), ends.unsqueeze(0))

    def bound(self, data: Transition, noise: Float[Tensor, "B L+1 Z"]) -> Bound:
        """The terms of the bound for B sequences of L steps, with one sample of each s.

        Args:
            data: (B, L), of one episode each.
            noise: standard normal.

        Raises:
            ValueError: observations of another shape, or images that are not uint8.
        """
        scaled, memory, samples, raw = self._observed(data, noise)
        lead = memory.shape[:2]
        state = torch.cat((memory, samples), -1)
        decoded = self._decoded(state.flatten(0, 1))
        fit = _log_prob(decoded - scaled, self.log_noise).view(lead)
        after, zeros = state[:, 1:], fit.new_zeros(data.reward.shape)
        rewards = ends = zeros
        if self.reward is not None:
            target = self.reward_scaling.scale(data.reward.unsqueeze(-1))
            off = (self.reward(after) - target).flatten(0, 1)
            rewards = _log_prob(off, self.log_reward_noise).view_as(zeros)
        if self.termination is not None:
            logit = self.termination(after).squeeze(-1)
            target = data.terminated.to(logit)
            ends = -F.binary_cross_entropy_with_logits(logit, target, reduction="none")
        both = (self._gaussian(part) for part in (raw, self.prior_net(memory)))
        return Bound(fit, rewards, ends, *(DiagonalGaussian(mean, std.log()) for mean, std in both))

    @torch.no_grad()
    def states(self, data: Transition, noise: Float[Tensor, "B L+1 Z"]) -> Float[Tensor, "B L+1 S"]:
        """States at the observations of sequences, with samples of the posterior.

        Raises:
            ValueError: as `bound`.
        """
        _, memory, samples, _ = self._observed(data, noise)
        return torch.cat((memory, samples), -1)

    def _observed(self, data: Transition, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scaled frames (B · (L+1), ...); memories, samples and raw posteriors (B, L+1, ...)."""
        frames = torch.cat((data.obs, data.next_obs[:, -1:]), 1)
        lead = leading(frames, self.shape)
        scaled = self.scaling(frames.reshape(-1, *self.shape))
        # the encoder runs over all frames at once; only what needs the step before is in the loop
        embedded = self.encoder(scaled).view(*lead, -1).unbind(1)
        moves = self.action_scaling.scale(data.action).unbind(1)
        h = scaled.new_zeros(lead[0], self.config.deterministic)
        memories: list[Tensor] = []
        samples: list[Tensor] = []
        raws: list[Tensor] = []
        for t, (rows, draws) in enumerate(zip(embedded, noise.unbind(1), strict=True)):
            if t:
                h = self._recur(samples[-1], moves[t - 1], h)
            raws.append(self._posterior(h, rows))
            mean, std = self._gaussian(raws[-1])
            samples.append(torch.addcmul(mean, std, draws))
            memories.append(h)
        return scaled, torch.stack(memories, 1), torch.stack(samples, 1), torch.stack(raws, 1)

    def loss(
        self, data: Transition, *, generator: Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """What the fit minimises, in nats for each step, and numbers to log.

        Returns:
            The loss; `elbo`, the bound, `divergence`, and `log_likelihood`, that of observations,
            in nats for each step; `reward_error`, the root mean square error of rewards in units of
            their std.
        """
        config = self.config
        batch, steps = data.reward.shape
        shape = batch, steps + 1, config.latent
        noise = torch.randn(shape, generator=generator, device=generator.device)
        found = self.bound(data, noise.to(self.log_noise))
        q, p = found.posterior, found.prior
        divergence = q.kl(p).mean()
        cost = divergence.clamp_min(config.free_nats)
        if config.balance is not None:
            to_prior, to_posterior = _constant(q).kl(p).mean(), q.kl(_constant(p)).mean()
            cost = config.balance * to_prior.clamp_min(config.free_nats)
            cost = cost + (1 - config.balance) * to_posterior.clamp_min(config.free_nats)
        fit = found.obs.mean() + found.reward.mean() + found.ends.mean()
        said = {
            "elbo": fit.detach() - divergence.detach(),
            "divergence": divergence.detach(),
            "log_likelihood": found.obs.detach().mean(),
        }
        if self.reward is not None:
            log_std = self.log_reward_noise.detach()
            off = -2 * (found.reward.detach() + log_std + 0.5 * math.log(2 * math.pi))
            said["reward_error"] = off.mean().clamp_min(0).sqrt() * log_std.exp()
        return config.beta * cost - fit, said

    def fit(self, data: Sequences, *, updates: int | None = None, generator: Generator) -> Metrics:
        """Go on learning, for a number of updates or, if it is None, that of the settings.

        Returns:
            Means over the updates of the `loss` and its numbers.

        Raises:
            ValueError: fewer updates than one; data without `sequences`, or no episode of so many
                steps; numbers that became infinite or NaN.
        """
        config = self.config
        count = config.updates if updates is None else updates
        if count < 1:
            raise ValueError(f"updates: want 1 or more, got {count}")
        if not hasattr(data, "sequences"):
            raise ValueError(
                f"fit: want data with sequences, such as a SequenceReplay, "
                f"got a {type(data).__name__}"
            )
        self._rescale(data, generator)
        block, totals = self._trained(), dict[str, float]()
        for _ in range(count):
            batch = data.sequences(config.batch, config.length, generator=generator)
            loss, said = self.loss(batch, generator=generator)
            block.minimise(loss)
            now = {name: float(value) for name, value in {"loss": loss.detach(), **said}.items()}
            check_finite(now)
            for name, value in now.items():
                totals[name] = totals.get(name, 0.0) + value
        return {name: total / count for name, total in totals.items()}

    def _rescale(self, data: Sequences, generator: Generator) -> None:
        """Scale vectors, actions and rewards to mean 0 and std 1; take the mean image once."""
        vectors = isinstance(self.scaling, VectorScaling)
        steps, length = SCALED_ON if vectors else SCALED_ON_IMAGES, self.config.length
        some = data.sequences(max(1, steps // length), length, generator=generator)
        if isinstance(self.scaling, VectorScaling):
            leading(some.obs, self.shape)
            self.scaling.normaliser.fit(some.obs.flatten(0, 1))
        elif not bool(self.background.any()):
            leading(some.obs, self.shape)
            self.background.copy_(self.scaling(some.obs.flatten(0, 1)).mean(0))
        self.action_scaling.fit(some.action.flatten(0, 1))
        self.reward_scaling.fit(some.reward.reshape(-1, 1))

    def _trained(self) -> Block:
        """The parameters with their optimiser, whose moments last from one fit to the next."""
        if self._block is None:
            config = self.config
            rate, clip = config.learning_rate, config.clip
            self._block = Block(self, learning_rate=rate, eps=1e-5, clip=clip)
        if self._moments is not None:
            buffers = dict(self.named_buffers())
            whole = {**self._moments, "value": self._block.value.detach(), "buffers": buffers}
            self._block.load_state_dict(whole)
            self._moments = None
        return self._block

    def get_extra_state(self) -> dict[str, Any]:
        """The shape of observations, and the optimiser's moments."""
        moments = self._moments
        if self._block is not None and moments is None:
            whole = self._block.state_dict()
            moments = {name: whole[name] for name in whole if name not in ("value", "buffers")}
        return {"shape": list(self.shape), "moments": None if moments is None else dict(moments)}

    def set_extra_state(self, state: Any) -> None:
        """Restore what `get_extra_state` returned."""
        self._moments = state["moments"]
        if self._moments is None:
            self._block = None  # its moments are those of other weights

    def load_state_dict(self, state: Mapping[str, Any], *others: Any, **more: Any) -> Any:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is of a model of observations of another shape.
            RuntimeError: it is of a model with other settings.
        """
        shape = tuple(state.get("_extra_state", {}).get("shape", ()))
        if shape != self.shape:
            raise ValueError(f"model: want one of observations of shape {self.shape}, got {shape}")
        loaded = super().load_state_dict(state, *others, **more)
        if self._moments is not None:  # the rounding of products depends on where weights lie
            self._trained()
        return loaded

    def _decoded(self, state: Tensor) -> Tensor:
        """Means of scaled observations in states (B, S)."""
        return self.decoder(state) + self.background

    def _remember(self, state: Tensor, moved: Tensor) -> Tensor:
        """The memory after actions, scaled, in states (B, S)."""
        h, s = state.split((self.config.deterministic, self.config.latent), -1)
        return self._recur(s, moved, h)

    def _recur(self, s: Tensor, moved: Tensor, h: Tensor) -> Tensor:
        return self.cell(self.act(self.inputs(torch.cat((s, moved), -1))), h)

    def _posterior(self, h: Tensor, rows: Tensor) -> Tensor:
        """Raw mean and std of q, from the memory and the encoder's outputs."""
        return self.posterior_net(self.act(self.recall(h) + rows))

    def _gaussian(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = raw.chunk(2, -1)
        return mean, F.softplus(std) + self.config.min_std


def _log_prob(off: Tensor, log_std: Tensor) -> Tensor:
    """log N(off; 0, std) of each row."""
    squared = off.square().sum(tuple(range(1, off.ndim))) * (-2 * log_std).exp()
    return -0.5 * squared - off[0].numel() * (log_std + 0.5 * math.log(2 * math.pi))


def _constant(gaussian: DiagonalGaussian) -> DiagonalGaussian:
    return DiagonalGaussian(gaussian.mean.detach(), gaussian.log_std.detach())


def _linear(inputs: int, outputs: int, generator: Generator) -> nn.Linear:
    # without torch's own initial weights, which draw from its global random stream
    layer = cast(nn.Linear, skip_init(nn.Linear, inputs, outputs))
    _draw(layer, inputs, generator)
    return layer


def _draw(layer: nn.Module, inputs: int, generator: Generator) -> None:
    """The weights of torch's layers, within ±1/sqrt(inputs)."""
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
