"""Ensembles of probabilistic (or deterministic) neural networks.

Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation using deep
ensembles"; Chua et al. 2018, "Deep reinforcement learning in a handful of trials using
probabilistic dynamics models" (PETS): each member predicts a diagonal Gaussian over the change
of the observation, its log-variance softly held between learned bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Generator, Tensor

from mbrl.checks import NonNegativeFloat, PositiveInt
from mbrl.dynamics.neural import NeuralConfig, NeuralDynamics
from mbrl.nn import ACTIVATIONS, Net, StackedMLP


@dataclass(frozen=True)
class EnsembleConfig(NeuralConfig):
    """How the nets look and how they are fitted."""

    hidden: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (200, 200, 200, 200)
    """Width of each hidden layer."""
    activation: str = "silu"
    """silu, relu, elu or tanh."""
    weight_decay: NonNegativeFloat | tuple[NonNegativeFloat, ...] = 5e-5
    """Penalty on the weights, one number or one per layer (input layer first)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        layers, decay = len(self.hidden) + 1, self.weight_decay
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is not one of {[*ACTIVATIONS]}")
        if isinstance(decay, tuple) and len(decay) != layers:
            raise ValueError(f"weight_decay must be one number or {layers}, got {len(decay)}")

    def build(self, inputs: int, outputs: int, *, generator: Generator) -> Net:
        """A stack of MLPs."""
        return StackedMLP(
            self.members,
            (inputs, *self.hidden, outputs),
            activation=self.activation,
            generator=generator,
        )

    def make(
        self,
        obs_size: int,
        action_size: int,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> Ensemble:
        """A fresh ensemble of observations (O,) and actions (A,)."""
        return Ensemble(obs_size, action_size, self, generator=generator).to(device)

    def decay(self, net: Net) -> Mapping[Tensor, float]:
        """The decay of each layer's weights; biases have none."""
        assert isinstance(net, StackedMLP)
        decay, layers = self.weight_decay, len(net.weights)
        decays = decay if isinstance(decay, tuple) else (decay,) * layers
        return dict(zip(net.weights, decays, strict=True))


class Ensemble(NeuralDynamics):
    """A `NeuralDynamics` of E independent MLPs, by default PETS's."""

    net: StackedMLP

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        config: EnsembleConfig | None = None,
        *,
        generator: Generator,
    ) -> None:
        super().__init__(obs_size, action_size, config or EnsembleConfig(), generator=generator)
