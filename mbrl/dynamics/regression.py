"""Regression of any (x, y) by a net that a dynamics model can have, with its uncertainties."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.dynamics.configs import LearnedConfig
from mbrl.dynamics.neural import NeuralModel, check_rows
from mbrl.types import Gaussian, Metrics


class Regression(NeuralModel):
    """E nets, or weight samples, that each map x to a Gaussian over y.

    Args:
        x_size: I.
        y_size: D.
        config: see `LearnedConfig`.
        generator: draws the initial weights.

    Raises:
        ValueError: a net that takes random numbers as inputs; `NeuralDynamics` alone gives them.
    """

    def __init__(
        self, x_size: int, y_size: int, config: LearnedConfig, *, generator: Generator
    ) -> None:
        if config.noise_inputs:
            raise ValueError(
                f"{type(config).__name__}: its net takes random numbers, which only a model of "
                f"dynamics gives it"
            )
        super().__init__(x_size, y_size, config, generator=generator)

    def predict(self, x: Float[Tensor, "B I"] | Float[Tensor, "E B I"]) -> Gaussian:
        """Mean and std of y, (E, B, D).

        Raises:
            ValueError: wrong shapes.
        """
        members, size = self.members, len(self.inputs.mean)
        rows = x.expand(members, *x.shape) if x.ndim == 2 else x
        if rows.ndim != 3 or rows.shape[0] != members or rows.shape[2] != size:
            raise ValueError(
                f"x must have shape {('B', size)} or {(members, 'B', size)}, got {tuple(x.shape)}"
            )
        mean, std, _ = self._gaussian(rows)
        return Gaussian(mean, torch.zeros_like(mean) if std is None else std)

    def fit(
        self,
        x: Float[Tensor, "T I"],
        y: Float[Tensor, "T D"],
        *,
        weights: Float[Tensor, " T"] | Float[Tensor, "E T"] | None = None,
        generator: Generator,
    ) -> Metrics:
        """Fit to T rows; see `NeuralDynamics.fit` for what is returned.

        Raises:
            ValueError: wrong shapes, fewer than two rows, numbers that are not finite, or a fit
                that diverged; the model is then as it was.
        """
        x, y = (torch.as_tensor(value).to(self.inputs.mean.device) for value in (x, y))
        shapes = {
            "x": (x, (len(x), len(self.inputs.mean))),
            "y": (y, (len(x), self.heads.size)),
        }
        check_rows(shapes, "rows", weights, self.config.members)
        return self._fit(x, y, None, weights, generator)
