"""Settings of MPC: which planner, how often it replans, how it treats an uncertain model.

No torch is imported until a planner is built, so the command's help is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from annotated_types import Interval

from mbrl.particles import Propagation, parse_objective
from mbrl.parts import check_settings, named, settings
from planners.checks import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Rounds,
    check_fields,
)

if TYPE_CHECKING:
    from torch import Tensor

    from planners import ILQR, MPC, RecedingPlanner, Search


PlannerName = Literal[
    "icem", "cem", "mppi", "predictive", "cma", "evolution", "gradient", "ilqr", "random"
]
"""The library's planners, as `planner_kinds` has them."""


def planner_kinds() -> dict[str, type[Search] | type[ILQR]]:
    """Every planner that can drive a robot, by name."""
    from planners import ILQR, PLANNERS

    return {**PLANNERS, "ilqr": ILQR}


@dataclass(frozen=True)
class PlannerConfig:
    """Which planner, and its settings; unset ones are the planner's own defaults."""

    name: str = "icem"
    """The search: icem, cem, mppi, predictive, cma, evolution, gradient, ilqr or random, or one of
    your own as module:Class."""
    horizon: PositiveInt = 25
    """Actions planned ahead."""
    population: PositiveInt | None = None
    """Candidates in the first iteration."""
    iterations: Rounds | None = None
    """Rounds of search, at most."""
    elites: PositiveInt | None = None
    """Best candidates, to which the next round is fitted."""
    knots: PositiveInt | None = None
    """Control points that are searched; if unset, every action is."""
    interpolation: Literal["zero", "linear", "cubic"] | None = None
    """How control points become actions."""
    sigma: PositiveFloat | None = None
    """First std of the search, as a fraction of the box's width."""
    beta: NonNegativeFloat | None = None
    """Colour of the noise: 0 white, larger is smoother."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] | None = None
    """Share of the old mean and variance kept in each round."""
    temperature: PositiveFloat | None = None
    """Of MPPI: lower gives more weight to the best candidates."""
    answer: Literal["best", "mean"] | None = None
    """Carry out the best candidate, or the mean of the search."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a planner of your own that the library's planners do not have, by name."""

    def __post_init__(self) -> None:
        check_fields(self)
        ours = get_args(PlannerName)
        if not (self.name in ours or ":" in self.name or _installed(self.name)):
            raise ValueError(
                f"planner {self.name!r} is unknown; there are {', '.join(ours)}, "
                "and yours as module:Class"
            )

    def named(self, name: str) -> PlannerConfig:
        """These settings for another planner, without those it does not have."""
        if name == self.name:
            return self
        other: Any = replace(self, name=name, settings={})
        known = {*settings(f"planner {name!r}", other.kind, 3), *_ALWAYS}
        return replace(other, **{f.name: None for f in fields(self) if f.name not in known})

    @property
    def kind(self) -> type[Search] | type[ILQR]:
        """The planner's class.

        Raises:
            ValueError: no planner has this name; a module that cannot be imported.
        """
        return named("planner", self.name, planner_kinds())

    def build(
        self, low: Tensor, high: Tensor, *, horizon: int | None = None
    ) -> Search | ILQR | RecedingPlanner:
        """The planner over the box [low, high] (A,), with this or another horizon.

        Raises:
            ValueError: a setting out of range, or one that this planner does not have.
        """
        from planners import check_planner

        kind: Any = self.kind
        offered = [f.name for f in fields(self) if f.name not in _ALWAYS]
        asked = {n: getattr(self, n) for n in offered if getattr(self, n) is not None}
        asked |= self.settings
        check_settings(f"planner {self.name!r}", kind, 3, asked)
        if self.name not in planner_kinds():
            check_planner(kind, **asked)
        return kind(low, high, self.horizon if horizon is None else horizon, **asked)


def _installed(name: str) -> bool:
    return bool(metadata.entry_points(group="mbrl.planners", name=name))


_ALWAYS = ("name", "horizon", "settings")
"""Fields of `PlannerConfig` that every planner has."""


@dataclass(frozen=True)
class MPCConfig:
    """Plan, carry out some of the plan, plan again."""

    planner: PlannerConfig = field(default_factory=PlannerConfig)
    """The search over action sequences."""
    replan_every: NonNegativeInt = 1
    """Actions between two searches; 0 plans a whole episode once and runs it open loop."""
    action_repeat: PositiveInt = 1
    """Environment steps that each planned action is held."""
    budget_ms: PositiveFloat | None = None
    """Milliseconds for a search, which then returns its best plan so far; None sets no limit."""
    particles: PositiveInt = 1
    """Trajectories sampled per candidate, a multiple of the members that step."""
    propagation: Propagation = "tsinf"
    """How particles are assigned to members."""
    objective: str = "mean"
    """mean, worst, cvar:α, mean+std:λ or mean-std:λ of the particles' returns."""
    penalty: NonNegativeFloat = 0.0
    """λ of the epistemic penalty in reward − λ·disagreement."""
    discount: PositiveShare = 1.0
    """Discount of the planned return."""
    terminal: NonNegativeFloat = 0.0
    """How many times more the last planned reward counts, for what lies beyond the horizon."""

    def __post_init__(self) -> None:
        check_fields(self)
        parse_objective(self.objective)

    def build(self, low: Tensor, high: Tensor, *, horizon: int | None = None) -> MPC:
        """The planner over the box [low, high] (A,) and its replanning.

        Raises:
            ValueError: a setting out of range, or one that this planner does not have.
        """
        from planners import MPC

        planner = self.planner.build(low, high, horizon=horizon)
        return MPC(planner, self.replan_every, self.action_repeat, budget_ms=self.budget_ms)
