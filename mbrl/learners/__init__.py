"""What learns to act: one file an algorithm."""

from mbrl.learners.tabular import (
    Solution,
    TabularConfig,
    TabularLearner,
    modified_policy_iteration,
    policy_iteration,
    run,
    value_iteration,
)

__all__ = [
    "Solution",
    "TabularConfig",
    "TabularLearner",
    "modified_policy_iteration",
    "policy_iteration",
    "run",
    "value_iteration",
]
