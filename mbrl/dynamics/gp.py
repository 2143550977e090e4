"""Models of the world, and of any (x, y), that are exact Gaussian processes.

Planners and agents see functions drawn from the posterior; the posterior itself, and its moments
for Gaussian states, are in closed form.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mbrl.dynamics.gaussian_processes import GaussianProcesses
from mbrl.dynamics.neural import NeuralDynamics
from mbrl.dynamics.regression import Regression
from mbrl.types import Gaussian


class GPRegression(Regression):
    """Gaussian processes from x to y: a `Regression` with an exact posterior."""

    net: GaussianProcesses

    def posterior(self, x: Float[Tensor, "B I"], *, noise: bool = False) -> Gaussian:
        """Exact mean and std of y, (B, D), in float64.

        Args:
            x: inputs.
            noise: whether the std is that of observations; else it is that of the function alone,
                which is the spread of infinitely many members.
        """
        return _posterior(self, x, noise)


class GPDynamics(NeuralDynamics):
    """Gaussian processes from (obs, action) to the change of obs, and to a learned reward.

    Its members are functions drawn from the posterior, so everything that takes an ensemble takes
    it. `posterior` and `moments` are exact instead.
    """

    net: GaussianProcesses

    def posterior(
        self, state: Float[Tensor, "B S"], action: Float[Tensor, "B A"], *, noise: bool = False
    ) -> Gaussian:
        """Exact mean and std of next state and reward, (B, S + 1), in float64.

        Args:
            state, action: rows.
            noise: as in `GPRegression.posterior`.
        """
        mean, std = _posterior(self, torch.cat((state, action), -1), noise)
        if not self.config.learn_reward:
            mean, std = (F.pad(part, (0, 1)) for part in (mean, std))
        return Gaussian(F.pad(state, (0, 1)) + mean, std)

    def moments(
        self,
        mean: Float[Tensor, " S"],
        cov: Float[Tensor, "S S"],
        actions: Float[Tensor, "H A"],
    ) -> tuple[Float[Tensor, "H+1 S"], Float[Tensor, "H+1 S S"]]:
        """Means and covariances of the states that actions lead to, by moment matching.

        Each step is exact for a Gaussian state, and the next state is taken for Gaussian again
        (Deisenroth and Rasmussen 2011, "PILCO", section 2.2). The function's uncertainty of one
        step is independent of that of another; the noise is added in each. In float64, and
        differentiable in all arguments; a step takes time in proportion to points² · S².

        Args:
            mean, cov: of the first state; a covariance of zeros is a known state.
            actions: known ones.

        Raises:
            ValueError: wrong shapes, numbers that are not finite, a matrix that is no covariance;
                another kernel than the squared exponential.
        """
        size, known = self.obs_size, self.action_size
        for name, value, shape in (
            ("mean", mean, (size,)),
            ("cov", cov, (size, size)),
            ("actions", actions, (len(actions), known)),
        ):
            if tuple(value.shape) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} holds a number that is not finite")
        mean, cov, actions = (part.double() for part in (mean, cov, actions))
        rounding = 1e-6 * cov.diagonal().abs().max()
        least = torch.linalg.eigvalsh(cov)[0]
        if bool((cov - cov.mT).abs().max() > rounding) or bool(least < -rounding):
            raise ValueError("cov must be a covariance: symmetric, with no negative eigenvalue")
        unit, centre = self.inputs.unit.double(), self.inputs.mean.double()
        slope, shift = (part[:size].double() for part in (self.targets.std, self.targets.mean))
        noise = (_noise(self)[:size] * slope.square()).diag()
        means, covs = [mean], [_covariance(cov)]
        for action in actions:
            state, spread = means[-1], covs[-1]
            scaled = (torch.cat((state, action)) - centre) / unit
            wide = F.pad(spread, (0, known, 0, known))
            change = self.net.moments(scaled, wide / torch.outer(unit, unit), outputs=size)
            cross = change.cross[:size] * unit[:size].unsqueeze(1) * slope
            means.append(state + change.mean * slope + shift)
            after = spread + change.cov * torch.outer(slope, slope) + cross + cross.mT + noise
            covs.append(_covariance(after))
        return torch.stack(means), torch.stack(covs)


def _covariance(cov: Tensor) -> Tensor:
    """A symmetric matrix without the negative eigenvalues that rounding leaves."""
    cov = 0.5 * (cov + cov.mT)
    least = torch.linalg.eigvalsh(cov.detach())[0].clamp_max(0.0)
    return cov - least * torch.eye(len(cov)).to(cov)


def _noise(model: GPRegression | GPDynamics) -> Float[Tensor, " D"]:
    """Variance of the noise, in scaled units."""
    return model.heads.log_var.detach().double().exp().view(-1)


def _posterior(model: GPRegression | GPDynamics, x: Tensor, noise: bool) -> Gaussian:
    inputs, targets, size = model.inputs, model.targets, model.heads.size
    if x.ndim != 2 or x.shape[1] != len(inputs.mean):
        raise ValueError(f"rows must have shape {('B', len(inputs.mean))}, got {tuple(x.shape)}")
    mean, variance = model.net.posterior(inputs.scale(x.double()))
    variance = variance[:, :size]
    if noise:
        variance = variance + _noise(model)
    return Gaussian(targets.unscale(mean[:, :size]), variance.sqrt() * targets.std.double())
