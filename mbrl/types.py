"""The types everything meets at. Read this screen first.

Letters for dimensions: E members, P particles, N candidates, start states or environments, H
horizon, B minibatch, T real time steps, O observation, S model state, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import sparse
from torch import Generator, Tensor

if TYPE_CHECKING:
    import gymnasium

    from planners import MPC, Smooth

Metrics = Mapping[str, float]

RewardFn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`reward(obs, action, next_obs) -> (...)`, any leading dimensions."""

TerminatedFn = Callable[[Tensor], Tensor]
"""`terminated(next_obs) -> (...)` bool, any leading dimensions."""


class Transition(NamedTuple):
    """Environment steps with any leading dimensions: (B,), (T,), (N,), (P, N, H).

    `terminated` is the MDP's end, `truncated` the clock's; only the first stops bootstrapping.
    Observations and actions are vectors, or whatever the spaces hold: indices, images.
    """

    obs: Shaped[Tensor, "*lead O"]
    action: Shaped[Tensor, "*lead A"]
    reward: Float[Tensor, "*lead"]
    next_obs: Shaped[Tensor, "*lead O"]
    terminated: Bool[Tensor, "*lead"]
    truncated: Bool[Tensor, "*lead"]


class Spec(NamedTuple):
    """What an agent is told of its world."""

    obs: gymnasium.Space
    action: gymnasium.Space
    reward: RewardFn | None = None  # None: not known as a function, to be learned
    terminated: TerminatedFn | None = None  # None: it never ends, or when is to be learned
    ends: bool = True  # episodes may terminate, and when is not known as a function
    episode_steps: int | None = None  # after which an episode is truncated
    discount: float | None = None  # the world's own γ, where it has one


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

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the random numbers that one row's step takes; (0,) for a model without noise."""
        ...

    def encode(
        self,
        obs: Float[Tensor, "*lead O"],
        *,
        state: Float[Tensor, "*lead S"] | None = None,
        action: Float[Tensor, "*lead A"] | None = None,
    ) -> Float[Tensor, "*lead S"]:
        """Model state of an observation.

        A model with memory filters: it takes the state before and the action that led here; None
        where an episode begins. Others leave both out of account.
        """
        ...

    def decode(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead O"]:
        """Observation of a model state. It is asked only where a function of observations is
        given, so a model that learned its reward and termination need not be able to."""
        ...

    def step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        *,
        noise: Float[Tensor, "E B *noise_shape"] | None,
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

    def unroll(
        self,
        state: Float[Tensor, S],
        actions: Float[Tensor, "N H A"],
        *,
        particles: int,
        noise: Float[Tensor, "H P *noise_shape"] | None,
        reward: RewardFn | None,
        terminated: TerminatedFn | None,
    ) -> Unrolled:
        """All candidates from one state; particle p belongs to member p // (P / E)."""
        ...


@runtime_checkable
class SmoothDynamics(Protocol):
    """A model with derivatives, for planners that need more than a score."""

    def smooth(
        self, state: Float[Tensor, S], *, action_repeat: int, reward: RewardFn | None
    ) -> Smooth:
        """Dynamics and cost from a state; each action is held for `action_repeat` steps."""
        ...


@runtime_checkable
class DistinctWorlds(Protocol):
    """A model whose members are different worlds; those of others are estimates of one world."""

    nominal: int
    """The member that is the real world."""


@runtime_checkable
class OwnThreads(Protocol):
    """A model that may step on threads of its own; others use torch's."""

    own_threads: bool
    """Whether it does, so that torch should leave it the cores."""


@runtime_checkable
class Scaled(Protocol):
    """A model that says the size of its states, for distances between them."""

    scale: Float[Tensor, S]
    """The unit of each dimension, such as its std in the data."""


class Outcomes(NamedTuple):
    """The possible outcomes of a step of each member, at most C of them; others have chance 0."""

    state: Float[Tensor, "E B C S"]
    reward: Float[Tensor, "E B"]
    terminated: Bool[Tensor, "E B C"]
    chance: Float[Tensor, "E B C"]


@runtime_checkable
class Enumerable(Dynamics, Protocol):
    """A model that lists what may follow an action, with probabilities."""

    @property
    def most_outcomes(self) -> int:
        """C, the most outcomes that any action has."""
        ...

    def outcomes(self, state: Float[Tensor, "E B S"], action: Float[Tensor, "E B A"]) -> Outcomes:
        """All outcomes of one step of each member."""
        ...


@runtime_checkable
class Fittable(Protocol):
    """A model that learns from data."""

    def fit(self, data: Transition, *, generator: Generator) -> Metrics:
        """Fit to transitions (T,); what is said of the fit has numbers alone."""
        ...


@runtime_checkable
class Resampled(Protocol):
    """A model whose members are samples of its weights."""

    def resample(self, *, generator: Generator) -> None:
        """Draw E fresh samples; they stay until the next call."""
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


@runtime_checkable
class ArrivalRewards(Protocol):
    """An MDP whose rewards may depend on the next state, too."""

    arrival: sparse.csr_array | None
    """One reward for each of the nonzero `transitions`; None if they do not."""


class Policy(Protocol):
    """Acts on model states; differentiable where it can be."""

    def __call__(
        self, state: Float[Tensor, "*lead S"], *, generator: Generator, explore: bool
    ) -> Shaped[Tensor, "*lead A"]:
        """Actions; with `explore` drawn as in training, without the best it knows."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A policy that improves from batches and knows not where they come from."""

    @property
    def policy(self) -> Policy:
        """The policy as it stands."""
        ...

    def update(self, batch: Transition, *, generator: Generator) -> Metrics:
        """One update from a batch of B transitions; `obs` and `next_obs` are model states.

        ValueError for wrong shapes and for numbers that are not finite; nothing has then changed.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that it has learned, as one nested dict of tensors and plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; ValueError where it is another learner's."""
        ...


@runtime_checkable
class Player(Protocol):
    """Plays episodes in N environments at once."""

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A) for observations (N, *O)."""
        ...

    def reset(self, begins: np.ndarray) -> None:
        """Episodes begin in the environments where `begins` (N,) is True."""
        ...


@runtime_checkable
class PlanningPlayer(Player, Protocol):
    """A player that plans."""

    @property
    def each(self) -> Sequence[Any]:
        """One `mbrl.agents.Controller` an environment, of those it has acted in."""
        ...


@runtime_checkable
class Agent(Protocol):
    """What the training loop drives: it owns buffers and schedule, and acts in N environments."""

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A) for observations (N, *O)."""
        ...

    def observe(self, step: Transition) -> None:
        """N real transitions, one an environment; `next_obs` is the final one at an end."""
        ...

    def update(self) -> Metrics:
        """Learn if something is due; {} when nothing is."""
        ...

    def player(self, *, generator: Generator) -> Player:
        """Plays evaluation episodes with randomness of its own; it shares what was learned."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The whole agent, as one nested dict of tensors and plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; ValueError where it is another agent's."""
        ...


@runtime_checkable
class ModelBased(Protocol):
    """An agent that has a model of its world, for whoever wants to plan through it or judge it."""

    model: Any
    """A `Dynamics`."""
    reward: RewardFn | None
    """None: the model's own."""
    terminated: TerminatedFn | None
    """None: the model's own."""
    fits: int
    """How often the model was fitted."""


@runtime_checkable
class PlanningAgent(Protocol):
    """An agent that plans through its model."""

    mpc: MPC
    config: Any
    """`config.mpc` is the `MPCConfig` of `mpc`."""
