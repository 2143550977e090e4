"""Settings of policy gradients and of rollouts. No torch is imported, so the command's help is
quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mbrl.learners.configs import Activation, Rate
from planners.checks import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Share,
    check_fields,
    require,
)


@dataclass(frozen=True)
class PolicyConfig:
    """What all learners by policy gradient share."""

    hidden: tuple[PositiveInt, ...] = (64, 64)
    """Widths of the policy's layers."""
    value_hidden: tuple[PositiveInt, ...] | None = None
    """Widths of the layers of the value, if there is one. If unset, those of the policy."""
    activation: Activation = "tanh"
    """Activation of all networks."""
    orthogonal: bool = True
    """Whether initial weights are orthogonal, and small in the policy's last layer, as in PPO's
    code; otherwise uniform as torch's default."""
    discount: PositiveShare | None = None
    """γ. If unset, that of the environment, or 0.99 if it defines none."""
    learning_rate: Rate = 3e-4
    """Step size of the optimiser."""
    last_learning_rate: NonNegativeFloat | None = None
    """Step size at the end, which it approaches linearly; all step sizes change in proportion. If
    unset, they are constant."""
    decay_steps: PositiveInt | None = None
    """Environment steps until the last step size. If unset, those of the run, `--steps`: whoever
    trains the agent tells it (`run_for`). A run that is continued with more steps goes on at the
    step size that the longer run has there."""
    first_std: PositiveFloat = 1.0
    """Initial standard deviation of actions in a box, in half widths of the box."""
    squash: bool = False
    """Whether Gaussian actions go through tanh into the box; otherwise they are clipped to it."""
    gsde: bool = False
    """Whether the noise of actions in a box is a function of the state whose weights stay for many
    steps (gSDE; Raffin et al. 2021). `first_std` is then that of each weight."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(not (self.gsde and not self.hidden), "gsde: needs a hidden layer")
        require(
            self.decay_steps is None or self.last_learning_rate is not None,
            "decay_steps: needs last_learning_rate",
        )


@dataclass(frozen=True)
class ReinforceConfig(PolicyConfig):
    """Settings of REINFORCE."""

    to_go: bool = True
    """Whether each action is weighted by the rewards that follow it; otherwise by those of the
    whole episode."""
    baseline: Literal["none", "mean", "optimal", "value"] = "value"
    """What is subtracted from the returns: the mean over the other episodes, the constant of least
    variance E[g² r] / E[g²], or a learned value of the state."""
    from_start: bool = False
    """Whether discounts count from the start of the episode, which gives the exact gradient of the
    discounted return. Otherwise they count from each action on."""
    normalise: bool = True
    """Whether returns minus baseline are divided by their standard deviation over the batch. Not
    done with the optimal baseline."""
    learning_rate: Rate = 1e-3
    """Adam's step size for the policy."""
    value_learning_rate: Rate = 1e-3
    """Adam's step size for the value."""
    value_updates: PositiveInt = 20
    """Gradient steps of the value at each update."""


@dataclass(frozen=True)
class OffPolicyPGConfig(PolicyConfig):
    """Settings of the off-policy policy gradient."""

    over: Literal["trajectory", "causal", "step"] = "causal"
    """Over which steps importance ratios are multiplied: the whole episode, those up to the action,
    or the action alone."""
    from_start: bool = False
    """Whether discounts count from the start of the episode, as in REINFORCE."""
    updates: PositiveInt = 4
    """Gradient steps from each batch."""
    learning_rate: Rate = 1e-3
    """Adam's step size."""


@dataclass(frozen=True)
class AdvantageConfig(PolicyConfig):
    """What learners by generalised advantage estimates share."""

    trace_decay: Share = 0.95
    """λ of the advantage estimates; 0: one-step errors, 1: whole returns."""
    normalise: bool = True
    """Whether advantages of a batch, or a minibatch, get mean 0 and standard deviation 1."""


@dataclass(frozen=True)
class ActorCriticConfig(AdvantageConfig):
    """Settings of the batch and the online actor-critic."""

    learning_rate: Rate = 1e-3
    """Adam's step size for the policy."""
    value_learning_rate: Rate = 1e-3
    """Adam's step size for the value."""
    value_updates: PositiveInt = 10
    """Gradient steps of the value at each update, before the policy's step."""
    entropy_weight: NonNegativeFloat = 0.0
    """Weight of the entropy in the policy's loss."""
    clip: PositiveFloat | None = 0.5
    """Greatest norm of a gradient. If unset, gradients are not clipped."""


