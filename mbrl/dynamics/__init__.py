"""Models of the world, one file each."""

from mbrl.dynamics.ensemble import Ensemble, EnsembleConfig

__all__ = ["Ensemble", "EnsembleConfig"]
