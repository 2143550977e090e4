"""Ensembles of probabilistic (or deterministic) neural networks.

Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation using deep
ensembles"; Chua et al. 2018, "Deep reinforcement learning in a handful of trials using
probabilistic dynamics models" (PETS): each member predicts a diagonal Gaussian over the change
of the observation, with a log-variance softly bounded by two learned bounds.
"""

from __future__ import annotations

from torch import Generator

from mbrl.dynamics.configs import EnsembleConfig
from mbrl.dynamics.neural import NeuralDynamics
from mbrl.nn import StackedMLP

__all__ = ["Ensemble", "EnsembleConfig"]


class Ensemble(NeuralDynamics):
    """A `NeuralDynamics` of E independent MLPs, by default with the settings of PETS."""

    net: StackedMLP

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        config: EnsembleConfig | None = None,
        *,
        generator: Generator,
    ) -> None:
        super().__init__(obs_size, action_size, config or EnsembleConfig(), generator=generator)
