"""How to explore."""

from mbrl.exploration.bandits import (
    KLUCB,
    UCB1,
    Bandit,
    BetaBernoulli,
    EpsilonGreedy,
    InformationDirected,
    LinearBandit,
    LinearThompson,
    LinUCB,
    NormalNormal,
    Thompson,
)

__all__ = [
    "KLUCB",
    "UCB1",
    "Bandit",
    "BetaBernoulli",
    "EpsilonGreedy",
    "InformationDirected",
    "LinUCB",
    "LinearBandit",
    "LinearThompson",
    "NormalNormal",
    "Thompson",
]
