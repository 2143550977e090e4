"""Last-layer Laplace: Bayesian linear regression on the features of a fitted network.

Given the features and the noise the posterior of the last layer is Gaussian, in closed form, and
the precision of its prior has the greatest evidence (MacKay 1992, "Bayesian interpolation";
Bishop 2006, section 3.5). Kristiadi et al. 2020, "Being Bayesian, even just a bit" (arXiv
2002.10118); Daxberger et al. 2021, "Laplace Redux" (arXiv 2106.14806).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.dynamics.bayesian_configs import LaplaceConfig
from mbrl.dynamics.samples import Potential, WeightSamples, flat


class Linear(NamedTuple):
    """The posterior of the weights w of y = φ w + noise, of one output."""

    mean: Float[Tensor, " F"]
    root: Float[Tensor, "F F"]  # root · rootᵀ is the covariance
    prior: float  # α, precision of the prior
    noise: float  # β, precision of the noise; of heteroscedastic noise its factor
    evidence: float  # log p(y | α, β)


def linear(
    features: Float[Tensor, "T F"],
    target: Float[Tensor, " T"],
    precision: Float[Tensor, " T"],
    *,
    weights: Float[Tensor, " T"] | None = None,
    prior: float = 1.0,
    tune_prior: bool = True,
    tune_noise: bool = False,
    rounds: int = 100,
) -> Linear:
    """Bayesian linear regression with prior N(0, 1 / α) and noise of known relative precision.

    α, and the factor β of the noise's precision, are set to the fixed points of MacKay's updates,
    at which the evidence is stationary. For a target that is 0 everywhere β would be infinite, and
    stays 1.

    Args:
        features: φ, float64.
        target: y.
        precision: of the noise of each row, before the factor β.
        weights: how often each row counts; once if None.
        prior: first α.
        tune_prior, tune_noise: which of α and β change.
        rounds: the most updates.
    """
    counts = torch.ones_like(target) if weights is None else weights
    weighted = features * (counts * precision).unsqueeze(-1)
    values, vectors = torch.linalg.eigh(features.mT @ weighted)
    # of fewer rows than features, or equal ones, the others are rounding errors, not data
    real = values > values[-1] * max(features.shape) * torch.finfo(values.dtype).eps
    values = torch.where(real, values, 0.0)
    projected = torch.where(real, vectors.mT @ (weighted.mT @ target), 0.0)
    alpha, beta, rows = prior, 1.0, float(counts.sum())
    total = float((counts * precision * target.square()).sum())
    tune_noise = tune_noise and total > 0

    def fit(alpha: float, beta: float) -> tuple[Tensor, float]:
        mean = beta * projected / (beta * values + alpha)
        error = total - 2 * float(mean @ projected) + float((values * mean.square()).sum())
        return mean, max(error, 0.0)

    for _ in range(rounds if tune_prior or tune_noise else 0):
        mean, error = fit(alpha, beta)
        spread = beta * values + alpha
        determined = float((beta * values / spread).sum())
        # `rows` less `determined`, so written that rounding cannot make it negative
        free = max(rows - int(real.sum()), 0.0) + float((alpha / spread)[real].sum())
        before = alpha, beta
        if tune_prior:
            alpha = determined / max(float(mean @ mean), 1e-12)
        if tune_noise:
            beta = free / max(error, 1e-12 * total)
        if all(
            math.isclose(a, b, rel_tol=1e-6) for a, b in zip(before, (alpha, beta), strict=True)
        ):
            break
    mean, error = fit(alpha, beta)
    spread = beta * values + alpha
    evidence = 0.5 * (
        len(values) * math.log(alpha)
        + float((counts * (beta * precision).log()).sum())
        - beta * error
        - alpha * float(mean @ mean)
        - float(spread.log().sum())
        - rows * math.log(2 * math.pi)
    )
    return Linear(vectors @ mean, vectors * spread.rsqrt(), alpha, beta, evidence)


class LaplaceMLP(WeightSamples):
    """Samples of the last layer's posterior of each of K networks, given their other layers.

    Attributes:
        mean: (K, D, F + 1), weights and bias of each target's mean, in units of their prior's std.
        root: (K, D, F + 1, F + 1), root · rootᵀ is their covariance.
        evidence: (K, D), log evidence in nats; nan before a fit.
    """

    mean: Tensor
    root: Tensor
    evidence: Tensor

    def __init__(
        self, config: LaplaceConfig, sizes: Sequence[int], *, generator: Generator
    ) -> None:
        super().__init__(config, sizes, generator=generator)
        bounded = config.probabilistic and not config.homoscedastic
        targets = (sizes[-1] - config.learn_termination) // (2 if bounded else 1)
        self.targets = targets
        networks, features = config.networks, sizes[-2] + 1
        self.register_buffer("mean", torch.zeros(networks, targets, features))
        self.register_buffer("root", torch.zeros(networks, targets, features, features))
        self.register_buffer("evidence", torch.full((networks, targets), math.nan))

    def reset(self, *, generator: Generator) -> None:
        """Draw fresh networks, which are their own samples until a fit."""
        super().reset(generator=generator)
        self.evidence.fill_(math.nan)

    def _units(self) -> Float[Tensor, " F+1"]:
        """Std of the prior of the last layer's weights, and of its bias."""
        size, std = self.sizes[-2], self.config.prior_std
        return torch.tensor([*[std / math.sqrt(size)] * size, std]).to(self.mean)

    @torch.no_grad()
    def explore(self, potential: Potential, *, generator: Generator) -> dict[str, float]:
        """The posterior of each target's weights; tuned noise goes into the heads."""
        config = cast(LaplaceConfig, self.config)
        inputs, target = potential.data[:2]
        weights, count = potential.weights, self.targets
        hidden = potential.base.features(inputs.expand(config.networks, -1, -1)).double()
        features = (
            torch.cat((hidden, torch.ones_like(hidden[..., :1])), -1) * self._units().double()
        )
        noise = potential.log_variance().double()  # (K, T, D), or (1, 1, D)
        tune_noise = config.tune_noise and not potential.heads.bounded
        factors = torch.ones(config.networks, count, dtype=torch.double)
        for k in range(config.networks):
            for d in range(count):
                own = (-noise[min(k, len(noise) - 1), :, d]).exp().expand(len(target))
                found = linear(
                    features[k],
                    target[:, d].double(),
                    own,
                    weights=None if weights is None else weights.double(),
                    tune_prior=config.tune_prior,
                    tune_noise=tune_noise,
                )
                self.mean[k, d], self.root[k, d] = found.mean, found.root
                self.evidence[k, d] = found.evidence
                factors[k, d] = found.noise
        if tune_noise:
            potential.scale_noise(factors.reciprocal().mean(0).to(self.mean))
        return {}

    def resample(self, *, generator: Generator) -> None:
        """Draw E samples, those of each network from its Gaussian."""
        weights = self.spread(flat(self.base))
        if bool(self.evidence.isnan().all()):
            self.take(weights)
            return
        shape = (self.members, *self.mean.shape[1:])
        noise = torch.randn(shape, generator=generator, device=generator.device).to(self.mean)
        last = self.spread(self.mean)
        last = last + (self.spread(self.root) @ noise.unsqueeze(-1)).squeeze(-1)
        self.take(weights)
        last = last * self._units()
        with torch.no_grad():
            self.drawn.weights[-1][..., : self.targets] = last[..., :-1].mT
            self.drawn.biases[-1][..., 0, : self.targets] = last[..., -1]
