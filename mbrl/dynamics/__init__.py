"""Models of the world, one file each."""

from mbrl.dynamics.derivatives import SmoothSimulator
from mbrl.dynamics.ensemble import Ensemble, EnsembleConfig
from mbrl.dynamics.neural import NeuralConfig, NeuralDynamics, Regression
from mbrl.dynamics.simulator import Randomisation, Simulator
from mbrl.dynamics.tabular import Counts, Tabular

__all__ = [
    "Counts",
    "Ensemble",
    "EnsembleConfig",
    "NeuralConfig",
    "NeuralDynamics",
    "Randomisation",
    "Regression",
    "Simulator",
    "SmoothSimulator",
    "Tabular",
]
