"""Settings of learners of action values. No torch is imported, so the command's help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mbrl.learners.configs import Activation, Rate, StepSizes
from planners.checks import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    check_fields,
    require,
)

Exploration = Literal["epsilon-greedy", "boltzmann"]


@dataclass(frozen=True)
class DQNConfig(StepSizes):
    """Settings of deep Q-learning; the defaults are the paper's, with networks for vectors.

    Double and dueling Q-learning, C51 and QR-DQN are settings of it.
    """

    hidden: tuple[PositiveInt, ...] = (256, 256)
    """Widths of the network's layers."""
    activation: Activation = "relu"
    """Activation of the network."""
    discount: PositiveShare | None = None
    """γ. If unset, that of the environment, or 0.99 if it defines none."""
    adam_eps: PositiveFloat = 1e-8
    """Adam's ε, added to the root of the second moment."""
    clip: PositiveFloat | None = 10.0
    """Greatest norm of a gradient. If unset, gradients are not clipped."""
    huber: PositiveFloat | None = 1.0
    """Error beyond which the loss grows linearly. If unset, the loss is squared; quantiles need it
    set."""
    double: bool = False
    """Whether the online network chooses the action whose value in the target network counts (van
    Hasselt et al. 2016), or the target network does both."""
    dueling: bool = False
    """Whether the state's value and the actions' advantages have last layers of their own (Wang et
    al. 2016)."""
    atoms: PositiveInt = 1
    """Atoms of the distribution of returns (C51; Bellemare et al. 2017); 1: only the mean."""
    value_range: tuple[float, float] = (-10.0, 10.0)
    """Least and greatest return of the atoms."""
    quantiles: PositiveInt = 1
    """Quantiles of the distribution of returns (QR-DQN; Dabney et al. 2018); 1: only the mean."""
    target_every: PositiveInt = 1000
    """Number of updates between those of the target network."""
    polyak: PositiveShare = 1.0
    """Share of the network that then goes into the target; 1 copies it."""
    exploration: Exploration = "epsilon-greedy"
    """Explore by a uniformly random action with probability ε, or by actions with probabilities
    softmax(Q / temperature)."""
    first_exploration: NonNegativeFloat = 1.0
    """ε, or the temperature in units of the return, before the first step."""
    last_exploration: NonNegativeFloat = 0.05
    """ε, or the temperature, after `exploration_steps`; it changes linearly."""
    exploration_steps: PositiveInt = 10_000
    """Number of environment steps after which exploration no longer changes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.value_range
        require(low < high, f"value_range: want low < high, got {low} and {high}")
        require(
            self.atoms == 1 or self.quantiles == 1,
            f"atoms and quantiles: only one can be above 1, got {self.atoms} and {self.quantiles}",
        )
        require(
            self.quantiles == 1 or self.huber is not None,
            "huber: quantiles need a threshold, it is unset",
        )
        for name in ("first_exploration", "last_exploration"):
            share = self.exploration != "epsilon-greedy" or getattr(self, name) <= 1
            require(share, f"{name}: ε must be at most 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class DDPGConfig(StepSizes):
    """Settings of deep deterministic policy gradient, as tuned by the authors of TD3."""

    hidden: tuple[PositiveInt, ...] = (400, 300)
    """Widths of the policy's layers."""
    critic_hidden: tuple[PositiveInt, ...] | None = None
    """Widths of the critics' layers. If unset, those of the policy."""
    activation: Activation = "relu"
    """Activation of all networks."""
    discount: PositiveShare | None = None
    """γ. If unset, that of the environment, or 0.99 if it defines none."""
    learning_rate: Rate = 1e-3
    """Adam's step size for the policy."""
    critic_learning_rate: Rate | None = None
    """Adam's step size for the critics. If unset, that of the policy."""
    polyak: PositiveShare = 0.005
    """Share of the networks that goes into their targets, each time the policy is updated."""
    critics: PositiveInt = 1
    """Number of critics, whose minimum is the target."""
    actor_every: PositiveInt = 1
    """Number of updates of the critics for one of the policy and of the targets."""
    target_noise: NonNegativeFloat = 0.0
    """Std of the noise added to the target policy's action, in half widths of the box."""
    target_noise_clip: PositiveFloat = 0.5
    """The most that is added, in half widths of the box."""
    noise: NonNegativeFloat = 0.1
    """Std of the Gaussian noise of exploration, in half widths of the box."""
    clip: PositiveFloat | None = None
    """Greatest norm of a gradient. If unset, gradients are not clipped."""


@dataclass(frozen=True)
class TD3Config(DDPGConfig):
    """Settings of DDPG that make it TD3 (Fujimoto et al. 2018)."""

    critics: PositiveInt = 2
    """Number of critics, whose minimum is the target."""
    actor_every: PositiveInt = 2
    """Number of updates of the critics for one of the policy and of the targets."""
    target_noise: NonNegativeFloat = 0.2
    """Std of the noise added to the target policy's action, in half widths of the box."""


@dataclass(frozen=True)
class FQIConfig:
    """Settings of fitted Q-iteration."""

    iterations: PositiveInt = 50
    """K, number of times that a network is fitted to the targets of the one before."""
    updates: PositiveInt = 100
    """S, number of gradient steps in each of them."""
    batch: PositiveInt = 256
    """Number of transitions of a gradient step, drawn uniformly."""
    hidden: tuple[PositiveInt, ...] = (64, 64)
    """Widths of the network's layers."""
    activation: Activation = "relu"
    """Activation of the network."""
    discount: PositiveShare | None = None
    """γ. If unset, that of the environment, or 0.99 if it defines none."""
    learning_rate: Rate = 1e-3
    """Adam's step size."""
    huber: PositiveFloat | None = None
    """Error beyond which the loss grows linearly. If unset, the loss is squared."""
    double: bool = False
    """Whether the network that is fitted chooses the next action, and the one before only rates
    it."""

    def __post_init__(self) -> None:
        check_fields(self)
