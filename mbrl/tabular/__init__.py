"""Learning and planning in worlds whose states and actions are integers."""

from mbrl.tabular.bandits import (
    KLUCB,
    UCB1,
    Bandit,
    EpsilonGreedy,
    InformationDirected,
    Thompson,
)
from mbrl.tabular.dyna import Dyna, DynaConfig
from mbrl.tabular.dynamic_programming import (
    Solution,
    modified_policy_iteration,
    policy_iteration,
    value_iteration,
)
from mbrl.tabular.linear_bandits import LinearBandit, LinearThompson, LinUCB
from mbrl.tabular.posteriors import BetaBernoulli, NormalNormal, Posterior
from mbrl.tabular.td import TabularConfig, TabularLearner, run, run_known

__all__ = [
    "KLUCB",
    "UCB1",
    "Bandit",
    "BetaBernoulli",
    "Dyna",
    "DynaConfig",
    "EpsilonGreedy",
    "InformationDirected",
    "LinUCB",
    "LinearBandit",
    "LinearThompson",
    "NormalNormal",
    "Posterior",
    "Solution",
    "TabularConfig",
    "TabularLearner",
    "Thompson",
    "modified_policy_iteration",
    "policy_iteration",
    "run",
    "run_known",
    "value_iteration",
]
