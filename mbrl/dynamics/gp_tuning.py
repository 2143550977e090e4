"""Hyperparameters of Gaussian processes, by GPyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.dynamics.bayesian_configs import GPConfig
from mbrl.dynamics.fitting import FitDiverged
from mbrl.parallel import parallel_map

TOLERANCE = 1e-5
"""L-BFGS ends once the likelihood of a row changes by less in an iteration, in nats."""


class Hyperparameters(NamedTuple):
    """Of one process, in scaled units."""

    length: Float[Tensor, " I"]  # length scale of each input
    scale: Float[Tensor, ""]  # std of the function under the prior
    noise: Float[Tensor, ""]  # std of the noise


def tune(
    x: Float[Tensor, "T I"],
    y: Float[Tensor, "T K"],
    starts: Sequence[Hyperparameters],
    config: GPConfig,
) -> list[tuple[Hyperparameters, float, float]]:
    """Hyperparameters of greatest marginal likelihood near each start, by L-BFGS.

    Outputs are independent of one another and go to separate workers.

    Returns:
        The best values met of each output, iterations, and evaluations of the likelihood.

    Raises:
        FitDiverged: the likelihood is not finite at the start.
    """
    import gpytorch
    from linear_operator.utils.errors import NanError, NotPSDError

    class Exact(gpytorch.models.ExactGP):
        def __init__(self, target: Tensor, likelihood: Any, kernel: Any) -> None:
            super().__init__(x, target, likelihood)
            self.mean: Any = gpytorch.means.ZeroMean()
            self.kernel = kernel

        def forward(self, x: Tensor) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    def tuned(k: int) -> tuple[Hyperparameters, float, float]:
        least = gpytorch.constraints.GreaterThan(config.least_noise**2)
        likelihood: Any = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=least).to(x)
        size = x.shape[1]
        if config.kernel == "se":
            inner: Any = gpytorch.kernels.RBFKernel(ard_num_dims=size)
        else:
            inner = gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=size)
        kernel: Any = gpytorch.kernels.ScaleKernel(inner).to(x)
        inner.lengthscale, kernel.outputscale = starts[k].length, starts[k].scale.square()
        # at the bound itself the parameter behind it is infinite
        likelihood.noise = starts[k].noise.square().clamp_min(1.01 * config.least_noise**2)
        model = Exact(y[:, k].contiguous(), likelihood, kernel).train()
        likelihood_of: Any = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
        parameters = list(model.parameters())
        search = torch.optim.LBFGS(
            parameters,
            max_iter=config.iterations,
            tolerance_change=TOLERANCE,
            line_search_fn="strong_wolfe",
        )
        best, least_loss = None, math.inf

        def closure() -> Tensor:
            nonlocal best, least_loss
            search.zero_grad()
            loss: Any = -likelihood_of(model(x), model.train_targets)
            loss.backward()
            if (value := float(loss.detach())) < least_loss:
                values = inner.lengthscale, kernel.outputscale.sqrt(), likelihood.noise.sqrt()
                best = Hyperparameters(*(part.detach().clone().squeeze() for part in values))
                least_loss = value
            return loss.detach()

        try:
            with torch.enable_grad():
                search.step(closure)
        except (NanError, NotPSDError):  # what was found before holds
            pass
        if best is None:
            raise FitDiverged("the marginal likelihood of a Gaussian process is not finite")
        done = search.state[parameters[0]]
        best = best._replace(length=best.length.view(size))
        return best, float(done.get("n_iter", 0)), float(done.get("func_evals", 0))

    # by Cholesky factors, and not by conjugate gradients with random probes
    with gpytorch.settings.fast_computations(False, False, False):
        return parallel_map(tuned, range(y.shape[1]))
