"""Model predictive control: plan, execute part of the plan, plan again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from planners.base import Plan, RecedingPlanner
from planners.checks import NonNegativeInt, PositiveFloat, PositiveInt, check_fields, check_memory
from planners.ilqr import ILQR
from planners.search import Search, checked


class MPCState(NamedTuple):
    """The state of a controller between steps: tensors and ints."""

    plan: Plan | None = None
    cursor: int = 0  # environment steps taken since the plan was made


@dataclass(frozen=True, eq=False)
class MPC:
    """Executes the plans of a planner and replans at intervals.

    Episodes start from `MPCState()`. Raises ValueError, on building, for settings out of range.
    """

    planner: RecedingPlanner | ILQR
    replan_every: NonNegativeInt = 1
    """Number of planned actions between two searches, at most the horizon. 0 searches once and
    executes the plan open loop, so the horizon times `action_repeat` must cover the episode."""
    action_repeat: PositiveInt = 1
    """Environment steps for which each planned action is held. The score takes the repeated
    actions, (N, H · action_repeat, A)."""
    budget_ms: PositiveFloat | None = None
    """Time limit of a search in milliseconds, including the time to make its score; None sets no
    limit. The planner starts no round that would end later, so set more iterations than can fit."""
    _round_ms: list[float] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        horizon = self.planner.horizon
        if isinstance(self.planner, Search):
            size = self.planner.low.nbytes * self.planner.population * horizon
            repeat = self.action_repeat
            check_memory(f"action_repeat {repeat}: the candidates", size * repeat)
        if self.replan_every > horizon:
            raise ValueError(
                f"replan_every must lie in 0..horizon = 0..{horizon} (0: never), "
                f"got {self.replan_every!r}"
            )

    def act(
        self,
        make_score: Callable[[], Any],
        state: MPCState,
        *,
        guesses: Callable[[], Tensor] | None = None,
        generator: Generator,
    ) -> tuple[Tensor, MPCState]:
        """The action (A,) for this environment step, and the state for the next.

        `make_score` returns the score of plans from the current model state (for `ILQR`: the
        model); it is called only when a search is due. The search
        starts from the last plan, shifted by the actions executed since. Raises ValueError
        when an open-loop plan has run out, and what `search` raises.
        """
        plan, cursor = state
        index, held = divmod(cursor, self.action_repeat)
        if plan is None or (held == 0 and 0 < self.replan_every <= index):
            plan = self.search(make_score, plan, index, guesses=guesses, generator=generator)
            cursor = index = 0
        if index >= len(plan.actions):
            raise ValueError(
                f"the open-loop plan of {len(plan.actions)} actions, each held "
                f"{self.action_repeat} steps, ran out at step {cursor}; "
                f"raise the horizon or set replan_every to 1 or more"
            )
        return plan.actions[index].clone(), MPCState(plan, cursor + 1)

    def search(
        self,
        make_score: Callable[[], Any],
        last: Plan | None,
        spent: int,
        *,
        guesses: Callable[[], Tensor] | None = None,
        generator: Generator,
    ) -> Plan:
        """A new plan, from the last one shifted by the `spent` actions executed since.

        `guesses` returns further plans (M, H, A) to begin from, such as those of a policy. The
        search then begins from the best of all, and all are among its first elites. One with
        `keeps_mean` begins from the last plan's mean, and its first elites are the guesses.

        Raises ValueError at the first search if `budget_ms` is shorter than one round. To measure
        that, three rounds with the same score and separate random draws run before the first
        search; their results are discarded, and the budget starts after them.
        """
        began, deadline = time.perf_counter(), None
        start = None if last is None else self.planner.shift(last, spent)
        score = self._held(make_score())
        if guesses is not None:
            start = self._start_with(score, start, guesses())
        if self.budget_ms is not None:
            if not self._round_ms:
                self._round_ms.append(self._time_a_round(score, start, generator))
                began = time.perf_counter()
            deadline = began + self.budget_ms / 1000
        return self.planner.plan(score, start, generator=generator, deadline=deadline)

    def _start_with(self, score: Any, start: Plan | None, guesses: Tensor) -> Plan:
        planner = self.planner
        if not isinstance(planner, Search):
            raise ValueError(f"guesses: {type(planner).__name__} does not begin from given plans")
        knots = guesses.clamp(planner.low, planner.high)
        if planner.knots is not None:  # those whose interpolated actions are nearest
            knots = torch.linalg.pinv(planner.matrix) @ knots
            knots = knots.clamp(planner.low, planner.high)
        if planner.keeps_mean:
            mean, std, _ = planner.begin(start)
            unknown = knots.new_full((), torch.nan)
            return Plan(planner.actions(mean), unknown, mean, std, knots, evaluated=0, rejected=0)
        if start is not None:
            knots = torch.cat((start.mean[None], start.elites, knots))
        scores = checked(score, planner.actions(knots))
        order = scores.argsort(descending=True)
        order = order[scores[order] > -torch.inf]
        best = knots[order] if len(order) else knots[:1]
        return Plan(
            actions=planner.actions(best[0]),
            score=scores.max(),
            mean=best[0],
            std=torch.zeros_like(best[0]),
            elites=best[: max(planner.elites, 1)],
            evaluated=len(knots),
            rejected=len(knots) - len(order),
        )

    def _time_a_round(self, score: Any, start: Plan | None, generator: Generator) -> float:
        """Milliseconds of the fastest of three rounds; ValueError if over the budget."""
        own = torch.Generator(generator.device).manual_seed(0)
        took = []
        for _ in range(3):
            began = time.perf_counter()
            self.planner.plan(score, start, generator=own, deadline=began)
            took.append(1000 * (time.perf_counter() - began))
        if self.budget_ms is not None and min(took) > self.budget_ms:
            raise ValueError(
                f"budget_ms {self.budget_ms:g} is shorter than one round of the search, which "
                f"took {min(took):.3g} ms; raise it, or lower the population or the horizon"
            )
        return min(took)

    def _held(self, score: Any) -> Any:
        repeat = self.action_repeat
        if repeat == 1 or not callable(score):  # a model for iLQR repeats actions itself
            return score
        return lambda actions: score(actions.repeat_interleave(repeat, dim=1))
