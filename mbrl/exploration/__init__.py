"""How to explore."""

from mbrl.exploration.bandits import (
    KLUCB,
    UCB1,
    Bandit,
    EpsilonGreedy,
    InformationDirected,
    Thompson,
)
from mbrl.exploration.linear_bandits import LinearBandit, LinearThompson, LinUCB
from mbrl.exploration.posteriors import BetaBernoulli, NormalNormal, Posterior

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
    "Posterior",
    "Thompson",
]
