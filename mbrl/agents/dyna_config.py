"""Settings of agents that learn a model, and a policy from imagined steps.

No torch is imported, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from mbrl.agents.mpc import MPCConfig, PlannerConfig
from mbrl.agents.schedules import OffPolicySchedule
from mbrl.dynamics.configs import EnsembleConfig
from mbrl.dynamics.own import OwnModel
from mbrl.dynamics.table import ModelConfig
from planners.checks import NonNegativeInt, PositiveFloat, PositiveInt, Share, check_fields, require

if TYPE_CHECKING:
    from typing import Self

    from mbrl.types import Spec

MODEL = EnsembleConfig(members=7, elites=5, holdout=0.2, patience=5)
"""The ensemble of MBPO."""


PLAN = MPCConfig(PlannerConfig(horizon=3, population=64, iterations=3, elites=8), particles=5)
"""Short plans, because the critic values what comes after them."""


def learning(model: ModelConfig | OwnModel, spec: Spec) -> ModelConfig | OwnModel:
    """Settings of a model that learns the reward and the termination where they are not known."""
    return replace(model, learn_reward=spec.reward is None, learn_termination=spec.ends)


@dataclass(frozen=True)
class ModelSchedule(OffPolicySchedule):
    """When a model is refitted."""

    model: ModelConfig | OwnModel = MODEL
    """The model and its fit, or a model of your own."""
    fit_every: PositiveInt = 250
    """Environment steps from one fit of the model to the next; the first is when learning
    starts."""
    margin: PositiveFloat = 5.0
    """Imagined states are dropped outside the box of the observations so far, which is wider by
    this many times its width on each side."""
    planning: bool = False
    """Whether actions are planned through the model once it is fitted, with the critic's value of
    the state in which a plan ends, and the policy's proposals."""
    plan: MPCConfig = PLAN
    """Settings of these plans."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.n_step == 1 and self.priority == 0 and self.hindsight == 0,
            "n_step, priority, hindsight: imagined steps need 1, 0 and 0",
        )

    @classmethod
    def suited(cls, spec: Spec) -> Self:
        """The defaults; unknown rewards and terminations are learned."""
        made = cls()
        return replace(made, model=learning(made.model, spec))


@dataclass(frozen=True)
class MacuraConfig:
    """Settings of the rule of trust of MACURA (Frauenknecht et al. 2024)."""

    factor: PositiveFloat = 1.0
    """ξ: a rollout ends where the members differ by more than this many times the quantile of
    what they differ by at first steps."""
    quantile: Share = 0.95
    """ζ: that quantile."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class InfopropConfig:
    """Settings of the rule of trust of Infoprop (Frauenknecht et al. 2025)."""

    step: Share = 0.9999
    """Quantile of the information lost on real steps that no imagined step may exceed."""
    total: Share = 0.01
    """Quantile of the information lost on real steps that each step of a rollout of `steps` steps
    may lose on average."""
    steps: PositiveInt = 100
    """Steps of that rollout."""
    unit: PositiveFloat = 1e-6
    """Size of the cells in which states are told apart."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class DynaSchedule(ModelSchedule):
    """When a model is refitted, and which steps are imagined with it after each fit."""

    starts: PositiveInt = 10_000
    """Rollouts in a burst, each from a state of the replay buffer."""
    horizon: PositiveInt = 1
    """k, the steps of each rollout, before `horizon_from`."""
    last_horizon: PositiveInt | None = None
    """k after `horizon_to`; it changes linearly. If unset, k stays."""
    horizon_from: NonNegativeInt = 20_000
    """Environment steps after which k begins to change."""
    horizon_to: PositiveInt = 150_000
    """Environment steps after which k no longer changes."""
    actions: Literal["policy", "random", "buffer"] = "policy"
    """The first action of a rollout: the policy's, a uniformly random one, or that of the buffer.
    Later ones are the policy's."""
    propagation: Literal["ts1", "tsinf"] = "ts1"
    """Which member takes a step: one drawn anew for each step (ts1), or one for each rollout
    (tsinf)."""
    real: Share = 0.05
    """Share of real transitions in each batch; 1: the learner alone."""
    retain: PositiveInt = 4
    """Bursts whose imagined transitions are kept."""
    trust: Literal["none", "macura", "infoprop"] = "none"
    """What ends a rollout before k steps. macura: members that differ too much. infoprop: too much
    information lost; each step is then to the fused prediction of all members."""
    macura: MacuraConfig = field(default_factory=MacuraConfig)
    """Settings of trust macura."""
    infoprop: InfopropConfig = field(default_factory=InfopropConfig)
    """Settings of trust infoprop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.horizon_from < self.horizon_to,
            f"horizon_to: want more than horizon_from {self.horizon_from}, got {self.horizon_to}",
        )
        model = self.model
        if self.trust == "none" or isinstance(model, OwnModel):
            return
        members = model.elites or model.members
        require(
            model.probabilistic and members > 1,
            f"trust: {self.trust} needs model.probabilistic and two members or more that predict",
        )

    def length(self, steps: int) -> int:
        """k after so many environment steps."""
        if self.last_horizon is None:
            return self.horizon
        share = (steps - self.horizon_from) / (self.horizon_to - self.horizon_from)
        return int(self.horizon + min(max(share, 0.0), 1.0) * (self.last_horizon - self.horizon))


@dataclass(frozen=True)
class ExpansionSchedule(ModelSchedule):
    """When a model is refitted, and how targets are expanded with it."""

    horizon: PositiveInt = 3
    """H, the imagined steps from the next state of each real transition."""
    steve: bool = False
    """Whether the targets of horizons 0 to H are averaged, weighted by the inverse of their
    variance over members and critics (STEVE), instead of taking that of H (MVE)."""
    imagined_states: bool = False
    """Whether the imagined states are learned from as well, with the target of the steps left
    (the TD-k trick of MVE)."""
    sample: bool = False
    """Whether imagined steps are drawn from the model's Gaussian, instead of taking its mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not (self.steve and self.imagined_states),
            "imagined_states: only without steve, whose targets are of real states",
        )
