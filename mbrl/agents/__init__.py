"""Recipes that join models, planners and learners.

`mbrl.agents.dyna` and `mbrl.agents.tree_search` are imported by name: they compile their loops, and
what compiles takes half a second to import.
"""

from mbrl.agents.mpc import KINDS, Controller, MPCConfig, Pipelined, PlannerConfig
from mbrl.agents.pets import PETS, PETSConfig
from mbrl.agents.random import RandomAgent, RandomConfig

__all__ = [
    "KINDS",
    "PETS",
    "Controller",
    "MPCConfig",
    "PETSConfig",
    "Pipelined",
    "PlannerConfig",
    "RandomAgent",
    "RandomConfig",
]
