"""Settings of the models that learn, and of their fit.

They are separate from the models because the command's help shows them, and importing torch takes
seconds. A model of your own can have its config in its own file; only its help is then slower.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Interval, MinLen

from mbrl.parts import of_module
from planners.checks import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
    require,
)

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from mbrl.nn import Net


@dataclass(frozen=True)
class FitConfig:
    """Settings of the fit of a network."""

    bootstrap: bool = True
    """Whether each member trains on a bootstrap resample of the data instead of the data itself."""
    row_weights: Literal["none", "exponential"] = "none"
    """Factors of the losses of rows. exponential: drawn in each fit for every row and member from
    the exponential distribution of mean 1, a bootstrap that leaves no row out (Rubin 1981)."""
    batch: PositiveInt = 256
    """Minibatch size of each member."""
    batches_per_epoch: PositiveInt | None = None
    """Most minibatches in a pass over the data, which then ends early; no limit if unset."""
    optimiser: Literal["adam", "adamw"] = "adam"
    """adam adds weight decay to the gradient (L2), adamw subtracts it from the weights."""
    learning_rate: PositiveFloat = 1e-3
    """Learning rate of the optimiser."""
    average: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights over updates, lower in the first ones;
    0 for none. The average is scored and kept instead of the last weights. It has less of the noise
    of minibatches (Polyak and Juditsky 1992)."""
    epochs: PositiveInt = 100
    """Maximum number of passes over the data in one fit."""
    patience: PositiveInt = 10
    """A member stops after this many passes without a better held-out score."""
    stop: Literal["improvement", "paired"] = "improvement"
    """Which score is better: one lower by the fraction `improvement`, or, with paired, one that a
    one-sided paired t-test over held-out rows finds lower. Weights are kept at p < 0.1, and a pass
    with p < 0.5 does not count towards `patience`."""
    improvement: NonNegativeFloat = 0.01
    """Fraction of the best held-out score by which a score must be better to count as better."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class LearnedConfig(ABC):
    """Settings common to all models that are fitted: members, reward, termination.

    What a kind lets its user choose is a field. What is not a field of a kind has the value here.
    """

    MODEL: ClassVar[str] = "mbrl.dynamics.neural:NeuralDynamics"
    """The class that `make` imports and builds."""
    REGRESSION: ClassVar[str] = "mbrl.dynamics.regression:Regression"
    """Likewise `regression`."""

    members: PositiveInt = 5
    """E, the number of functions that predict."""
    learn_reward: bool = False
    """Whether to predict the reward too."""
    learn_termination: bool = False
    """Whether to predict termination too."""
    constants: tuple[NonNegativeInt, ...] | None = None
    """Dimensions of the observation, from 0, that the model keeps as they are, such as a goal that
    jumps at times: steps in which one of them changes are left out of the fit."""
    warm: bool = True
    """Whether a refit starts from the last fit instead of anew."""

    probabilistic: ClassVar[bool] = True
    homoscedastic: ClassVar[bool] = True
    elites: ClassVar[int | None] = None
    normalise: ClassVar[bool] = True
    normalise_targets: ClassVar[bool] = True
    holdout: ClassVar[float] = 0.0
    holdout_max: ClassVar[int] = 0
    bound_weight: ClassVar[float] = 0.0
    beta_nll: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def noise_inputs(self) -> int:
        """How many normal random numbers the net takes as inputs, besides state and action."""
        return 0

    @abstractmethod
    def build(self, inputs: int, outputs: int, *, generator: Generator) -> Net:
        """A net of `members` from (E, B, inputs) to (E, B, outputs)."""

    def make(self, obs_size: int, action_size: int, *, generator: Generator) -> Any:
        """A new `MODEL` for observations (O,) and actions (A,)."""
        kind = of_module("model", self.MODEL)
        return kind(obs_size, action_size, self, generator=generator)

    def regression(self, x_size: int, y_size: int, *, generator: Generator) -> Any:
        """A new `REGRESSION` from x (I,) to y (D,)."""
        kind = of_module("model", self.REGRESSION)
        return kind(x_size, y_size, self, generator=generator)

    @abstractmethod
    def optimise(self, trained: Any, loss: Any, rows: Any, *, generator: Generator) -> Any:
        """Fit a net and its heads to rows in scaled units: inputs, targets, learned terminations.

        `trained` is a `mbrl.dynamics.heads.Trained`, `loss` a `mbrl.dynamics.fitting.Loss` and
        `rows` a `mbrl.dynamics.fitting.Rows`; the result is a `mbrl.dynamics.fitting.Fitted`.
        """


@dataclass(frozen=True)
class NeuralConfig(FitConfig, LearnedConfig):
    """Settings common to all neural models, and of their fit."""

    members: PositiveInt = 5
    """E, the number of nets."""
    probabilistic: bool = True
    """Whether to learn a variance, by Gaussian likelihood, instead of using squared error."""
    homoscedastic: bool = False
    """Whether the learned variance is a constant for each output instead of a function of the
    input."""
    learn_reward: bool = False
    """Whether to predict the reward too."""
    learn_termination: bool = False
    """Whether to predict termination too, by cross-entropy."""
    elites: PositiveInt | None = None
    """Number of members used for predictions, those with the best held-out loss; all if unset."""
    normalise: bool = True
    """Whether to scale inputs and targets to mean 0 and std 1 on the data."""
    normalise_targets: bool = True
    """Whether to scale targets too, with `normalise`. Without, outputs of small size, be they
    changes of the state or the reward, count little in the loss."""
    holdout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Fraction of the data held out for early stopping and ranking members; 0 disables both."""
    holdout_max: PositiveInt = 5000
    """Maximum number of held-out transitions."""
    bound_weight: NonNegativeFloat = 0.01
    """Weight of the penalty on the distance between the two bounds of the log-variance."""
    beta_nll: NonNegativeFloat = 0.0
    """β of the β-NLL (Seitzer et al. 2022), which weights the likelihood by variance^β; 0 for
    none."""
    warm: bool = True
    """Whether a refit starts from the weights of the last fit instead of new ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.elites is not None and self.elites > self.members:
            raise ValueError(f"elites must be in 1..{self.members} (members), got {self.elites}")
        if self.homoscedastic and not self.probabilistic:
            raise ValueError("homoscedastic needs probabilistic: it is a kind of variance")

    def decay(self, net: Net) -> Mapping[Tensor, float]:
        """Weight decay by parameter of the net; parameters that are not listed have none."""
        return {}

    def for_outputs(self, count: int) -> FitConfig:
        """The settings of a fit of D outputs."""
        return self

    def optimise(self, trained: Any, loss: Any, rows: Any, *, generator: Generator) -> Any:
        """Fit a net and its heads to rows in scaled units: inputs, targets, learned terminations.

        This is gradient descent, by `fitting.fit`. Override it for a net that is fitted in another
        way (a posterior in closed form) or that uses the data again after the fit (a Laplace
        approximation).
        """
        decay, config = self.decay(trained.net), self.for_outputs(rows.train[1].shape[-1])
        return trained.fit(loss, rows, config, decay=decay, generator=generator)


@dataclass(frozen=True)
class EnsembleConfig(NeuralConfig):
    """Settings of an ensemble of MLPs and of its fit."""

    MODEL = "mbrl.dynamics.ensemble:Ensemble"

    hidden: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (200, 200, 200, 200)
    """Width of each hidden layer."""
    activation: Literal["silu", "relu", "elu", "mish", "tanh"] = "silu"
    """The function between layers."""
    weight_decay: NonNegativeFloat | tuple[NonNegativeFloat, ...] = 5e-5
    """Penalty on the weights, one number or one per layer (input layer first)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        layers, decay = len(self.hidden) + 1, self.weight_decay
        if isinstance(decay, tuple) and len(decay) != layers:
            raise ValueError(f"weight_decay must be one number or {layers}, got {len(decay)}")

    def build(self, inputs: int, outputs: int, *, generator: Generator) -> Net:
        """A stack of MLPs."""
        from mbrl.nn import StackedMLP

        return StackedMLP(
            self.members,
            (inputs, *self.hidden, outputs),
            activation=self.activation,
            generator=generator,
        )

    def decay(self, net: Net) -> Mapping[Tensor, float]:
        """The decay of each layer's weights; biases have none."""
        from mbrl.nn import StackedMLP

        assert isinstance(net, StackedMLP)
        decay, layers = self.weight_decay, len(net.weights)
        decays = decay if isinstance(decay, tuple) else (decay,) * layers
        return dict(zip(net.weights, decays, strict=True))


