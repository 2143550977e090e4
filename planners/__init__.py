"""Planners: maximise a black box over action sequences. They know no learning."""

from planners.base import Plan, Planner, RecedingPlanner, ScoreFn
from planners.cem import CEM
from planners.icem import ICEM
from planners.interpolation import INTERPOLATIONS, interpolation_matrix
from planners.mpc import MPC, MPCState
from planners.mppi import MPPI
from planners.noise import coloured_noise
from planners.search import Search
from planners.shooting import RandomShooting

PLANNERS: dict[str, type[Search]] = {
    "random": RandomShooting,
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
}
"""Names of the sampling planners; each is built from (low, high, horizon, ...)."""

__all__ = [
    "CEM",
    "ICEM",
    "INTERPOLATIONS",
    "MPC",
    "MPPI",
    "PLANNERS",
    "MPCState",
    "Plan",
    "Planner",
    "RandomShooting",
    "RecedingPlanner",
    "ScoreFn",
    "Search",
    "coloured_noise",
    "interpolation_matrix",
]
