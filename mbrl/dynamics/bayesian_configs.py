"""Settings of Bayesian models, whose members are samples of the weights or of the function.

No torch is imported, so the command's help is quick.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Interval, MinLen

from mbrl.dynamics.configs import LearnedConfig, NeuralConfig
from mbrl.parts import of_module, require_extra
from planners.checks import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Rounds,
    require,
)

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.nn import Net


@dataclass(frozen=True)
class BayesianConfig(NeuralConfig):
    """What all Bayesian networks share: E members are E samples of the weights of an MLP."""

    MODEL = "mbrl.dynamics.neural:NeuralDynamics"
    NET: ClassVar[str]
    """The class that `build` imports and makes of a config, sizes and a generator."""

    members: PositiveInt = 5
    """E, the number of samples of the weights that predict."""
    bootstrap: bool = False
    """Whether the network trains on a bootstrap resample of the data instead of the data itself."""
    epochs: PositiveInt = 300
    """Maximum number of passes over the data in one fit."""
    patience: PositiveInt = 30
    """The fit ends after this many passes without a better held-out score."""
    improvement: NonNegativeFloat = 0.001
    """Fraction of the best held-out score by which a score must be better to count as better."""
    hidden: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (200, 200, 200, 200)
    """Width of each hidden layer."""
    activation: Literal["silu", "relu", "elu", "mish", "tanh"] = "silu"
    """The function between layers."""

    def build(self, inputs: int, outputs: int, *, generator: Generator) -> Net:
        """A new `NET`."""
        kind = of_module("network", self.NET)
        return kind(self, self.sizes(inputs, outputs), generator=generator)

    def sizes(self, inputs: int, outputs: int) -> tuple[int, ...]:
        """Widths of all layers."""
        return (inputs, *self.hidden, outputs)


@dataclass(frozen=True)
class BayesByBackpropConfig(BayesianConfig):
    """Settings of Bayes by backprop (Blundell et al. 2015): independent Gaussian weights."""

    NET = "mbrl.dynamics.bayes_by_backprop:VariationalMLP"

    prior: Literal["gaussian", "mixture"] = "gaussian"
    """Prior of each weight: a Gaussian, or the mixture of two (Blundell et al., equation 7)."""
    prior_std: PositiveFloat = 2.0
    """Std of the prior of biases; that of weights is divided by the root of the layer's inputs."""
    narrow_share: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Of the mixture: share of the narrow Gaussian."""
    narrow_std: PositiveFloat = 0.05
    """Of the mixture: std of the narrow Gaussian, relative to that of the wide one."""
    first_std: PositiveFloat = 0.05
    """Initial std of the weights, relative to that of the prior."""
    kl_weight: NonNegativeFloat = 1.0
    """Factor of the divergence from the prior; below 1 the posterior is colder than Bayes'."""
    kl_warmup: NonNegativeInt = 0
    """Updates over which this factor grows linearly from 0."""


@dataclass(frozen=True)
class DropoutConfig(BayesianConfig):
    """Settings of MC dropout (Gal and Ghahramani 2016): a sample is an MLP with dropped units."""

    NET = "mbrl.dynamics.dropout:DropoutMLP"

    dropout: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    """Share of hidden units that is dropped; the initial one with `concrete`."""
    input_dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of inputs that is dropped; 0 also with `concrete` keeps them all."""
    concrete: bool = False
    """Whether the shares are learned, one for each layer (concrete dropout; Gal et al. 2017)."""
    temperature: PositiveFloat = 0.1
    """Of concrete dropout's relaxed masks, which are 0 or 1 as it goes to 0."""
    prior_std: PositiveFloat = 2.0
    """Std of the prior of biases; that of weights is divided by the root of the layer's inputs."""


