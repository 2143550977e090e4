"""Learning and planning in worlds whose states and actions are integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbrl.tabular.config import DynaConfig, TabularConfig
from planners.lazy import lazy

if TYPE_CHECKING:
    from mbrl.tabular.bandits import (
        KLUCB,
        UCB1,
        Bandit,
        EpsilonGreedy,
        InformationDirected,
        Thompson,
    )
    from mbrl.tabular.dyna import Dyna
    from mbrl.tabular.dynamic_programming import (
        Solution,
        modified_policy_iteration,
        policy_iteration,
        value_iteration,
    )
    from mbrl.tabular.known import run_known
    from mbrl.tabular.linear_bandits import LinearBandit, LinearThompson, LinUCB
    from mbrl.tabular.posteriors import BetaBernoulli, NormalNormal, Posterior
    from mbrl.tabular.td import TabularLearner

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
    "run_known",
    "value_iteration",
]

__getattr__ = lazy(
    __name__,
    {
        "mbrl.tabular.bandits": (
            "KLUCB",
            "UCB1",
            "Bandit",
            "EpsilonGreedy",
            "InformationDirected",
            "Thompson",
        ),
        "mbrl.tabular.dyna": ("Dyna",),
        "mbrl.tabular.dynamic_programming": (
            "Solution",
            "modified_policy_iteration",
            "policy_iteration",
            "value_iteration",
        ),
        "mbrl.tabular.known": ("run_known",),
        "mbrl.tabular.linear_bandits": ("LinUCB", "LinearBandit", "LinearThompson"),
        "mbrl.tabular.posteriors": ("BetaBernoulli", "NormalNormal", "Posterior"),
        "mbrl.tabular.td": ("TabularLearner",),
    },
)


def __dir__() -> list[str]:
    return __all__
