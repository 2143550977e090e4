"""Settings of MPC: which planner, how often it replans, how it treats an uncertain model.

No torch is imported until a planner is built, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from annotated_types import Interval

from mbrl.particles import Propagation, parse_objective
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

    from planners import ILQR, MPC, Search


def planner_kinds() -> dict[str, type[Search] | type[ILQR]]:
    """Every planner that can drive a robot, by name."""
    from planners import ILQR, PLANNERS

    return {**PLANNERS, "ilqr": ILQR}


@dataclass(frozen=True)
class PlannerConfig:
    """Which planner, and its settings; unset ones are the planner's own defaults."""

    name: Literal[
        "icem", "cem", "mppi", "predictive", "cma", "evolution", "gradient", "ilqr", "random"
    ] = "icem"
    """The search."""
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

    def __post_init__(self) -> None:
        _ = self.kind
        check_fields(self)

    def named(self, name: str) -> PlannerConfig:
        """These settings for another planner, without those it does not have."""
        if name == self.name:
            return self
        other: Any = replace(self, name=cast(Any, name))
        known = {f.name for f in fields(other.kind)} | {"name"}
        return replace(other, **{f.name: None for f in fields(self) if f.name not in known})

    @property
    def kind(self) -> type[Search] | type[ILQR]:
        """The planner's class.

        Raises:
            ValueError: no planner has this name.
        """
        kinds = planner_kinds()
        if self.name not in kinds:
            raise ValueError(f"planner {self.name!r} is unknown; take one of {', '.join(kinds)}")
        return kinds[self.name]

    def build(self, low: Tensor, high: Tensor, *, horizon: int | None = None) -> Search | ILQR:
        """The planner over the box [low, high] (A,), with this or another horizon.

        Raises:
            ValueError: a setting out of range, or one that this planner does not have.
        """
        kind = self.kind
        offered = [f.name for f in fields(self) if f.name not in ("name", "horizon")]
        settings = {n: getattr(self, n) for n in offered if getattr(self, n) is not None}
        known = {f.name for f in fields(kind)}
        for name in settings:
            if name not in known:
                has = ", ".join(other for other in ("horizon", *offered) if other in known)
                raise ValueError(f"planner {self.name!r} has no setting {name!r}; it has {has}")
        return kind(low, high, self.horizon if horizon is None else horizon, **settings)


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
