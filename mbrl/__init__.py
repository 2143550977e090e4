"""Models of the world, and agents that learn and plan with them.

The names below are loaded when they are first used, so that importing this package is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planners.lazy import lazy

if TYPE_CHECKING:
    from mbrl.agents.controllers import Controller
    from mbrl.agents.mpc import MPCConfig, PlannerConfig
    from mbrl.contract import check_model
    from mbrl.data import Replay
    from mbrl.dynamics import Ensemble, EnsembleConfig, Simulator
    from mbrl.spaces import spec_of
    from mbrl.training import (
        Progress,
        Run,
        RunError,
        collect,
        evaluate,
        fit_offline,
        load_run,
        make,
        train,
    )
    from mbrl.types import Agent, Dynamics, Learner, Player, Policy, Spec, Transition

__all__ = [
    "Agent",
    "Controller",
    "Dynamics",
    "Ensemble",
    "EnsembleConfig",
    "Learner",
    "MPCConfig",
    "PlannerConfig",
    "Player",
    "Policy",
    "Progress",
    "Replay",
    "Run",
    "RunError",
    "Simulator",
    "Spec",
    "Transition",
    "check_model",
    "collect",
    "evaluate",
    "fit_offline",
    "load_run",
    "make",
    "spec_of",
    "train",
]


__getattr__ = lazy(
    __name__,
    {
        "mbrl.agents.controllers": ("Controller",),
        "mbrl.agents.mpc": ("MPCConfig", "PlannerConfig"),
        "mbrl.contract": ("check_model",),
        "mbrl.data": ("Replay",),
        "mbrl.dynamics": ("Ensemble", "EnsembleConfig", "Simulator"),
        "mbrl.spaces": ("spec_of",),
        "mbrl.training": (
            "Progress",
            "Run",
            "RunError",
            "collect",
            "evaluate",
            "fit_offline",
            "load_run",
            "make",
            "train",
        ),
        "mbrl.types": ("Agent", "Dynamics", "Learner", "Player", "Policy", "Spec", "Transition"),
    },
)


def __dir__() -> list[str]:
    return __all__
