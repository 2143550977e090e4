"""E samples of the weights of K networks that are fitted by gradient descent first.

How samples are found is a subclass's: SWAG, Laplace, Hamiltonian or Langevin chains.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.dynamics import fitting
from mbrl.dynamics.bayesian_configs import PosteriorConfig
from mbrl.dynamics.prior import PriorMLP
from mbrl.nn import Net, Scaling

if TYPE_CHECKING:
    from mbrl.dynamics.heads import Trained


class WeightSamples(Net):
    """E samples of the weights of K networks. Sample e belongs to network e mod K.

    The networks share one set of heads, and train side by side on the same batches.

    Args:
        config: K, E and the prior.
        sizes: input size, hidden sizes, output size.
        generator: draws the initial weights.

    Attributes:
        base: the K networks; they have gradients only while they are fitted.
        drawn: the E present samples, which predict.
    """

    def __init__(
        self, config: PosteriorConfig, sizes: Sequence[int], *, generator: Generator
    ) -> None:
        super().__init__()
        self.config, self.sizes = config, tuple(sizes)
        self.base, self.drawn = (
            PriorMLP(
                count,
                sizes,
                prior_std=config.prior_std,
                activation=config.activation,
                generator=generator,
            ).requires_grad_(False)
            for count in (config.networks, config.members)
        )
        self.take(self.spread(flat(self.base)))

    @property
    def members(self) -> int:
        """E."""
        return self.drawn.members

    def reset(self, *, generator: Generator) -> None:
        """Draw fresh networks, which are their own samples until a fit."""
        self.base.reset(generator=generator)
        self.take(self.spread(flat(self.base)))

    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B O"]:
        """Outputs of each sample."""
        return self.drawn(x)

    def fold(self, members: int, scaling: Scaling) -> Callable[[Tensor], Tensor]:
        """`x -> net(x / in_std) · scale + shift` for the first `members` samples."""
        return self.drawn.fold(members, scaling)

    def spread(self, of_networks: Float[Tensor, " K *rest"]) -> Float[Tensor, " E *rest"]:
        """What each sample has of its network."""
        repeats = (self.config.members // self.config.networks, *[1] * (of_networks.ndim - 1))
        return of_networks.repeat(*repeats)

    @torch.no_grad()
    def take(self, weights: Float[Tensor, "E P"]) -> None:
        """Make these the present samples."""
        start = 0
        for part in (*self.drawn.weights, *self.drawn.biases):
            end = start + part[0].numel()
            part.copy_(weights[:, start:end].view(part.shape))
            start = end

    @abstractmethod
    def explore(self, potential: Potential, *, generator: Generator) -> dict[str, float]:
        """Find the posterior near the fitted networks; returns what to add to a fit's metrics."""

    def fit(
        self,
        trained: Trained,
        loss: fitting.Loss,
        rows: fitting.Rows,
        *,
        generator: Generator,
    ) -> fitting.Fitted:
        """Fit the networks by gradient descent, then find the posterior and draw samples.

        Raises as `fitting.fit`.
        """
        if rows.weights is not None and rows.weights.ndim == 2:
            raise ValueError("weights: samples of one posterior take (T,), one for each row")
        self.base.requires_grad_(True)
        try:
            inner = trained.of(self.base)
            fitted = inner.fit(loss, rows, self.config, decay={}, generator=generator)
        finally:
            self.base.requires_grad_(False)
        potential = Potential(inner, loss, rows.train, rows.weights)
        more = self.explore(potential, generator=generator)
        self.resample(generator=generator)
        if not bool(flat(self.drawn).isfinite().all()):
            raise fitting.FitDiverged(f"samples of {type(self).__name__} are not finite")
        return fitted._replace(more=more)


def flat(net: PriorMLP) -> Float[Tensor, "K P"]:
    """All weights of each member, and then all its biases."""
    return torch.cat([part.detach().flatten(1) for part in (*net.weights, *net.biases)], 1)


class Potential:
    """U(θ) = -log p(data | θ) - log p(θ) of K networks, without constants; the heads are fixed.

    Args:
        trained: K networks with their heads.
        loss: of the rows.
        rows: the data (T, ...), in scaled units.
        weights: (T,), factors of the rows' losses, or None.

    Attributes:
        start: (K, P), the networks' weights.
        data: the rows.
        rows: T, their number.
        weights: their factors.
        heads: of the networks; `scale_noise` changes them.
    """

    def __init__(
        self, trained: Trained, loss: fitting.Loss, rows: Sequence[Tensor], weights: Tensor | None
    ) -> None:
        self.heads = trained.heads
        self._trained = copy.deepcopy(trained).requires_grad_(False).eval()
        self.base = cast(PriorMLP, self._trained.net)
        self._loss, self.data, self.weights = loss, rows, weights
        self.start, self.rows = flat(self.base), len(rows[0])
        self._parts = [*self.base.weights, *self.base.biases]
        for part in self._parts:
            part.requires_grad_(True)

    def __call__(
        self, position: Float[Tensor, "K P"], index: Tensor | None = None
    ) -> tuple[Float[Tensor, " K"], Float[Tensor, "K P"]]:
        """U and its gradient; with the indices (B,) of some rows, unbiased estimates of both."""
        every, factors = self._at(position, index)
        with torch.enable_grad():
            mean = self._loss(self._trained, *every, weights=factors)
            value = mean / self._trained.share + self.base.penalty()
            found = torch.autograd.grad(value.sum(), self._parts)
        return value.detach(), torch.cat([part.flatten(1) for part in found], 1)

    @torch.no_grad()
    def loss(self, position: Float[Tensor, "K P"]) -> Float[Tensor, " K"]:
        """The mean loss over all rows, as in the fit, without the prior."""
        every, factors = self._at(position, None)
        return self._loss(self._trained, *every, weights=factors)

    def _at(
        self, position: Float[Tensor, "K P"], index: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Give the networks these weights; the rows and their factors, for each network."""
        start = 0
        for part in self._parts:
            end = start + part[0].numel()
            part.data = position[:, start:end].view(part.shape)
            start = end
        rows, weights = self.data, self.weights
        if index is not None:
            rows = [part[index] for part in rows]
            weights = None if weights is None else weights[index]
        count = len(position)
        every = [part.expand(count, *part.shape) for part in rows]
        return every, None if weights is None else weights.expand(count, -1)

    @torch.no_grad()
    def log_variance(self) -> Float[Tensor, "_ _ D"]:
        """Of the noise of each row and target, (K, T, D), or (1, 1, D) if it is the same for all.

        Without a variance the noise has std 1, as in the squared error.
        """
        inputs, target = self.data[:2]
        out = self.base(inputs.expand(self.base.members, -1, -1))
        found = self.heads.split(out)[1]
        return target.new_zeros(1, 1, target.shape[1]) if found is None else found

    @torch.no_grad()
    def scale_noise(self, factors: Float[Tensor, " D"]) -> None:
        """Multiply a homoscedastic variance, where there is one."""
        if self.heads.probabilistic:
            self.heads.log_var.add_(factors.log())