@dataclass(frozen=True)
class NormedEnsembleConfig(EnsembleConfig):
    """Settings of the ensemble of DHMBPO (Kubo et al. 2025): layer norm, dropout, constant noise.

    Its fits are long: with D outputs, a member stops after `patience` · ln D passes without a lower
    held-out loss, or after `epochs` · ln D. In predictions nothing is dropped.
    """

    MODEL = "mbrl.dynamics.neural:NeuralDynamics"

    members: PositiveInt = 8
    """E, the number of nets."""
    homoscedastic: bool = True
    """Whether the learned variance is a constant for each output instead of a function of the
    input."""
    hidden: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (256, 256, 256)
    """Width of each hidden layer."""
    bootstrap: bool = False
    """Whether each member trains on a bootstrap resample of the data instead of the data itself."""
    row_weights: Literal["none", "exponential"] = "exponential"
    """Factors of the losses of rows. exponential: drawn in each fit for every row and member from
    the exponential distribution of mean 1, a bootstrap that leaves no row out (Rubin 1981)."""
    batches_per_epoch: PositiveInt | None = 5
    """Most minibatches in a pass over the data, which then ends early; no limit if unset."""
    optimiser: Literal["adam", "adamw"] = "adamw"
    """adam adds weight decay to the gradient (L2), adamw subtracts it from the weights."""
    weight_decay: NonNegativeFloat | tuple[NonNegativeFloat, ...] = 1e-3
    """Penalty on weights and biases: that of the last layer, of which layer l of L has l / L; or
    one number per layer (input layer first)."""
    first_eps: NonNegativeFloat = 1.0
    """ε of the layer norm before the second layer, a tenth of it before the third, and so on; 0:
    no norm."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    """Share of dropped units before the activation; layer l of L has 1 - l / L of it."""
    stop: Literal["improvement", "paired"] = "paired"
    """Which score is better: one lower by the fraction `improvement`, or, with paired, one that a
    one-sided paired t-test over held-out rows finds lower. Weights are kept at p < 0.1, and a pass
    with p < 0.5 does not count towards `patience`."""
    patience: PositiveInt = 50
    """A member stops after this many passes, times ln D, without a better held-out score."""
    epochs: PositiveInt = 250
    """Maximum number of passes over the data in one fit, before it is multiplied by ln D."""
    holdout: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    """Fraction of the data held out for early stopping and ranking members; 0 disables both."""
    holdout_max: PositiveInt = 1000
    """Maximum number of held-out transitions."""

    def build(self, inputs: int, outputs: int, *, generator: Generator) -> Net:
        """A stack of MLPs that normalise the inputs of their later layers."""
        from mbrl.nn import NormedMLP

        layers = len(self.hidden) + 1
        eps = [max(self.first_eps * 0.1**layer, 1e-5) for layer in range(layers - 1)]
        return NormedMLP(
            self.members,
            (inputs, *self.hidden, outputs),
            eps=(0.0, *(eps if self.first_eps else [0.0] * (layers - 1))),
            dropout=[self.dropout * (1 - (layer + 1) / layers) for layer in range(layers)],
            activation=self.activation,
            generator=generator,
        )

    def decay(self, net: Net) -> Mapping[Tensor, float]:
        """The decay of each layer's weights and biases."""
        from mbrl.nn import NormedMLP

        assert isinstance(net, NormedMLP)
        layers, decay = len(net.weights), self.weight_decay
        if not isinstance(decay, tuple):
            decay = tuple(decay * (layer + 1) / layers for layer in range(layers))
        weights, biases = (zip(part, decay, strict=True) for part in (net.weights, net.biases))
        return dict([*weights, *biases])

    def for_outputs(self, count: int) -> FitConfig:
        """Patience and passes are in units of ln D."""
        unit = max(math.log(count), 1.0)
        patience, epochs = (max(round(unit * x), 1) for x in (self.patience, self.epochs))
        return replace(self, patience=patience, epochs=epochs)


