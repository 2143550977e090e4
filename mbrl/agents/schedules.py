"""What the settings of agents with a model-free learner have in common.

No torch is imported, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from annotated_types import Interval

from mbrl.encoders.configs import ImageConfig
from planners.checks import NonNegativeFloat, NonNegativeInt, PositiveInt, Share, check_fields

if TYPE_CHECKING:
    from typing import Self

    from mbrl.types import Spec

C = TypeVar("C")


@dataclass(frozen=True)
class Schedule:
    """Settings that suit any environment."""

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def suited(cls, spec: Spec) -> Self:
        """The defaults, whatever the environment."""
        return cls()


@dataclass(frozen=True)
class OffPolicySchedule(Schedule):
    """When an off-policy learner is updated, and from what data."""

    learning_starts: PositiveInt = 1000
    """Environment steps before the first update."""
    random_steps: NonNegativeInt | None = None
    """Environment steps with uniformly random actions at the start. If unset, until learning
    starts."""
    train_every: PositiveInt = 1
    """Environment steps from one round of updates to the next."""
    updates: PositiveInt | None = None
    """Updates in each round. If unset, one for each environment step."""
    batch: PositiveInt = 256
    """Transitions in each update."""
    capacity: PositiveInt | None = None
    """Maximum number of transitions kept; the oldest are dropped. If unset, a million, or 500,000
    of images, which take 6 GiB with frames of 64 x 64 in colour, however many are stacked."""
    n_step: PositiveInt = 1
    """Number of steps whose rewards are summed before the next state is bootstrapped from."""
    priority: NonNegativeFloat = 0.0
    """Exponent α of the errors by which transitions are drawn (prioritised replay); 0: alike."""
    correction: Share = 0.4
    """First exponent β of the importance weights that correct for priorities; it rises to 1."""
    correction_steps: PositiveInt = 100_000
    """Environment steps over which it rises, linearly."""
    hindsight: NonNegativeInt = 0
    """Number of steps with a goal that was achieved later in their episode (hindsight experience
    replay), for each one with its own; 0: none. Needs an environment of goals."""
    hold_noise: Annotated[int, Interval(ge=1, le=1000)] = 1
    """Greatest number of steps for which the noise of exploration is held. Each time n is drawn
    with a probability proportional to 1/n², Zeta's law cut off here (FlashSAC has 16); 1: fresh
    noise in each step."""
    normalise_obs: bool = False
    """Whether observations are scaled to mean 0 and std 1, with running statistics."""
    scale_reward: bool = False
    """Whether rewards are divided by the running std of the discounted return, or by a fifth of
    the greatest one where that is more (SimbaV2, XQC)."""
    log_every: PositiveInt = 1000
    """Environment steps from one line of metrics to the next; each has the means since the last."""
    images: ImageConfig = field(default_factory=ImageConfig)
    """The encoder of observations that are images: uint8, of three dimensions."""


@dataclass(frozen=True)
class OnPolicySchedule(Schedule):
    """How an on-policy learner's rollouts are scaled, and explored with."""

    normalise_obs: bool = False
    """Whether observations are scaled to mean 0 and standard deviation 1, with running
    statistics, and clipped to [-10, 10]."""
    normalise_reward: bool = False
    """Whether rewards are divided by the running standard deviation of the discounted return, and
    clipped to [-10, 10]."""
    noise_every: NonNegativeInt = 0
    """With gsde, the steps between draws of the noise's weights; 0: only where a rollout begins."""


@dataclass(frozen=True)
class RolloutSchedule(OnPolicySchedule):
    """Updates from rollouts of a fixed number of steps."""

    rollout: PositiveInt = 2048
    """T, the steps of each environment between updates. An update learns from T · N steps."""


@dataclass(frozen=True)
class EpisodeSchedule(OnPolicySchedule):
    """Updates from whole episodes."""

    episodes: PositiveInt = 10
    """Whole episodes between updates. Those under way at an update are left out, for an older
    policy began them; with one environment there are none."""


def with_discount(config: C, spec: Spec, otherwise: float = 0.99) -> C:
    """A config whose `discount` is set: its own, the environment's, or `otherwise`."""
    settings: Any = config
    if settings.discount is not None:
        return config
    return replace(settings, discount=otherwise if spec.discount is None else spec.discount)
