"""Planners, which maximise a score over action sequences. They are independent of learning.

The names below are loaded when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planners.lazy import lazy

if TYPE_CHECKING:
    from planners.base import Plan, Planner, RecedingPlanner, ScoreFn, maximised
    from planners.cem import CEM
    from planners.cma import CMA
    from planners.contract import check_planner
    from planners.elite_mppi import EliteMPPI
    from planners.evolution import Evolution
    from planners.gradient import GradientAscent
    from planners.icem import ICEM
    from planners.ilqr import ILQR, Expansion, Smooth
    from planners.interpolation import INTERPOLATIONS, interpolation_matrix
    from planners.mpc import MPC, MPCState
    from planners.mppi import MPPI
    from planners.noise import coloured_noise
    from planners.predictive import PredictiveSampling
    from planners.riccati import Feedback, lqr, stationary_lqr
    from planners.search import Search
    from planners.shooting import RandomShooting
    from planners.table import PLANNERS

__all__ = [
    "CEM",
    "CMA",
    "ICEM",
    "ILQR",
    "INTERPOLATIONS",
    "MPC",
    "MPPI",
    "PLANNERS",
    "EliteMPPI",
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
    "maximised",
    "stationary_lqr",
]

__getattr__ = lazy(
    __name__,
    {
        "planners.base": (
            "Plan",
            "Planner",
            "RecedingPlanner",
            "ScoreFn",
            "maximised",
        ),
        "planners.cem": ("CEM",),
        "planners.cma": ("CMA",),
        "planners.contract": ("check_planner",),
        "planners.elite_mppi": ("EliteMPPI",),
        "planners.evolution": ("Evolution",),
        "planners.gradient": ("GradientAscent",),
        "planners.icem": ("ICEM",),
        "planners.ilqr": (
            "ILQR",
            "Expansion",
            "Smooth",
        ),
        "planners.interpolation": (
            "INTERPOLATIONS",
            "interpolation_matrix",
        ),
        "planners.riccati": (
            "Feedback",
            "lqr",
            "stationary_lqr",
        ),
        "planners.mpc": (
            "MPC",
            "MPCState",
        ),
        "planners.mppi": ("MPPI",),
        "planners.noise": ("coloured_noise",),
        "planners.predictive": ("PredictiveSampling",),
        "planners.search": ("Search",),
        "planners.shooting": ("RandomShooting",),
        "planners.table": ("PLANNERS",),
    },
)


def __dir__() -> list[str]:
    return __all__