@dataclass(frozen=True)
class AnchoredConfig(BayesianConfig):
    """Settings of anchored ensembles (Pearce et al. 2020): E MAP estimates, each with a prior of
    its own, whose mean is a sample of the prior."""

    prior_std: PositiveFloat = 2.0
    """Std of the prior of biases; that of weights is divided by the root of the layer's inputs."""

    def build(self, inputs: int, outputs: int, *, generator: Generator) -> Net:
        """A stack of MLPs, each with the weights that it is drawn to."""
        from mbrl.dynamics.prior import PriorMLP

        return PriorMLP(
            self.members,
            self.sizes(inputs, outputs),
            prior_std=self.prior_std,
            activation=self.activation,
            anchored=True,
            generator=generator,
        )


@dataclass(frozen=True)
class PosteriorConfig(BayesianConfig):
    """What methods share that fit networks by gradient descent and sample weights near them."""

    networks: PositiveInt = 1
    """K, networks that are fitted from different initial weights. Samples are spread over them."""
    prior_std: PositiveFloat = 2.0
    """Std of the prior of biases; that of weights is divided by the root of the layer's inputs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.members % self.networks == 0,
            f"members: want a multiple of the {self.networks} networks, got {self.members}",
        )

    def optimise(self, trained: Any, loss: Any, rows: Any, *, generator: Generator) -> Any:
        """Fit the networks, and find the posterior around them."""
        return trained.net.fit(trained, loss, rows, generator=generator)


@dataclass(frozen=True)
class SwagConfig(PosteriorConfig):
    """Settings of SWAG (Maddox et al. 2019), and with several networks of MultiSWAG (Wilson and
    Izmailov 2020)."""

    NET = "mbrl.dynamics.swag:SwagMLP"

    swag_epochs: PositiveInt = 40
    """Passes of gradient descent at a constant step size, after the fit, whose iterates count."""
    swag_learning_rate: PositiveFloat = 3e-3
    """Its step size, which is halved where the descent leaves the fit."""
    swag_momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Its momentum."""
    swag_every: PositiveInt = 1
    """Iterates are taken every so many updates."""
    rank: Annotated[int, Interval(ge=2, le=10_000)] = 20
    """Number of last iterates, one a pass, whose deviations make the covariance's low-rank half."""
    scale: PositiveShare = 1.0
    """Factor of the covariance."""


@dataclass(frozen=True)
class LaplaceConfig(PosteriorConfig):
    """Settings of the last-layer Laplace approximation (Daxberger et al. 2021)."""

    NET = "mbrl.dynamics.laplace:LaplaceMLP"

    tune_prior: bool = True
    """Whether the precision of the last layer's prior is that of the greatest evidence, for each
    target; otherwise it is that of `prior_std`."""
    tune_noise: bool = True
    """Whether a homoscedastic variance is that of the greatest evidence, too."""


