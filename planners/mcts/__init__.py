"""Monte Carlo tree search for many roots at once, with any selection rule."""

from planners.mcts.rules import PUCT, UCT, Gumbel, Rule
from planners.mcts.search import search
from planners.mcts.types import Evaluation, StepFn, Tree, Widening

__all__ = ["PUCT", "UCT", "Evaluation", "Gumbel", "Rule", "StepFn", "Tree", "Widening", "search"]
