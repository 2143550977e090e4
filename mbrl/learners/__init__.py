"""What learns to act: one file an algorithm."""

from mbrl.learners.dynamic_programming import (
    Solution,
    modified_policy_iteration,
    policy_iteration,
    value_iteration,
)
from mbrl.learners.tabular import TabularConfig, TabularLearner, run, run_known

__all__ = [
    "Solution",
    "TabularConfig",
    "TabularLearner",
    "modified_policy_iteration",
    "policy_iteration",
    "run",
    "run_known",
    "value_iteration",
]
