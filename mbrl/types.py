"""The types everything meets at. Read this screen first.

Letters for dimensions: E members, P particles, N candidates or start states, H horizon,
B minibatch, T real time steps, O observation, S model state, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse
from torch import Generator, Tensor

Metrics = Mapping[str, float]


class Transition(NamedTuple):
    """Environment steps with any leading dimensions: (B,), (T,), (P, N, H)."""

    obs: Float[Tensor, "*lead O"]
    action: Float[Tensor, "*lead A"]
    reward: Float[Tensor, "*lead"]
    next_obs: Float[Tensor, "*lead O"]
    terminated: Bool[Tensor, "*lead"]


class Step(NamedTuple):
    """One sampled step of every member."""

    state: Float[Tensor, "E B S"]
    reward: Float[Tensor, "E B"]
    terminated: Bool[Tensor, "E B"]


class Gaussian(NamedTuple):
    """A diagonal Gaussian: mean and standard deviation of the same shape."""

    mean: Tensor
    std: Tensor


@runtime_checkable
class Dynamics(Protocol):
    """E members, any of which can take a step."""

    @property
    def members(self) -> int:
        """E."""
        ...

    def encode(self, obs: Float[Tensor, "*lead O"]) -> Float[Tensor, "*lead S"]:
        """Model state of an observation; the identity unless the model is latent."""
        ...

    def decode(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead O"]:
        """Observation of a model state; the identity unless the model is latent."""
        ...

    def step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        *,
        noise: Float[Tensor, "E B S"] | None,
    ) -> Step:
        """One step of each member; `noise` is standard normal, None takes the mean."""
        ...


@runtime_checkable
class GaussianDynamics(Dynamics, Protocol):
    """A model that can also say the Gaussian it draws from."""

    def predict(self, state: Float[Tensor, "E B S"], action: Float[Tensor, "E B A"]) -> Gaussian:
        """Mean and std of next state and reward, each (E, B, S + 1)."""
        ...


class Unrolled(NamedTuple):
    """What candidates earn over a whole horizon, step by step."""

    reward: Float[Tensor, "P N H"]
    terminated: Bool[Tensor, "P N H"] | None  # None where nothing ever ends
    finite: Bool[Tensor, "P N"] | None  # False where the model blew up; None where it did nowhere


@runtime_checkable
class NativeDynamics(Dynamics, Protocol):
    """A model that rolls whole action sequences itself, faster than step by step."""

    @property
    def noise_size(self) -> int:
        """D, random numbers in a step; 0 for a model without noise."""
        ...

    def unroll(
        self,
        state: Float[Tensor, S],
        actions: Float[Tensor, "N H A"],
        *,
        particles: int,
        noise: Float[Tensor, "H P D"] | None,
        reward: RewardFn | None,
        terminated: TerminatedFn | None,
    ) -> Unrolled:
        """All candidates from one state; particle p belongs to member p // (P / E)."""
        ...


class FiniteMDP(Protocol):
    """A known MDP of S states and A actions."""

    @property
    def transitions(self) -> sparse.csr_array:
        """(S · A, S), row s · A + a the distribution of the next state; empty where terminal."""
        ...

    @property
    def rewards(self) -> np.ndarray:
        """(S, A), expected; 0 where terminal."""
        ...

    @property
    def discount(self) -> float:
        """γ, in [0, 1]."""
        ...

    @property
    def terminal(self) -> np.ndarray:
        """(S,) bool."""
        ...


RewardFn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`reward(obs, action, next_obs) -> (...)`, any leading dimensions."""

TerminatedFn = Callable[[Tensor], Tensor]
"""`terminated(next_obs) -> (...)` bool, any leading dimensions."""


@runtime_checkable
class Learner(Protocol):
    """A policy that improves from batches."""

    def act(self, obs: Tensor, *, explore: bool, generator: Generator) -> Tensor:
        """Actions (N, A) for observations (N, O)."""
        ...

    def update(self, batch: Transition, *, generator: Generator) -> Metrics:
        """One update from a batch of B transitions."""
        ...


@runtime_checkable
class Agent(Protocol):
    """What the online loop drives; it owns its buffers and its schedule."""

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """One action (A,) for one observation (O,)."""
        ...

    def observe(self, step: Transition, *, truncated: bool) -> None:
        """One real transition, without leading dimensions."""
        ...

    def update(self) -> Metrics:
        """Learn if something is due; {} when nothing is."""
        ...
