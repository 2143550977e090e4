"""The tasks of the DeepMind control suite (Tassa et al. 2018), `dmc-DOMAIN-TASK`.

The model files come from the package dm_control (extra `suite`); observations, rewards and starts
are written here and compared with dm_control's numbers; see docs/suite.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from envs.suite import (
    acrobot,
    ball_in_cup,
    cartpole,
    cheetah,
    finger,
    fish,
    hopper,
    humanoid,
    pendulum,
    point_mass,
    quadruped,
    reacher,
    swimmer,
    walker,
)
from envs.suite.model import SuiteMissing, SuiteTask

_DOMAINS = (
    acrobot, ball_in_cup, cartpole, cheetah, finger, fish, hopper, humanoid, pendulum, point_mass,
    quadruped, reacher, swimmer, walker,
)  # fmt: skip

SUITE: Mapping[str, SuiteTask] = {task.name: task for each in _DOMAINS for task in each.TASKS}
"""The suite's tasks by name."""

__all__ = ["SUITE", "SuiteMissing", "SuiteTask"]
