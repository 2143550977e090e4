"""The variational autoencoder (Kingma & Welling 2014; Rezende et al. 2014).

p(x) = ∫ p(x|z) N(z; 0, I) dz is bounded from below by

    L = E_q[log p(x|z)] - KL(q(z|x) ‖ N(0, I)),    log p(x) = L + KL(q(z|x) ‖ p(z|x)),

with q(z|x) = N(μ(x), σ(x)²), of which z = μ + σ ε is a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl.distributions import DiagonalGaussian, clamp_log_std
from mbrl.encoders.configs import VAEConfig
from mbrl.encoders.losses import importance_weighted_bound, negative_elbo
from mbrl.encoders.networks import MLP
from mbrl.encoders.representation import Representation


class VAE(Representation):
    """Codes with a Gaussian posterior; the code of an observation is its mean.

    Args:
        shape: *O, of an observation: a vector, or an image of uint8.
        config: settings.
        generator: draws the weights.

    Attributes:
        log_noise: log std of a Gaussian likelihood.

    Raises:
        ValueError: as `Representation`; a Bernoulli likelihood of vectors.
    """

    def __init__(self, shape: Sequence[int], config: VAEConfig, *, generator: Generator) -> None:
        super().__init__(shape, config, 2 * config.latent, generator=generator)
        if config.likelihood == "bernoulli" and len(self.shape) == 1:
            raise ValueError("likelihood: bernoulli is for images, not vectors; want gaussian")
        self.config = config
        self.log_noise = nn.Parameter(
            torch.tensor(math.log(config.noise or 1.0)), requires_grad=config.noise is None
        )

    def posterior(self, obs: Shaped[Tensor, "*lead *O"]) -> DiagonalGaussian:
        """q(z|x), (*lead, Z)."""
        mean, log_std = self.encoded(obs).chunk(2, -1)
        return DiagonalGaussian(mean, clamp_log_std(log_std, -10.0, 4.0))

    def log_likelihood(
        self, scaled: Float[Tensor, "*lead D"], z: Float[Tensor, "*more Z"]
    ) -> Float[Tensor, "*more"]:
        """log p(x|z) in nats, of observations as `scaled` gives them.

        A Bernoulli likelihood of numbers between 0 and 1 is that of random bits with these means,
        on average.
        """
        out = self.decoded(z)
        if self.config.likelihood == "bernoulli":
            target = scaled.expand_as(out)
            entropy = F.binary_cross_entropy_with_logits(out, target, reduction="none")
            return -entropy.sum(-1)
        return DiagonalGaussian(out, self.log_noise.expand(out.shape[-1:])).log_prob(
            scaled.expand_as(out)
        )

    def means(self, decoded: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """E[x|z], scaled."""
        return decoded.sigmoid() if self.config.likelihood == "bernoulli" else decoded

    def outputs(self, means: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """The inverse of `means`; probabilities within 1 % of 0 and 1 are cut off there."""
        bernoulli = self.config.likelihood == "bernoulli"
        return means.clamp(0.01, 0.99).logit() if bernoulli else means

    def unit(self, spread: float) -> float:
        """Log odds are not in units of colours, so they are not multiplied."""
        return 1.0 if self.config.likelihood == "bernoulli" else spread

    def bound(
        self, obs: Shaped[Tensor, " B *O"], noise: Float[Tensor, "B Z"]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B Z"]]:
        """log p(x|z) of one sample of z, and KL(q ‖ p) of each latent dimension.

        The first minus the sum of the second is an unbiased estimate of L.

        Args:
            obs: x.
            noise: ε, standard normal.
        """
        posterior = self.posterior(obs)
        fit = self.log_likelihood(self.scaled(obs), posterior.sample(noise))
        return fit, _divergence(posterior)

    def exact_bound(self, obs: Shaped[Tensor, " B *O"]) -> Float[Tensor, " B"]:
        """L itself, without sampling, where the decoder is linear and the likelihood Gaussian.

        E_q[log N(x; W z + b, s²)] = log N(x; W μ + b, s²) - Σ_z σ_z² |W_z|² / (2 s²).

        Raises:
            ValueError: another likelihood, or a decoder with hidden layers.
        """
        if self.config.likelihood != "gaussian" or len(self.shape) > 1 or self.config.hidden:
            raise ValueError("exact_bound: wants a Gaussian likelihood and hidden=(), a linear map")
        posterior = self.posterior(obs)
        fit = self.log_likelihood(self.scaled(obs), posterior.mean)
        weight = cast(MLP, self.decoder).stack.weights[0][0]  # (Z, D)
        spread = posterior.std.square() @ weight.square().sum(-1)
        fit = fit - 0.5 * spread * (-2 * self.log_noise).exp()
        return fit - _divergence(posterior).sum(-1)

    def importance_bound(
        self, obs: Shaped[Tensor, " B *O"], noise: Float[Tensor, "K B Z"]
    ) -> Float[Tensor, " B"]:
        """The importance-weighted bound of log p(x) with K samples (Burda et al. 2016).

        It grows with K on average, from L at 1 to log p(x).

        Args:
            obs: x.
            noise: ε, standard normal.
        """
        posterior = self.posterior(obs)
        z, log_q = posterior.sample_and_log_prob(noise)
        zeros = torch.zeros_like(posterior.mean)
        prior = DiagonalGaussian(zeros, zeros)
        return importance_weighted_bound(
            self.log_likelihood(self.scaled(obs), z) + prior.log_prob(z) - log_q
        )

    def loss(
        self, obs: Shaped[Tensor, " B *O"], *, generator: Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """-L with the divergence's weight and free nats, mean over observations.

        Returns:
            The loss, and `elbo`, L itself, `divergence` and `log_likelihood`, in nats.
        """
        shape = len(obs), self.features
        noise = torch.randn(shape, generator=generator, device=generator.device)
        noise = noise.to(self.log_noise)
        fit, divergence = self.bound(obs, noise)
        loss = negative_elbo(
            fit, divergence, beta=self.config.beta, free_bits=self.config.free_bits
        )
        total, likelihood = divergence.detach().sum(-1).mean(), fit.detach().mean()
        return loss, {
            "elbo": likelihood - total,
            "divergence": total,
            "log_likelihood": likelihood,
        }


def _divergence(q: DiagonalGaussian) -> Float[Tensor, "*lead Z"]:
    """KL(q ‖ N(0, 1)) of each dimension."""
    return 0.5 * (torch.expm1(2 * q.log_std) + q.mean.square()) - q.log_std
