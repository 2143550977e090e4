"""Recipes that join models, planners and learners."""

from mbrl.agents.mpc import Controller, MPCConfig, Pipelined, PlannerConfig
from mbrl.agents.pets import PETS, PETSConfig
from mbrl.agents.random import RandomAgent, RandomConfig

__all__ = [
    "PETS",
    "Controller",
    "MPCConfig",
    "PETSConfig",
    "Pipelined",
    "PlannerConfig",
    "RandomAgent",
    "RandomConfig",
]
