"""Models of the world, one file each."""

from mbrl.dynamics.analytic import Analytic
from mbrl.dynamics.classic import Classic
from mbrl.dynamics.derivatives import SmoothSimulator
from mbrl.dynamics.ensemble import Ensemble, EnsembleConfig
from mbrl.dynamics.simulator import Randomisation, Simulator
from mbrl.dynamics.tabular import Counts, Tabular

__all__ = [
    "Analytic",
    "Classic",
    "Counts",
    "Ensemble",
    "EnsembleConfig",
    "Randomisation",
    "Simulator",
    "SmoothSimulator",
    "Tabular",
]