@dataclass(frozen=True)
class ConditionalConfig(NeuralConfig):
    """Settings of an ensemble of conditional variational autoencoders (Sohn et al. 2015).

    They tell modes of the next state apart, between which other models predict the mean.
    """

    MODEL = "mbrl.dynamics.conditional:ConditionalDynamics"
    NET: ClassVar[str] = "mbrl.dynamics.conditional:ConditionalNet"
    LOSS: ClassVar[str] = "mbrl.dynamics.conditional:conditional_loss"

    homoscedastic: bool = True
    """Whether the learned variance is a constant for each output instead of a function of the
    input."""
    latent: PositiveInt = 2
    """Z, the number of latent variables."""
    samples: PositiveInt = 8
    """M, samples of the latent variables in the bound (Burda et al. 2016). With 1, each outcome
    keeps its samples far from those of the others, and some of the prior lies in between."""
    beta: NonNegativeFloat = 1.0
    """Weight of the divergence between posterior and prior, with one sample."""
    free_bits: NonNegativeFloat = 0.0
    """Nats of the divergence of each latent variable that cost nothing, with one sample."""
    draws: PositiveInt = 16
    """Values of the latent variables over which means and variances are taken."""
    hidden: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (128, 128)
    """Width of each hidden layer of prior, posterior and decoder."""
    activation: Literal["silu", "relu", "elu", "mish", "tanh"] = "silu"
    """The function between layers."""
    epochs: PositiveInt = 300
    """Maximum number of passes over the data in one fit."""
    patience: PositiveInt = 30
    """A member stops after this many passes without a better held-out score."""
    improvement: NonNegativeFloat = 0.001
    """Fraction of the best held-out score by which a score must be better to count as better."""

    def __post_init__(self) -> None:
        super().__post_init__()
        weighted = self.beta != 1 or self.free_bits != 0
        require(
            self.samples == 1 or not weighted,
            f"beta, free_bits: the bound of {self.samples} samples has neither; want samples 1",
        )

    @property
    def noise_inputs(self) -> int:
        """Z."""
        return self.latent

    def build(self, inputs: int, outputs: int, *, generator: Generator) -> Net:
        """Networks of the prior, the posterior and the decoder."""
        heads = 2 if self.probabilistic and not self.homoscedastic else 1
        targets = (outputs - self.learn_termination) // heads
        net = of_module("network", self.NET)
        return net(self, inputs, targets, outputs, generator=generator)

    def optimise(self, trained: Any, loss: Any, rows: Any, *, generator: Generator) -> Any:
        """Maximise the bound by gradient descent."""
        own = of_module("loss", self.LOSS)(self)
        return super().optimise(trained, own, rows, generator=generator)
