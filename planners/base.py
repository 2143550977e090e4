"""The score that planners take, the plan that they return, and the protocols of planners."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Generator, Tensor

ScoreFn = Callable[[Tensor], Tensor]
"""`score(actions (N, H, A)) -> (N,)`: higher is better, -inf for a forbidden plan.

NaN and +inf count as forbidden too.
"""


class Plan(NamedTuple):
    """A plan, and the data of its search from which the next search starts."""

    actions: Tensor  # (H, A) inside the bounds
    score: Tensor  # ()
    mean: Tensor  # (K, A) mean of the sampling distribution of knots when the search ended
    std: Tensor  # (K, A) its standard deviation
    elites: Tensor  # (M, K, A) best knots, best first; M may be 0
    evaluated: int  # number of candidates scored
    rejected: int  # number of those whose score was -inf or NaN
    rounds: int = 0  # number of search rounds


class Planner(Protocol):
    """Maximises a score over action sequences; a pure function of its arguments."""

    def plan(
        self,
        score: ScoreFn,
        start: Plan | None,
        *,
        generator: Generator,
        deadline: float | None = None,
    ) -> Plan:
        """The best plan found in a search, which begins at `start` if that is given.

        A round is started only if it is expected to end before the `deadline`, a time of
        `time.perf_counter`. The first round always runs.
        """
        ...


class RecedingPlanner(Planner, Protocol):
    """A planner that can continue its last plan after some of the actions were executed."""

    @property
    def low(self) -> Tensor:
        """Lower bounds (A,) of the actions, with the dtype and device of the plans."""
        ...

    @property
    def horizon(self) -> int:
        """H, the number of actions in a plan."""
        ...

    def shift(self, plan: Plan, steps: int) -> Plan:
        """`plan` without its first `steps` actions, its last action repeated at the end."""
        ...


def maximised(planner: object) -> str:
    """The kind of the first argument of a planner's `plan`.

    Either "score", or "smooth" for a model with derivatives (`Smooth`): the planner's attribute
    `maximises`, or "score" for a planner without one.
    """
    return getattr(planner, "maximises", "score")
