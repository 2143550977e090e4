"""Models of the world, one file each.

The names below are loaded when they are first used, so that settings can be read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planners.lazy import lazy

if TYPE_CHECKING:
    from mbrl.dynamics.analytic import Analytic
    from mbrl.dynamics.bayesian_configs import (
        AnchoredConfig,
        BayesByBackpropConfig,
        DropoutConfig,
        GPConfig,
        LangevinConfig,
        LaplaceConfig,
        SgmcmcConfig,
        SwagConfig,
    )
    from mbrl.dynamics.classic import Classic
    from mbrl.dynamics.configs import (
        EnsembleConfig,
        FitConfig,
        NeuralConfig,
        NormedEnsembleConfig,
    )
    from mbrl.dynamics.derivatives import SmoothSimulator
    from mbrl.dynamics.ensemble import Ensemble
    from mbrl.dynamics.finite import Counts, FiniteModel
    from mbrl.dynamics.gp import GPDynamics, GPRegression
    from mbrl.dynamics.joined import Joined
    from mbrl.dynamics.latent_configs import LocallyLinearConfig
    from mbrl.dynamics.locally_linear import LocallyLinear
    from mbrl.dynamics.neural import NeuralDynamics
    from mbrl.dynamics.own import OwnModel
    from mbrl.dynamics.recalibrated import Recalibrated, recalibrate
    from mbrl.dynamics.recurrent import RecurrentDynamics
    from mbrl.dynamics.recurrent_config import RecurrentConfig
    from mbrl.dynamics.regression import Regression
    from mbrl.dynamics.simulator import Randomisation, Simulator
    from mbrl.dynamics.stored_paths import StoredPaths

__all__ = [
    "Analytic",
    "AnchoredConfig",
    "BayesByBackpropConfig",
    "Classic",
    "Counts",
    "DropoutConfig",
    "Ensemble",
    "EnsembleConfig",
    "FiniteModel",
    "FitConfig",
    "GPConfig",
    "GPDynamics",
    "GPRegression",
    "Joined",
    "LangevinConfig",
    "LaplaceConfig",
    "LocallyLinear",
    "LocallyLinearConfig",
    "NeuralConfig",
    "NeuralDynamics",
    "NormedEnsembleConfig",
    "OwnModel",
    "Randomisation",
    "Recalibrated",
    "RecurrentConfig",
    "RecurrentDynamics",
    "Regression",
    "SgmcmcConfig",
    "Simulator",
    "SmoothSimulator",
    "StoredPaths",
    "SwagConfig",
    "recalibrate",
]

__getattr__ = lazy(
    __name__,
    {
        "mbrl.dynamics.analytic": ("Analytic",),
        "mbrl.dynamics.bayesian_configs": (
            "AnchoredConfig",
            "BayesByBackpropConfig",
            "DropoutConfig",
            "GPConfig",
            "LangevinConfig",
            "LaplaceConfig",
            "SgmcmcConfig",
            "SwagConfig",
        ),
        "mbrl.dynamics.classic": ("Classic",),
        "mbrl.dynamics.configs": (
            "EnsembleConfig",
            "FitConfig",
            "NeuralConfig",
            "NormedEnsembleConfig",
        ),
        "mbrl.dynamics.derivatives": ("SmoothSimulator",),
        "mbrl.dynamics.ensemble": ("Ensemble",),
        "mbrl.dynamics.finite": ("Counts", "FiniteModel"),
        "mbrl.dynamics.gp": ("GPDynamics", "GPRegression"),
        "mbrl.dynamics.neural": ("NeuralDynamics",),
        "mbrl.dynamics.recurrent": ("RecurrentDynamics",),
        "mbrl.dynamics.recurrent_config": ("RecurrentConfig",),
        "mbrl.dynamics.regression": ("Regression",),
        "mbrl.dynamics.own": ("OwnModel",),
        "mbrl.dynamics.joined": ("Joined",),
        "mbrl.dynamics.latent_configs": ("LocallyLinearConfig",),
        "mbrl.dynamics.locally_linear": ("LocallyLinear",),
        "mbrl.dynamics.recalibrated": ("Recalibrated", "recalibrate"),
        "mbrl.dynamics.stored_paths": ("StoredPaths",),
        "mbrl.dynamics.simulator": ("Randomisation", "Simulator"),
    },
)


def __dir__() -> list[str]:
    return __all__
