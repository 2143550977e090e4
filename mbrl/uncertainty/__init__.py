"""Aleatoric and epistemic uncertainty, calibration, proper scores and recalibration of predictions.

Pure functions on an equally weighted mixture of E Gaussians: `mean` and `std` of shape
(E, ..., D), as `GaussianDynamics.predict` gives them, against a `target` of shape (..., D).
Each of the D dimensions is evaluated separately, except where a result has no D: there the density
of a member is that of all dimensions together. E = 1 is a single Gaussian; `std` = 0 with E = P is
a set of P particles, so the same functions (all but those of densities) evaluate imagined
trajectories.

`members` has what members agree on and where they differ, `scores` compares predictions with what
happened, `recalibration` has maps fitted on held-out data, and `conformal` intervals of guaranteed
coverage.
"""

from mbrl.uncertainty.conformal import conformal_factor, conformal_interval
from mbrl.uncertainty.members import (
    Entropies,
    Fused,
    Spread,
    entropy_split,
    fused,
    geometric_jensen_shannon,
    information_lost,
    jensen_renyi,
    particle_spread,
    spread,
)
from mbrl.uncertainty.recalibration import (
    Isotonic,
    LevelMap,
    Logistic,
    Temperature,
    noise_moments,
    recalibration_scale,
)
from mbrl.uncertainty.scores import (
    auroc,
    calibration_curve,
    calibration_error,
    coverage,
    crps,
    energy_score,
    negative_log_likelihood,
    pit,
    rank_correlation,
    sharpness,
)

__all__ = [
    "Entropies",
    "Fused",
    "Isotonic",
    "LevelMap",
    "Logistic",
    "Spread",
    "Temperature",
    "auroc",
    "calibration_curve",
    "calibration_error",
    "conformal_factor",
    "conformal_interval",
    "coverage",
    "crps",
    "energy_score",
    "entropy_split",
    "fused",
    "geometric_jensen_shannon",
    "information_lost",
    "jensen_renyi",
    "negative_log_likelihood",
    "noise_moments",
    "particle_spread",
    "pit",
    "rank_correlation",
    "recalibration_scale",
    "sharpness",
    "spread",
]
