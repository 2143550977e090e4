"""Recipes that join models, planners and learners.

`mbrl.agents.mcts` is imported by name: it compiles its loops, and numba takes half a second to
import.
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
