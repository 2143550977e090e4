"""Sampling planners by name."""

from __future__ import annotations

from planners.cem import CEM
from planners.cma import CMA
from planners.elite_mppi import EliteMPPI
from planners.evolution import Evolution
from planners.gradient import GradientAscent
from planners.icem import ICEM
from planners.mppi import MPPI
from planners.predictive import PredictiveSampling
from planners.search import Search
from planners.shooting import RandomShooting

PLANNERS: dict[str, type[Search]] = {
    "random": RandomShooting,
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
    "elite-mppi": EliteMPPI,
    "predictive": PredictiveSampling,
    "cma": CMA,
    "evolution": Evolution,
    "gradient": GradientAscent,
}
"""Planners that need only a score, which `gradient` must be able to differentiate. Each is built
from (low, high, horizon, ...). `ILQR` is not included, because it needs a model."""
