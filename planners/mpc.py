"""Model predictive control: plan, carry out some of the plan, plan again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Generator, Tensor

from planners.base import Plan, RecedingPlanner, ScoreFn


class MPCState(NamedTuple):
    """What a controller carries from step to step: plain tensors and ints."""

    plan: Plan | None = None
    cursor: int = 0  # environment steps taken since the plan was made


@dataclass(frozen=True, eq=False)
class MPC:
    """Carries out a planner's plans and decides when to plan again.

    Episodes start from `MPCState()`. Raises ValueError, on building, for settings out of range.
    """

    planner: RecedingPlanner
    replan_every: int = 1
    """Planned actions between two searches, at most the horizon. 0 searches once and carries
    the plan out open loop, so the horizon times `action_repeat` must cover the episode."""
    action_repeat: int = 1
    """Environment steps for which each planned action is held, in the score too: it sees
    (N, H · action_repeat, A)."""

    def __post_init__(self) -> None:
        horizon = self.planner.horizon
        if not (isinstance(self.replan_every, int) and 0 <= self.replan_every <= horizon):
            raise ValueError(
                f"replan_every must lie in 0..horizon = 0..{horizon} (0: never), "
                f"got {self.replan_every!r}"
            )
        if not (isinstance(self.action_repeat, int) and self.action_repeat >= 1):
            raise ValueError(
                f"action_repeat must be an integer of at least 1, got {self.action_repeat!r}"
            )

    def act(
        self, make_score: Callable[[], ScoreFn], state: MPCState, *, generator: Generator
    ) -> tuple[Tensor, MPCState]:
        """The action (A,) for this environment step, and the state for the next.

        `make_score` gives the score of plans from the present model state; it is called only
        when a search is due. The search starts from the last plan, shifted by the actions
        carried out since. Raises ValueError when an open-loop plan has run out.
        """
        plan, cursor = state
        index, held = divmod(cursor, self.action_repeat)
        if plan is None or (held == 0 and 0 < self.replan_every <= index):
            start = None if plan is None else self.planner.shift(plan, index)
            plan = self.planner.plan(self._held(make_score()), start, generator=generator)
            cursor = index = 0
        if index >= len(plan.actions):
            raise ValueError(
                f"the open-loop plan of {len(plan.actions)} actions, each held "
                f"{self.action_repeat} steps, ran out at step {cursor}; "
                f"raise the horizon or set replan_every to 1 or more"
            )
        return plan.actions[index].clone(), MPCState(plan, cursor + 1)

    def _held(self, score: ScoreFn) -> ScoreFn:
        repeat = self.action_repeat
        if repeat == 1:
            return score
        return lambda actions: score(actions.repeat_interleave(repeat, dim=1))
