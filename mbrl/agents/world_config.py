"""Settings of an agent that plans in latent space.

No torch is imported, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mbrl.agents.mpc import MPCConfig, PlannerConfig
from mbrl.agents.schedules import Schedule
from mbrl.encoders.configs import ImageConfig
from mbrl.learners.tdmpc_config import TDMPCConfig
from planners.checks import NonNegativeInt, PositiveInt, require


def planning(
    population: int = 512, iterations: int = 6, elites: int = 64, proposals: int = 24
) -> MPCConfig:
    """Settings of planning in latent space over three steps; the defaults are the paper's."""
    planner = PlannerConfig(
        "elite-mppi", horizon=3, population=population, iterations=iterations, elites=elites
    )
    return MPCConfig(planner, proposals=proposals, noise="search")


@dataclass(frozen=True)
class WorldSchedule(Schedule):
    """When the learner of a latent world model is updated, and how is planned through it."""

    learner: TDMPCConfig = field(default_factory=TDMPCConfig)
    """Settings of the world model, the critics and the policy."""
    plan: MPCConfig = field(default_factory=planning)
    """Settings of planning. A plan is worth its rewards and the critics' value of its end."""
    random_steps: PositiveInt | None = None
    """Environment steps with uniformly random actions before the first update. If unset, 1000, or
    five episodes where that is more."""
    first_updates: NonNegativeInt | None = None
    """Updates at once after the random steps. If unset, those that fall due in so many steps."""
    train_every: PositiveInt = 1
    """Environment steps from one round of updates to the next."""
    updates: PositiveInt = 1
    """Updates in each round."""
    batch: PositiveInt = 256
    """B, sequences in each update."""
    capacity: PositiveInt | None = None
    """Maximum number of transitions kept; the oldest are dropped. If unset, a million, or 500,000
    of images."""
    log_every: PositiveInt = 1000
    """Environment steps from one line of metrics to the next; each has the means since the last."""
    images: ImageConfig = field(
        default_factory=lambda: ImageConfig(network="nature", features=256, shift=3)
    )
    """The encoder's convolutions where observations are images: uint8, of three dimensions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, given, wanted in (
            ("particles", self.plan.particles, 1),
            ("propagation", self.plan.propagation, "tsinf"),
            ("penalty", self.plan.penalty, 0),
            ("action_repeat", self.plan.action_repeat, 1),
        ):
            require(given == wanted, f"plan.{name}: one latent model; want {wanted}, got {given}")
        require(
            self.plan.replan_every > 0,
            "plan.replan_every: 0 plans a whole episode once; want 1 or more",
        )
