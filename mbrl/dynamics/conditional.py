"""Conditional variational autoencoders: models of outcomes with several modes.

p(y|x) = ∫ p(y|x, z) p(z|x) dz with a learned prior p(z|x), fitted by the bound

    E_q[log p(y|x, z)] - KL(q(z|x, y) ‖ p(z|x))

(Sohn et al. 2015, "Learning structured output representation"; as dynamics Moerland et al. 2017,
arXiv 1705.00470). A Gaussian puts its mass between two modes; here z says which one it is.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.special import ndtri
from torch import Generator, Tensor

from mbrl.distributions import DiagonalGaussian, clamp_log_std
from mbrl.dynamics import fitting
from mbrl.dynamics.configs import ConditionalConfig
from mbrl.dynamics.heads import Trained
from mbrl.dynamics.neural import NeuralDynamics
from mbrl.encoders.losses import importance_weighted_bound
from mbrl.nn import Net, StackedMLP
from mbrl.types import Gaussian, Step

_SEED = 0
"""Of the latent noise in held-out losses, so that passes are compared on the same numbers."""


class ConditionalNet(Net):
    """E networks each of the prior p(z|x), the posterior q(z|x, y) and the decoder p(y|x, z).

    Its inputs are x and Z standard normal numbers, by which z is drawn from the prior.

    Args:
        config: sizes.
        inputs: I + Z.
        targets: D.
        outputs: raw outputs for `Heads`.
        generator: draws the weights.
    """

    separable = True

    def __init__(
        self,
        config: ConditionalConfig,
        inputs: int,
        targets: int,
        outputs: int,
        *,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.latent, self.inputs = config.latent, inputs - config.latent
        self.prior, self.posterior, self.decoder = (
            StackedMLP(
                config.members,
                (first, *config.hidden, last),
                activation=config.activation,
                generator=generator,
            )
            for first, last in (
                (self.inputs, 2 * self.latent),
                (self.inputs + targets, 2 * self.latent),
                (inputs, outputs),
            )
        )
        self._noise: Generator | None = None

    @property
    def members(self) -> int:
        """E."""
        return self.decoder.members

    def reset(self, *, generator: Generator) -> None:
        """Draw fresh initial weights."""
        for part in (self.prior, self.posterior, self.decoder):
            part.reset(generator=generator)

    def resample(self, *, generator: Generator) -> None:
        """Take the latent noise of training from this generator."""
        self._noise = generator

    def forward(self, x: Float[Tensor, "E B I+Z"]) -> Float[Tensor, "E B K"]:
        """Raw outputs for z = μ(x) + σ(x) ε, with ε the last Z inputs."""
        inputs, noise = x.split((self.inputs, self.latent), -1)
        z = _gaussian(self.prior(inputs)).sample(noise)
        return self.decoder(torch.cat((inputs, z), -1))

    def drawn(
        self, x: Float[Tensor, "E B I+Z"], y: Float[Tensor, "E B D"], samples: int
    ) -> tuple[
        Float[Tensor, "E B·M K"], DiagonalGaussian, DiagonalGaussian, Float[Tensor, "M E B Z"]
    ]:
        """Raw outputs for M samples of z each, posterior and prior, and the samples' noise.

        Noise is new in training, and else always the same.
        """
        inputs = x[..., : self.inputs]
        prior = _gaussian(self.prior(inputs))
        posterior = _gaussian(self.posterior(torch.cat((inputs, y), -1)))
        draw = self._noise if self.training else torch.Generator().manual_seed(_SEED)
        if draw is None:
            raise ValueError("resample must be called before a bound in training mode")
        shape = (samples, *posterior.mean.shape)
        noise = torch.randn(shape, generator=draw, device=draw.device).to(x)
        z = posterior.sample(noise)
        rows = torch.cat((inputs.expand(samples, *inputs.shape), z), -1)
        return self.decoder(rows.movedim(0, 1).flatten(1, 2)), posterior, prior, noise


def _gaussian(out: Tensor) -> DiagonalGaussian:
    mean, log_std = out.chunk(2, -1)
    return DiagonalGaussian(mean, clamp_log_std(log_std, -7.0, 3.0))


def _divergences(q: DiagonalGaussian, p: DiagonalGaussian) -> Float[Tensor, "*lead Z"]:
    """KL(q ‖ p) of each latent dimension."""
    ratio = q.log_std - p.log_std
    apart = (q.mean - p.mean) * (-p.log_std).exp()
    return 0.5 * (torch.expm1(2 * ratio) + apart.square()) - ratio


def conditional_loss(config: ConditionalConfig) -> fitting.Loss:
    """The loss of `Heads` at a z of the posterior, with the divergence, as a mean over targets."""

    def loss(
        trained: Net,
        x: Tensor,
        target: Tensor,
        *ends: Tensor,
        weights: Tensor | None = None,
        per_row: bool = False,
    ) -> Tensor:
        assert isinstance(trained, Trained) and isinstance(trained.net, ConditionalNet)
        count, size = config.samples, target.shape[-1]
        out, posterior, prior, noise = trained.net.drawn(x, target, count)
        repeated = [part.repeat(1, count, *[1] * (part.ndim - 2)) for part in (target, *ends)]
        fit = trained.heads.loss(out, *repeated, per_row=True)
        # of a Gaussian with std 1 the squared error is twice the negative log-likelihood
        unit = 1 / size if config.probabilistic else 2 / size
        if count == 1:
            cost = _divergences(posterior, prior).clamp_min(config.free_bits).sum(-1)
            rows = fit + config.beta * unit * cost
        else:
            nats = -fit.view(len(fit), count, -1).movedim(1, 0) / unit
            z, log_q = posterior.sample_and_log_prob(noise)
            rows = -unit * importance_weighted_bound(nats + prior.log_prob(z) - log_q)
        if weights is not None:
            rows = rows * weights
        return rows if per_row else rows.mean(-1)

    return loss


class ConditionalDynamics(NeuralDynamics):
    """Dynamics whose next state has a distribution with several modes.

    A step takes O + Z normal numbers, O for the noise of the outputs and Z for the latent variable.
    `predict`, and a step without noise, have mean and std over `draws` fixed values of it.

    Args:
        obs_size: O (and S).
        action_size: A.
        config: see `ConditionalConfig`.
        generator: draws the initial weights.

    Attributes:
        latents: (K, Z), these values: quantiles of the normal distribution, in an order of its own
            for each dimension.
    """

    config: ConditionalConfig
    latents: Tensor

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        config: ConditionalConfig,
        *,
        generator: Generator,
    ) -> None:
        super().__init__(obs_size, action_size, config, generator=generator)
        middles = (torch.arange(config.draws, dtype=torch.double) + 0.5) / config.draws
        quantiles = torch.as_tensor(ndtri(middles.numpy()))
        quantiles = quantiles / quantiles.square().mean().sqrt().clamp_min(1e-12)
        draw = torch.Generator().manual_seed(_SEED)
        columns = [
            quantiles[torch.randperm(config.draws, generator=draw)] for _ in range(config.latent)
        ]
        self.register_buffer("latents", torch.stack(columns, -1).float())
        self._clear_cache()

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(O + Z,)."""
        return (self.obs_size + self.config.latent,)

    def _inputs(self, state: Tensor, action: Tensor) -> Tensor:
        x = super()._inputs(state, action)
        return torch.cat((x, x.new_zeros(()).expand(*x.shape[:-1], self.config.latent)), -1)

    def _drawn(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean and std of the targets over values of z, and the probability of termination."""
        size, values = self.config.latent, self.latents
        each = x[..., :-size].unsqueeze(-2).expand(*x.shape[:-1], len(values), -1)
        rows = torch.cat((each, values.to(x).expand(*each.shape[:-1], size)), -1).flatten(1, 2)
        mean, std, logit = self._gaussian(rows)
        shape = (*x.shape[:-1], len(values))
        mean = mean.view(*shape, -1)
        variance = mean.var(-2, correction=0)
        if std is not None:
            variance = variance + std.reshape(*shape, -1).square().mean(-2)
        ends = None if logit is None else logit.view(shape).sigmoid().mean(-1)
        return mean.mean(-2), variance.sqrt(), ends

    def predict(self, state: Float[Tensor, "E B S"], action: Float[Tensor, "E B A"]) -> Gaussian:
        """Mean and std of next state and reward over the latent variable, (E, B, S + 1).

        Raises:
            ValueError: wrong shapes.
        """
        change, std, _ = self._drawn(self._joined(state, action))
        return self._next(state, change, std)

    def step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        *,
        noise: Float[Tensor, "E B S+Z"] | None,
    ) -> Step:
        """One step of each member with a z of the prior, or to the mean if `noise` is None.

        Reward and termination are those of the same z.

        Raises:
            ValueError: wrong shapes.
        """
        x = self._joined(state, action)
        if noise is None:
            change, _, ends = self._drawn(x)
            return self._stepped(state, change, None, None if ends is None else ends > 0.5, None)
        x[..., -self.config.latent :] = noise[..., self.obs_size :]
        change, std, logit = self._gaussian(x)
        ends = None if logit is None else logit > 0
        return self._stepped(state, change, std, ends, noise[..., : self.obs_size])
