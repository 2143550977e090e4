"""The score that planners take, the plan that they return, and their protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

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
        """The best plan found, searching from `start` if there is one.

        No round is started that is expected to end after the `deadline`, a time of
        `time.perf_counter`; the first round always runs.
        """
        ...


class RecedingPlanner(Planner, Protocol):
    """A planner that can start from its last plan after some actions of that were executed."""

    @property
    def low(self) -> Tensor:
        """Lower bounds (A,) of the actions, with the dtype and device of the plans."""
        ...

    @property
    def horizon(self) -> int:
        """H, the number of actions in a plan."""
        ...

    def shift(self, plan: Plan, steps: int) -> Plan:
        """`plan` as seen `steps` actions later, holding its last action at the tail."""
        ...


@runtime_checkable
class Demanding(Protocol):
    """A planner that says what its `plan` takes first."""

    @property
    def maximises(self) -> str:
        """Either "score", or "smooth" for a model with derivatives (`Smooth`)."""
        ...


def maximised(planner: object) -> str:
    """What a planner's `plan` takes first: what it says, else "score"."""
    return planner.maximises if isinstance(planner, Demanding) else "score"
