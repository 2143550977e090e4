"""Settings of MPC: which planner, how often it replans, how it treats an uncertain model.

No torch is imported until a planner is built, so the command's help is quick.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from mbrl.particles import Propagation, parse_objective

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
    horizon: int = 25
    """Actions planned ahead."""
    population: int | None = None
    """Candidates in the first iteration."""
    iterations: int | None = None
    """Rounds of search, at most."""
    elites: int | None = None
    """Best candidates, to which the next round is fitted."""
    knots: int | None = None
    """Control points that are searched; if unset, every action is."""
    interpolation: Literal["zero", "linear", "cubic"] | None = None
    """How control points become actions."""
    sigma: float | None = None
    """First std of the search, as a fraction of the box's width."""
    beta: float | None = None
    """Colour of the noise: 0 white, larger is smoother."""
    momentum: float | None = None
    """Share of the old mean and variance kept in each round."""
    temperature: float | None = None
    """Of MPPI: lower gives more weight to the best candidates."""
    answer: Literal["best", "mean"] | None = None
    """Carry out the best candidate, or the mean of the search."""

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
    replan_every: int = 1
    """Actions between two searches; 0 plans a whole episode once and runs it open loop."""
    action_repeat: int = 1
    """Environment steps that each planned action is held."""
    budget_ms: float | None = None
    """Milliseconds for a search, which then returns its best plan so far; None sets no limit."""
    particles: int = 1
    """Trajectories sampled per candidate, a multiple of the members that step."""
    propagation: Propagation = "tsinf"
    """How particles are assigned to members."""
    objective: str = "mean"
    """mean, worst, cvar:α, mean+std:λ or mean-std:λ of the particles' returns."""
    penalty: float = 0.0
    """λ of the epistemic penalty in reward − λ·disagreement."""
    discount: float = 1.0
    """Discount of the planned return."""
    terminal: float = 0.0
    """How many times more the last planned reward counts, for what lies beyond the horizon."""

    def __post_init__(self) -> None:
        parse_objective(self.objective)
        if self.propagation not in get_args(Propagation):
            raise ValueError(
                f"propagation {self.propagation!r} is unknown; "
                f"take one of {[*get_args(Propagation)]}"
            )
        if self.action_repeat < 1:
            raise ValueError(f"action_repeat must be >= 1, got {self.action_repeat}")
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount must be in (0, 1], got {self.discount}")
        for name in ("penalty", "terminal"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {getattr(self, name)}")

    def build(self, low: Tensor, high: Tensor, *, horizon: int | None = None) -> MPC:
        """The planner over the box [low, high] (A,) and its replanning.

        Raises:
            ValueError: a setting out of range, or one that this planner does not have.
        """
        from planners import MPC

        planner = self.planner.build(low, high, horizon=horizon)
        return MPC(planner, self.replan_every, self.action_repeat, budget_ms=self.budget_ms)
