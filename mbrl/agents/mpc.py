"""Settings of MPC: the planner, how often it replans, and how it uses an uncertain model.

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
    "icem",
    "cem",
    "mppi",
    "elite-mppi",
    "predictive",
    "cma",
    "evolution",
    "gradient",
    "ilqr",
    "random",
]
"""Names of the library's planners; see `planner_kinds`."""


def planner_kinds() -> dict[str, type[Search] | type[ILQR]]:
    """Every planner that can drive a robot, by name."""
    from planners import ILQR, PLANNERS

    return {**PLANNERS, "ilqr": ILQR}


@dataclass(frozen=True)
class PlannerConfig:
    """A planner and its settings; those that are unset have the planner's defaults."""

    name: str = "icem"
    """The search: icem, cem, mppi, elite-mppi, predictive, cma, evolution, gradient, ilqr or
    random, or one of your own as module:Class."""
    horizon: PositiveInt = 25
    """Number of actions in a plan."""
    population: PositiveInt | None = None
    """Number of candidates in the first iteration."""
    iterations: Rounds | None = None
    """Maximum number of iterations of a search."""
    elites: PositiveInt | None = None
    """Number of best candidates, to which the distribution of the next iteration is fitted."""
    knots: PositiveInt | None = None
    """Number of control points of a plan. If unset, every action is a control point."""
    interpolation: Literal["zero", "linear", "cubic"] | None = None
    """How actions are interpolated between control points."""
    sigma: PositiveFloat | None = None
    """Initial std of the search, as a fraction of the width of the action box."""
    beta: NonNegativeFloat | None = None
    """Exponent of the coloured noise: 0 is white noise, larger is smoother."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] | None = None
    """Share of the old mean and variance that is kept in each iteration."""
    temperature: PositiveFloat | None = None
    """Temperature of MPPI: a lower one gives more weight to the best candidates."""
    relative: bool | None = None
    """Whether elite-mppi's temperature is relative to the range of the elites' scores. Otherwise it
    is in units of the score."""
    floor: NonNegativeFloat | None = None
    """Smallest std of elite-mppi and evolution, as a fraction of the box's width."""
    answer: Literal["best", "mean", "draw"] | None = None
    """The plan to carry out: the best candidate, the mean of the search distribution, or one of
    elite-mppi's elites, drawn with their weights."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings, by name, of a planner of your own that are not among the above."""

    def __post_init__(self) -> None:
        check_fields(self)
        ours = get_args(PlannerName)
        if not (self.name in ours or ":" in self.name or _installed(self.name)):
            raise ValueError(
                f"planner {self.name!r} is unknown; there are {', '.join(ours)}, "
                "and yours as module:Class"
            )

    def named(self, name: str) -> PlannerConfig:
        """These settings for another planner, without those that it does not have."""
        if name == self.name:
            return self
        other: Any = replace(self, name=name, settings={})
        known = {*settings(f"planner {name!r}", other.kind, 3), *_ALWAYS}
        return replace(other, **{f.name: None for f in fields(self) if f.name not in known})

    @property
    def kind(self) -> type[Search] | type[ILQR]:
        """The planner's class.

        Raises:
            ValueError: an unknown name; a module that cannot be imported.
        """
        return named("planner", self.name, planner_kinds())

    def build(
        self, low: Tensor, high: Tensor, *, horizon: int | None = None
    ) -> Search | ILQR | RecedingPlanner:
        """The planner for actions in [low, high] (A,), with this or another horizon.

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
    """Model predictive control: plan, carry out a part of the plan, plan again."""

    planner: PlannerConfig = field(default_factory=PlannerConfig)
    """The search over action sequences."""
    replan_every: NonNegativeInt = 1
    """Number of actions between two searches; 0 plans a whole episode once (open loop)."""
    action_repeat: PositiveInt = 1
    """Number of environment steps for which each planned action is held."""
    budget_ms: PositiveFloat | None = None
    """Milliseconds after which a search returns its best plan so far; None sets no limit."""
    particles: PositiveInt = 1
    """Number of trajectories per candidate, a multiple of the number of members that predict."""
    propagation: Propagation = "tsinf"
    """How particles are propagated through the members."""
    objective: str = "mean"
    """mean, worst, cvar:α, mean+std:λ or mean-std:λ of the particles' returns."""
    penalty: NonNegativeFloat = 0.0
    """λ of the epistemic penalty in reward − λ·disagreement."""
    discount: PositiveShare = 1.0
    """Discount of the planned return."""
    terminal: NonNegativeFloat = 0.0
    """Additional weight of the last planned reward, for the rewards beyond the horizon."""

    proposals: NonNegativeInt = 8
    """Number of plans by the policy of a learner, from which a search begins if they are better
    than the last plan; elite-mppi has them among its candidates instead. Without a learner
    there are none."""
    terminal_value: bool = True
    """Whether the critic of a learner values the state in which a plan ends, with the learner's
    discount. Without a learner nothing does."""
    noise: NonNegativeFloat | Literal["search"] = 0.0
    """Std of Gaussian noise in actions in training, in halves of the width of the action box;
    search: the std at which the search ended (TD-MPC)."""

    def __post_init__(self) -> None:
        check_fields(self)
        parse_objective(self.objective)

    def build(self, low: Tensor, high: Tensor, *, horizon: int | None = None) -> MPC:
        """The planner for actions in [low, high] (A,) with its replanning.

        Raises:
            ValueError: a setting out of range, or one that this planner does not have.
        """
        from planners import MPC

        planner = self.planner.build(low, high, horizon=horizon)
        return MPC(planner, self.replan_every, self.action_repeat, budget_ms=self.budget_ms)