@dataclass(frozen=True)
class OffPolicyActorCriticConfig(PolicyConfig):
    """Settings of the actor-critic that learns from a replay buffer."""

    activation: Activation = "relu"
    """Activation of all networks; a critic of actions learns slowly with tanh."""
    orthogonal: bool = False
    """Whether initial weights are orthogonal; otherwise uniform as torch's default."""
    learning_rate: Rate = 1e-3
    """Adam's step size for the policy."""
    value_learning_rate: Rate = 1e-3
    """Adam's step size for the critic."""
    polyak: PositiveShare = 0.01
    """Share of the critic that goes into its target at each update."""
    samples: PositiveInt = 8
    """Actions drawn in each state for the policy's step. Of two or more, the mean value of the
    others is the baseline of each."""
    entropy_weight: NonNegativeFloat = 0.01
    """Weight of the entropy in the policy's loss."""
    clip: PositiveFloat | None = None
    """Greatest norm of a gradient. If unset, gradients are not clipped."""


@dataclass(frozen=True)
class A2CConfig(AdvantageConfig):
    """Settings of the advantage actor-critic."""

    learning_rate: Rate = 7e-4
    """Step size of the optimiser."""
    optimiser: Literal["rmsprop", "adam"] = "rmsprop"
    """RMSprop as in the paper, or Adam."""
    trace_decay: Share = 1.0
    """λ of the advantage estimates; 1: n-step returns, as in the paper."""
    normalise: bool = False
    """Whether advantages of a batch get mean 0 and standard deviation 1."""
    value_weight: PositiveFloat = 1.0
    """Weight of the value's loss, half the squared error."""
    entropy_weight: NonNegativeFloat = 0.0
    """Weight of the entropy."""
    clip: PositiveFloat | None = 0.5
    """Greatest norm of a gradient. If unset, gradients are not clipped."""


@dataclass(frozen=True)
class TRPOConfig(AdvantageConfig):
    """Settings of trust region policy optimisation; the step size is that of the value."""

    learning_rate: Rate = 1e-3
    """Adam's step size for the value. The policy has none: the KL bound sets its step."""
    max_kl: PositiveFloat = 0.01
    """δ, the greatest mean KL divergence of an update."""
    cg_steps: PositiveInt = 15
    """Iterations of the conjugate gradient."""
    damping: NonNegativeFloat = 0.1
    """What is added to the diagonal of the Fisher matrix."""
    shrink: Share = 0.8
    """Factor between steps that the line search tries."""
    line_search: PositiveInt = 10
    """Steps that the line search tries before it leaves the policy as it is."""
    value_updates: PositiveInt = 10
    """Passes of the value over the batch."""
    batch: PositiveInt = 128
    """Minibatch of the value."""


@dataclass(frozen=True)
class PPOConfig(AdvantageConfig):
    """Settings of proximal policy optimisation."""

    objective: Literal["clip", "penalty", "both"] = "clip"
    """Clipped ratios, a penalty on the KL divergence, or both."""
    clip_range: PositiveFloat = 0.2
    """ε: ratios of probabilities gain nothing beyond 1 ± ε."""
    decay_clip: bool = False
    """Whether ε changes in proportion to the step size."""
    beta: PositiveFloat = 1.0
    """First weight of the KL penalty, which adapts to `penalty_kl`."""
    penalty_kl: PositiveFloat = 0.01
    """KL divergence of an update that the penalty aims at."""
    epochs: PositiveInt = 10
    """Passes over each rollout."""
    batch: PositiveInt = 64
    """Minibatch."""
    value_clip: PositiveFloat | None = None
    """The value's loss counts moves of the value only up to this size. If unset, it is not
    clipped."""
    value_weight: PositiveFloat = 1.0
    """Weight of the value's loss, half the squared error."""
    entropy_weight: NonNegativeFloat = 0.0
    """Weight of the entropy."""
    max_kl: PositiveFloat | None = None
    """The passes end early after a minibatch whose estimated KL divergence is above 1.5 times this.
    If unset, they do not."""
    clip: PositiveFloat | None = 0.5
    """Greatest norm of a gradient. If unset, gradients are not clipped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.decay_clip or self.last_learning_rate is not None,
            "decay_clip: needs last_learning_rate",
        )
