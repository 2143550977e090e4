"""Bayesian linear regression as a net, with the exact posterior instead of gradient descent."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from mbrl.dynamics.configs import NeuralConfig
from mbrl.dynamics.fitting import Fitted
from mbrl.nn import Net


class BayesianLinear(Net):
    """y = x w + noise: E samples of w (I, D) from its exact Gaussian posterior, prior N(0, prior²).

    Bishop 2006, "Pattern recognition and machine learning", section 3.3.
    """

    root: Tensor  # (D, I, I), root · rootᵀ is the covariance of one output's weights
    draws: Tensor  # (E, D, I) standard normal

    def __init__(self, members, inputs, outputs, prior, *, generator: Generator) -> None:
        super().__init__()
        self.prior = prior
        self.mean = nn.Parameter(torch.empty(inputs, outputs))
        self.register_buffer("root", torch.empty(outputs, inputs, inputs))
        self.register_buffer("draws", torch.empty(members, outputs, inputs))
        self.reset(generator=generator)

    @property
    def members(self) -> int:
        return len(self.draws)

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.mean + torch.einsum("dij,edj->eid", self.root, self.draws))

    @torch.no_grad()
    def condition(self, x: Tensor, y: Tensor, variance: Tensor) -> Tensor:
        """Take the posterior given x (T, I), y (T, D) and the noise's variance (D,).

        Returns the expected squared error of each output, (D,): the update of the variance by EM.
        """
        x, y = x.double(), y.double()
        precision = x.T @ x / variance[:, None, None] + torch.eye(x.shape[1]).to(x) / self.prior**2
        covariance = torch.linalg.inv(precision)
        mean = (covariance @ (x.T @ y / variance).T[..., None])[..., 0].T
        self.mean.copy_(mean)
        self.root.copy_(torch.linalg.cholesky(covariance))
        spread = torch.einsum("ti,dij,tj->d", x, covariance, x)
        return ((y - x @ mean).square().sum(0) + spread) / len(x)

    def resample(self, *, generator: Generator) -> None:
        self.draws.copy_(torch.randn(self.draws.shape, generator=generator))

    @torch.no_grad()
    def reset(self, *, generator: Generator) -> None:
        self.mean.zero_()
        self.root.copy_(self.prior * torch.eye(len(self.mean)))
        self.resample(generator=generator)


@dataclass(frozen=True)
class Config(NeuralConfig):
    homoscedastic: bool = True
    holdout: float = 0.0
    prior: float = 1.0
    """Std of each weight, in scaled units."""
    rounds: int = 20
    """Iterations of EM for the noise's variance; 0 keeps the variance of the heads."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learn_termination or not self.homoscedastic:
            raise ValueError("a linear posterior is exact for one Gaussian noise an output alone")

    def build(self, inputs: int, outputs: int, *, generator: Generator) -> Net:
        return BayesianLinear(self.members, inputs, outputs, self.prior, generator=generator)

    def optimise(self, trained, loss, rows, *, generator) -> Fitted:
        rows, held, weights = rows
        if weights is not None or len(held[0]):
            raise ValueError("weights must be unset and holdout 0: all rows count alike")
        net, log_var = trained.net, trained.heads.log_var
        for _ in range(self.rounds):
            error = net.condition(*rows, log_var[0, 0].double().exp())
            log_var.data.copy_(error.clamp_min(1e-12).log())
        net.condition(*rows, log_var[0, 0].double().exp())
        net.resample(generator=generator)
        with torch.no_grad():
            each = loss(trained, *(part.expand(self.members, *part.shape) for part in rows))
        return Fitted(each.mean(0, keepdim=True), each.mean(0, keepdim=True), torch.ones(1), 1.0)
