"""Settings of TD-MPC2. No torch is imported, so the command's help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval, MinLen

from mbrl.learners.configs import Rate
from planners.checks import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    check_fields,
    require,
)


@dataclass(frozen=True)
class TDMPCConfig:
    """Settings of the world model of TD-MPC2 and its losses; the defaults are the paper's."""

    latent: PositiveInt = 512
    """Z, the size of a latent state."""
    group: PositiveInt = 8
    """V, numbers of a latent state that are positive and sum to 1; a divisor of Z."""
    encoder_hidden: tuple[PositiveInt, ...] = (256,)
    """Widths of the encoder's hidden layers, for observations that are vectors."""
    hidden: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (512, 512)
    """Widths of the hidden layers of all other networks."""
    critics: PositiveInt = 5
    """Number of critics."""
    subset: PositiveInt = 2
    """Number of critics, drawn anew each time, whose minimum is the target, and whose mean the
    policy and the planner maximise."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    """Share of the critics' first hidden units that is dropped in updates."""
    bins: Annotated[int, Ge(2)] = 101
    """K, the number of bins of rewards and values."""
    value_range: tuple[float, float] = (-10.0, 10.0)
    """Least and greatest bin, of the symlog of rewards and values."""
    discount: PositiveShare | None = None
    """γ. If unset, that of the environment; else 1 - 5/T, at least 0.95 and at most 0.995, for
    episodes of T steps; 0.99 if they have no limit."""
    horizon: PositiveInt = 3
    """H, the number of steps in a sequence that is learned from."""
    rho: PositiveShare = 0.5
    """ρ: the step t of a sequence counts ρ^t."""
    consistency: NonNegativeFloat = 20.0
    """Weight of the squared error of predicted latent states."""
    reward: NonNegativeFloat = 0.1
    """Weight of the cross entropy of rewards."""
    value: NonNegativeFloat = 0.1
    """Weight of the cross entropy of the critics."""
    termination: NonNegativeFloat = 1.0
    """Weight of the cross entropy of terminations, which are predicted where episodes may end."""
    entropy: NonNegativeFloat = 1e-4
    """Weight of the policy's entropy, times the number of action dimensions, against values in
    units of their running range."""
    learning_rate: Rate = 3e-4
    """Adam's step size."""
    encoder_rate: PositiveFloat = 0.3
    """Step size of the encoder, as a share of the others."""
    clip: PositiveFloat = 20.0
    """Greatest norm of a gradient, of the policy, and of all the rest together."""
    polyak: PositiveShare = 0.01
    """Share of the critics that goes into their targets at each update, and of the range of values
    into its running mean."""

    def __post_init__(self) -> None:
        check_fields(self)
        low, high = self.value_range
        require(low < high, f"value_range: want low < high, got {low} and {high}")
        require(
            self.subset <= self.critics,
            f"subset: there are {self.critics} critics, got {self.subset}",
        )


def discount_of_episodes(steps: int | None) -> float:
    """γ of TD-MPC2 for episodes of so many steps: 1 - 5/T, in [0.95, 0.995]; 0.99 without a limit.

    Args:
        steps: T, or None.
    """
    return 0.99 if steps is None else min(max(1 - 5 / steps, 0.95), 0.995)
