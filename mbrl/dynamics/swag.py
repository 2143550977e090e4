"""SWAG: a Gaussian posterior from the iterates of gradient descent at a constant step size.

Maddox et al. 2019, "A simple baseline for Bayesian uncertainty in deep learning" (arXiv
1902.02476). With several networks it is MultiSWAG (Wilson and Izmailov 2020, arXiv 2002.08791).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Generator, Tensor

from mbrl.dynamics.bayesian_configs import SwagConfig
from mbrl.dynamics.fitting import FitDiverged
from mbrl.dynamics.samples import Potential, WeightSamples, flat

HALVINGS = 20
"""How often a step size is halved at most."""
WORSE = 1.0
"""Nats a row by which the mean of U over a pass may be above that of the fit. Where there is little
noise the likelihood is steep, and descent with large steps never comes near the fit again."""


class SwagMLP(WeightSamples):
    """Samples of N(mean, ½ (diagonal + D Dᵀ / (R - 1))) of each of K networks.

    Attributes:
        mean: (K, P), mean of the iterates.
        std: (K, P), their standard deviation.
        deviations: (K, R, P), the rows of Dᵀ: the last iterates minus the mean up to them. If there
            were only r < R passes, R - r rows are 0 and the others are multiplied by
            sqrt((R - 1) / (r - 1)), so that the covariance is that of r rows.
    """

    mean: Tensor
    std: Tensor
    deviations: Tensor

    def __init__(self, config: SwagConfig, sizes: Sequence[int], *, generator: Generator) -> None:
        super().__init__(config, sizes, generator=generator)
        shape = (config.networks, sum((i + 1) * o for i, o in pairwise(sizes)))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.zeros(shape))
        self.register_buffer("deviations", torch.zeros(shape[0], config.rank, shape[1]))
        self._start()

    def _start(self) -> None:
        self.mean.copy_(flat(self.base))
        self.std.zero_()
        self.deviations.zero_()

    def reset(self, *, generator: Generator) -> None:
        """Draw fresh networks, which are their own samples until a fit."""
        super().reset(generator=generator)
        self._start()

    @torch.no_grad()
    def explore(self, potential: Potential, *, generator: Generator) -> dict[str, float]:
        """Gradient descent with momentum; the mean, squares and deviations of its iterates.

        A network for which the step size is too large starts again with half of it, until the mean
        of U over each pass is at most `WORSE` nats a row above that of the fit.

        Returns:
            `swag_learning_rate`: the smallest step size that was taken.

        Raises:
            FitDiverged: it is still too large after `HALVINGS`.
            ValueError: there is no iterate.
        """
        config = cast(SwagConfig, self.config)
        rows = potential.rows
        rates = torch.full_like(potential.start[:, :1], config.swag_learning_rate)
        most = torch.full_like(rates[:, 0], WORSE * rows)
        for index in torch.arange(rows, device=most.device).split(config.batch):
            most += potential(potential.start, index)[0] * (len(index) / rows)
        for _ in range(HALVINGS + 1):
            worse = self._descend(potential, rates / rows, most, generator=generator)
            if not bool(worse.any()):
                return {"swag_learning_rate": float(rates.min())}
            rates[worse] /= 2
        raise FitDiverged(
            f"swag_learning_rate {config.swag_learning_rate:g}: the descent after the fit "
            f"diverged, also with {HALVINGS} times half of it; take a smaller one"
        )

    def _descend(
        self, potential: Potential, rates: Tensor, most: Tensor, *, generator: Generator
    ) -> Tensor:
        """One descent, which ends early where it leaves the fit.

        Args:
            potential: U.
            rates: (K, 1), step sizes.
            most: (K,), the greatest mean of U over a pass.
            generator: draws the order of the rows.

        Returns:
            (K,) bool: the networks that left the fit. If there are none, the moments are set.
        """
        config = cast(SwagConfig, self.config)
        here, velocity = potential.start.clone(), torch.zeros_like(potential.start)
        mean, square, taken, updates = here.double() * 0, here.double() * 0, 0, 0
        rank, found = config.rank, 0
        self.deviations.zero_()
        for _ in range(config.swag_epochs):
            order = torch.randperm(potential.rows, generator=generator).to(here.device)
            total, parts = torch.zeros_like(most), order.split(config.batch)
            for index in parts:
                value, gradient = potential(here, index)
                velocity = config.swag_momentum * velocity - rates * gradient
                here = here + velocity
                total = total + value * (len(index) / potential.rows)
                updates += 1
                if updates % config.swag_every == 0:
                    taken += 1
                    mean += (here - mean) / taken
                    square += (here.double().square() - square) / taken
            worse = ~((total <= most) & here.isfinite().all(-1))
            if bool(worse.any()):
                return worse
            if taken:
                found += 1
                last = (here - mean).to(here)
                self.deviations.copy_(torch.cat((self.deviations[:, 1:], last.unsqueeze(1)), 1))
        if not taken:
            raise ValueError(
                f"swag_every {config.swag_every}: the {updates} updates after the fit have no "
                f"iterate; take a smaller one, or more swag_epochs"
            )
        self.deviations.mul_(((rank - 1) / max(min(rank, found) - 1, 1)) ** 0.5)
        self.mean.copy_(mean)
        self.std.copy_((square - mean.square()).clamp_min(0.0).sqrt())
        return torch.zeros_like(most, dtype=torch.bool)

    def resample(self, *, generator: Generator) -> None:
        """Draw E samples, those of each network from its Gaussian."""
        config = cast(SwagConfig, self.config)
        count, (_, rank, size) = self.members, self.deviations.shape
        own = {"generator": generator, "device": generator.device}
        wide, deep = (torch.randn(count, n, **own).to(self.mean) for n in (size, rank))
        low_rank = torch.bmm(deep.unsqueeze(1), self.spread(self.deviations)).squeeze(1)
        away = self.spread(self.std) * wide + low_rank / (rank - 1) ** 0.5
        self.take(self.spread(self.mean) + (0.5 * config.scale) ** 0.5 * away)
