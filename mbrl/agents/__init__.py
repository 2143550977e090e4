"""Recipes that join models, planners and learners."""

from mbrl.agents.pets import PETS, PETSConfig, PlannerConfig
from mbrl.agents.random import RandomAgent, RandomConfig

__all__ = ["PETS", "PETSConfig", "PlannerConfig", "RandomAgent", "RandomConfig"]