@dataclass(frozen=True)
class ChainConfig(PosteriorConfig):
    """What samplers by Markov chains share. There is a chain for each network."""

    @property
    @abstractmethod
    def kept(self) -> int:
        """M, samples of each chain."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.members <= self.networks * self.kept,
            f"members: there are {self.networks * self.kept} samples, got {self.members}",
        )


@dataclass(frozen=True)
class SgmcmcConfig(ChainConfig):
    """Settings of cyclical stochastic-gradient Hamiltonian Monte Carlo (Zhang et al. 2020)."""

    NET = "mbrl.dynamics.sgmcmc:SgmcmcMLP"

    cycles: PositiveInt = 4
    """Number of cycles."""
    cycle_steps: PositiveInt = 2000
    """Updates of a cycle."""
    cycle_samples: PositiveInt = 10
    """Samples of a cycle, evenly spaced over its sampling phase."""
    exploration: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    """Share of a cycle, at its start, in which no noise is added."""
    step_size: PositiveFloat = 1e-4
    """Greatest step size of a cycle, times the number of rows."""
    friction: PositiveShare = 0.1
    """Share of the velocity that is lost in an update; 1 is Langevin dynamics."""
    largest: PositiveFloat = 1e3
    """A chain with a larger weight is restarted from its last sample."""

    @property
    def kept(self) -> int:
        """M, samples of each chain."""
        return self.cycles * self.cycle_samples

    def __post_init__(self) -> None:
        super().__post_init__()
        phase = self.cycle_steps - round(self.exploration * self.cycle_steps)
        require(
            self.cycle_samples <= phase,
            f"cycle_samples: the sampling phase has {phase} updates, got {self.cycle_samples}",
        )


@dataclass(frozen=True)
class LangevinConfig(ChainConfig):
    """Settings of ensembles of microcanonical Langevin chains (Sommer et al. 2025)."""

    NET = "mbrl.dynamics.langevin:LangevinMLP"

    hidden: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (16, 16, 16)
    """Width of each hidden layer."""
    networks: PositiveInt = 5
    """K, networks that are fitted from different initial weights. Samples are spread over them."""
    tuning_steps: PositiveInt = 5000
    """Steps that set the step size and L, and are then thrown away."""
    length_share: Annotated[float, Interval(gt=0, le=1)] = 0.4
    """Share of these steps, the last ones, that set L."""
    samples: PositiveInt = 100
    """M, samples of each chain."""
    thin: PositiveInt = 10
    """Steps from one sample to the next."""
    energy_error: PositiveFloat = 5e-4
    """Variance of the energy's error in a step, for each dimension: it sets the step size."""
    first_length: PositiveFloat = 1.0
    """First L, over sqrt(P)."""
    largest_error: PositiveFloat = 10.0
    """A step whose energy is wrong by more, for each dimension, is taken back."""

    @property
    def kept(self) -> int:
        """M, samples of each chain."""
        return self.samples


@dataclass(frozen=True)
class GPConfig(LearnedConfig):
    """Settings of Gaussian processes (Rasmussen and Williams 2006): exact ones, an output each."""

    MODEL = "mbrl.dynamics.gp:GPDynamics"
    REGRESSION = "mbrl.dynamics.gp:GPRegression"

    members: PositiveInt = 5
    """E, the number of functions drawn from the posterior that predict."""
    learn_termination: bool = False
    """Whether to predict termination too, by least squares on 0 and 1."""
    warm: bool = True
    """Whether a refit starts from the hyperparameters of the last fit instead of the first ones."""
    kernel: Literal["se", "matern52"] = "se"
    """The prior's covariance: the squared exponential, which has moments in closed form, or the
    Matérn kernel of order 5/2; each input has a length scale of its own."""
    points: Annotated[int, Interval(ge=1, le=10_000)] = 1000
    """Most rows that predict: of more, each fit draws a random subset. Predictions take time in
    proportion to their number, and a fit to its cube."""
    tuning_points: Annotated[int, Interval(ge=1, le=10_000)] = 300
    """Most of these rows by which hyperparameters are found."""
    iterations: Rounds = 60
    """Most iterations of L-BFGS for each output's hyperparameters."""
    least_noise: Annotated[float, Interval(ge=1e-4, le=1)] = 0.01
    """Least std of the noise, in scaled units."""
    frequencies: PositiveInt = 128
    """Random frequencies of the prior of each function drawn."""

    def build(self, inputs: int, outputs: int, *, generator: Generator) -> Net:
        """Gaussian processes that predict their prior until they are fitted.

        Raises:
            ModuleNotFoundError: GPyTorch is not installed; the message says what to install.
        """
        require_extra("gpytorch", "gp")
        kind = of_module("network", "mbrl.dynamics.gaussian_processes:GaussianProcesses")
        return kind(self, inputs, outputs, generator=generator)

    def optimise(self, trained: Any, loss: Any, rows: Any, *, generator: Generator) -> Any:
        """Find the hyperparameters of greatest marginal likelihood, and the posterior.

        Raises:
            ValueError: weights of rows, which this fit does not have.
        """
        alike = rows.weights is None
        require(alike, "weights must be None: Gaussian processes take all rows alike")
        return trained.net.fit(trained.heads, rows.train, generator=generator)
