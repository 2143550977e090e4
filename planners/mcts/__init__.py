"""Monte Carlo tree search, for many roots at once."""

from planners.mcts.search import (
    PUCT,
    UCT,
    Evaluation,
    Gumbel,
    Rule,
    StepFn,
    Tree,
    Widening,
    search,
)

__all__ = ["PUCT", "UCT", "Evaluation", "Gumbel", "Rule", "StepFn", "Tree", "Widening", "search"]
