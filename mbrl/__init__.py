"""Models of the world, and what learns from them.

The names below are loaded when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbrl.agents.mpc import Controller, MPCConfig, PlannerConfig
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

_HOMES = {
    "mbrl.agents.mpc": ("Controller", "MPCConfig", "PlannerConfig"),
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
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mbrl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
