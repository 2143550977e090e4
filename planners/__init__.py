"""Planners: maximise a black box over action sequences. They know no learning."""

from planners.base import Plan, Planner, RecedingPlanner, ScoreFn
from planners.cem import CEM
from planners.cma import CMA
from planners.contract import check_planner
from planners.evolution import Evolution
from planners.gradient import GradientAscent
from planners.icem import ICEM
from planners.ilqr import ILQR, Expansion, Smooth
from planners.interpolation import INTERPOLATIONS, interpolation_matrix
from planners.lqr import Feedback, lqr, stationary_lqr
from planners.mpc import MPC, MPCState
from planners.mppi import MPPI
from planners.noise import coloured_noise
from planners.predictive import PredictiveSampling
from planners.search import Search
from planners.shooting import RandomShooting

PLANNERS: dict[str, type[Search]] = {
    "random": RandomShooting,
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
    "predictive": PredictiveSampling,
    "cma": CMA,
    "evolution": Evolution,
    "gradient": GradientAscent,
}
"""Planners that need nothing but a score, `gradient` one that can be differentiated; each is
built from (low, high, horizon, ...). `ILQR` plans through a model and is none of them."""

__all__ = [
    "CEM",
    "CMA",
    "ICEM",
    "ILQR",
    "INTERPOLATIONS",
    "MPC",
    "MPPI",
    "PLANNERS",
    "Evolution",
    "Expansion",
    "Feedback",
    "GradientAscent",
    "MPCState",
    "Plan",
    "Planner",
    "PredictiveSampling",
    "RandomShooting",
    "RecedingPlanner",
    "ScoreFn",
    "Search",
    "Smooth",
    "check_planner",
    "coloured_noise",
    "interpolation_matrix",
    "lqr",
    "stationary_lqr",
]
