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
    """A plan, and the state of its search that the next one starts from. Plain tensors and ints."""

    actions: Tensor  # (H, A) inside the bounds
    score: Tensor  # ()
    mean: Tensor  # (K, A) sampling distribution when the search ended, in knots
    std: Tensor  # (K, A)
    elites: Tensor  # (M, K, A) best knots, best first; M may be 0
    evaluated: int  # candidates scored
    rejected: int  # of these, how many scored -inf or NaN
    rounds: int = 0  # rounds of search made


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

        With a `deadline`, an instant of `time.perf_counter`, a round that is expected to end after
        it is not begun; the first round always runs.
        """
        ...


class RecedingPlanner(Planner, Protocol):
    """A planner that can start from its last plan after some of its actions were carried out."""

    @property
    def low(self) -> Tensor:
        """Lower bounds (A,) of the actions, of the dtype and device of its plans."""
        ...

    @property
    def horizon(self) -> int:
        """Planned actions H in a plan."""
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
