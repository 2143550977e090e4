"""Models of the world, one file each."""

from mbrl.dynamics.analytic import Analytic
from mbrl.dynamics.classic import Classic
from mbrl.dynamics.derivatives import SmoothSimulator
from mbrl.dynamics.ensemble import Ensemble, EnsembleConfig
from mbrl.dynamics.finite import Counts, FiniteModel
from mbrl.dynamics.neural import NeuralConfig, NeuralDynamics, Regression
from mbrl.dynamics.own import OwnModel
from mbrl.dynamics.simulator import Randomisation, Simulator

__all__ = [
    "Analytic",
    "Classic",
    "Counts",
    "Ensemble",
    "EnsembleConfig",
    "FiniteModel",
    "NeuralConfig",
    "NeuralDynamics",
    "OwnModel",
    "Randomisation",
    "Regression",
    "Simulator",
    "SmoothSimulator",
]
