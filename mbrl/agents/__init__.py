"""Recipes that join models, planners and learners."""

from mbrl.agents.dyna import Dyna, DynaConfig
from mbrl.agents.mcts import TreeModel, TreeSearch, TreeSearchConfig, uniform_actions
from mbrl.agents.mpc import KINDS, Controller, MPCConfig, Pipelined, PlannerConfig
from mbrl.agents.pets import PETS, PETSConfig
from mbrl.agents.random import RandomAgent, RandomConfig

__all__ = [
    "KINDS",
    "PETS",
    "Controller",
    "Dyna",
    "DynaConfig",
    "MPCConfig",
    "PETSConfig",
    "Pipelined",
    "PlannerConfig",
    "RandomAgent",
    "RandomConfig",
    "TreeModel",
    "TreeSearch",
    "TreeSearchConfig",
    "uniform_actions",
]
