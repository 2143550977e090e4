"""Imagined trajectories through any model, and what they are worth to a planner."""

from mbrl.imagination.ahead import RecalibratedAhead, particles_ahead, recalibrate_ahead
from mbrl.imagination.branched import Branches, branched
from mbrl.imagination.objectives import Objective, disagreement, objective
from mbrl.imagination.propagation import BLOCK_ROWS
from mbrl.imagination.rollout import Halt, Imagined, rollout, state_ahead
from mbrl.imagination.score import score_fn
from mbrl.particles import Propagation

__all__ = [
    "BLOCK_ROWS",
    "Branches",
    "Halt",
    "Imagined",
    "Objective",
    "Propagation",
    "RecalibratedAhead",
    "branched",
    "disagreement",
    "objective",
    "particles_ahead",
    "recalibrate_ahead",
    "rollout",
    "score_fn",
    "state_ahead",
]
