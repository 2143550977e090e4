"""The types and protocols that all parts share. Read this file first.

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

    `terminated`: the MDP ended; `truncated`: a time limit cut the episode off. Only termination
    stops bootstrapping. Observations and actions are vectors, or what the spaces contain: indices,
    images.
    """

    obs: Shaped[Tensor, "*lead O"]
    action: Shaped[Tensor, "*lead A"]
    reward: Float[Tensor, "*lead"]
    next_obs: Shaped[Tensor, "*lead O"]
    terminated: Bool[Tensor, "*lead"]
    truncated: Bool[Tensor, "*lead"]


class Goal(NamedTuple):
    """Where observations hold goals, and the reward as a function of them."""

    achieved: slice  # of an observation (O,): the goal that its state achieves
    desired: slice  # of an observation (O,): the goal of the episode
    reward: Callable[[Tensor, Tensor], Tensor]  # of achieved and desired goals (B, G): (B,)
    terminated: Callable[[Tensor, Tensor], Tensor] | None  # likewise; None: not known


class Spec(NamedTuple):
    """What an agent is told about its environment."""

    obs: gymnasium.Space
    action: gymnasium.Space
    reward: RewardFn | None = None  # None: not known as a function, to be learned
    terminated: TerminatedFn | None = None  # None: not known as a function; see `ends`
    ends: bool = True  # episodes may terminate and `terminated` is None: to be learned
    episode_steps: int | None = None  # number of steps after which an episode is truncated
    discount: float | None = None  # γ, if the environment defines one
    goal: Goal | None = None  # None: the reward is not known as a function of goals


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
        """Shape of the random numbers of one row's step; (0,) for a model without noise."""
        ...

    def encode(
        self,
        obs: Float[Tensor, "*lead O"],
        *,
        state: Float[Tensor, "*lead S"] | None = None,
        action: Float[Tensor, "*lead A"] | None = None,
    ) -> Float[Tensor, "*lead S"]:
        """Model state of an observation.

        A model with memory filters: it uses the previous state and the action taken in it, both
        None at the start of an episode. Other models ignore both.
        """
        ...

    def decode(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead O"]:
        """Observation of a model state.

        Called only if reward or termination is given as a function of observations, so a model
        that learns both itself need not support it.
        """
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
    """A model whose next state and reward are Gaussian, with mean and std available."""

    def predict(self, state: Float[Tensor, "E B S"], action: Float[Tensor, "E B A"]) -> Gaussian:
        """Mean and std of next state and reward, each (E, B, S + 1)."""
        ...


class Unrolled(NamedTuple):
    """Rewards and terminations of candidates at each step of a horizon."""

    reward: Float[Tensor, "P N H"]
    terminated: Bool[Tensor, "P N H"] | None  # None if nothing ever terminates
    finite: Bool[Tensor, "P N"] | None  # False: the state became NaN or infinite; None: never


@runtime_checkable
class NativeDynamics(Dynamics, Protocol):
    """A model that rolls out whole action sequences itself, faster than step by step."""

    def unroll(
        self,
        state: Float[Tensor, " S"],
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
        self, state: Float[Tensor, " S"], *, action_repeat: int, reward: RewardFn | None
    ) -> Smooth:
        """Dynamics and cost from a state; each action is held for `action_repeat` steps."""
        ...


@runtime_checkable
class DistinctWorlds(Protocol):
    """A model whose members are different worlds; members of other models estimate one world."""

    nominal: int
    """Index of the member that stands for the real world."""


@runtime_checkable
class OwnThreads(Protocol):
    """A model that may step on threads that are not torch's."""

    own_threads: bool
    """Whether it does, so that torch should use only one thread meanwhile."""


@runtime_checkable
class Scaled(Protocol):
    """A model with a unit for each dimension of its state, for distances between states."""

    scale: Float[Tensor, " S"]
    """The units, such as the std of each dimension in the data."""


class Outcomes(NamedTuple):
    """The possible outcomes of a step of each member, padded to C with outcomes of chance 0."""

    state: Float[Tensor, "E B C S"]
    reward: Float[Tensor, "E B"]
    terminated: Bool[Tensor, "E B C"]
    chance: Float[Tensor, "E B C"]


@runtime_checkable
class Enumerable(Dynamics, Protocol):
    """A model that lists the possible outcomes of an action with their probabilities."""

    @property
    def most_outcomes(self) -> int:
        """C, the largest number of outcomes of any action."""
        ...

    def outcomes(self, state: Float[Tensor, "E B S"], action: Float[Tensor, "E B A"]) -> Outcomes:
        """All outcomes of one step of each member."""
        ...


@runtime_checkable
class Fittable(Protocol):
    """A model that learns from data."""

    def fit(self, data: Transition, *, generator: Generator) -> Metrics:
        """Fit to transitions (T,); returns metrics of the fit, all of them numbers."""
        ...


class Sequences(Protocol):
    """Data from which sequences of consecutive steps are drawn, such as a `SequenceReplay`."""

    def __len__(self) -> int:
        """How many transitions there are."""
        ...

    def sequences(self, batch: int, length: int, *, generator: Generator) -> Transition:
        """`batch` sequences of `length` steps of one episode each, (B, L, ...).

        Raises ValueError if there is no episode of so many steps.
        """
        ...


@runtime_checkable
class Resampled(Protocol):
    """A model whose members are samples of its weights."""

    def resample(self, *, generator: Generator) -> None:
        """Draw E fresh samples; they stay until the next call."""
        ...


@runtime_checkable
class Postprocessed(Protocol):
    """A model whose imagined particles are corrected by how many steps ahead they are."""

    def postprocess(self, steps: int, state: Float[Tensor, "P n S"]) -> Float[Tensor, "P n S"]:
        """States `steps` (1, 2, ...) steps after one start, as rewards and results see them.

        The next step goes on from the states that are not corrected.
        """
        ...


class FiniteMDP(Protocol):
    """A known MDP of S states and A actions."""

    @property
    def transitions(self) -> sparse.csr_array:
        """(S · A, S): row s · A + a is the next state's distribution; empty if s is terminal."""
        ...

    @property
    def rewards(self) -> np.ndarray:
        """(S, A), expected rewards; 0 in terminal states."""
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
    """One reward for each of the nonzero `transitions`; None if rewards do not depend on it."""


class Policy(Protocol):
    """Acts on model states; differentiable if possible."""

    def __call__(
        self, state: Float[Tensor, "*lead S"], *, generator: Generator, explore: bool
    ) -> Shaped[Tensor, "*lead A"]:
        """Actions: drawn as in training if `explore`, else those the policy rates best."""
        ...


@runtime_checkable
class Learner(Protocol):
    """Improves a policy from batches, whatever the source of the batches."""

    @property
    def policy(self) -> Policy:
        """The current policy."""
        ...

    def update(self, batch: Transition, *, generator: Generator) -> Metrics:
        """One update from a batch of B transitions; `obs` and `next_obs` are model states.

        Raises ValueError, and changes nothing, for wrong shapes and numbers that are not finite.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """All learned values, as one nested dict of tensors and plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; ValueError if it is from a different learner."""
        ...


@runtime_checkable
class Valued(Protocol):
    """A learner, or an agent, that values states."""

    def value(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead"]:
        """V(s) of the current policy; of an agent: of observations as vectors."""
        ...


@runtime_checkable
class Player(Protocol):
    """Plays episodes in N environments at once."""

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A) for observations (N, *O)."""
        ...

    def reset(self, begins: np.ndarray) -> None:
        """Called when episodes begin, in the environments where `begins` (N,) bool is True."""
        ...


@runtime_checkable
class PlanningPlayer(Player, Protocol):
    """A player that plans."""

    @property
    def each(self) -> Sequence[Any]:
        """One `mbrl.agents.Controller` for each environment in which it has acted."""
        ...


@runtime_checkable
class Agent(Protocol):
    """Acts in N environments, stores what it observes, and learns on a schedule of its own."""

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A) for observations (N, *O)."""
        ...

    def observe(self, step: Transition) -> None:
        """Store N transitions, one per environment.

        Where an episode ended, `next_obs` is its last observation, not the first of the next.
        """
        ...

    def update(self) -> Metrics:
        """Do the updates that are due now; returns their metrics, {} if there were none."""
        ...

    def player(self, *, generator: Generator) -> Player:
        """A player for evaluation episodes: the same weights, but a random stream of its own."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The whole agent, as one nested dict of tensors and plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; ValueError if it is from a different agent."""
        ...


@runtime_checkable
class Scheduled(Protocol):
    """An agent, or a learner, with settings that change over a run."""

    def run_for(self, steps: int) -> None:
        """Called before a run begins or goes on, with its environment steps in all."""
        ...


@runtime_checkable
class Resumed(Protocol):
    """An agent that keeps something of the current episodes, such as steps of a rollout or plans.

    An environment that seed and actions do not determine cannot be brought back to where a run was
    saved. When the run is resumed, its episode is over there, without a last step.
    """

    def give_up(self, places: np.ndarray) -> None:
        """The episodes of these of the N environments, (N,) bool, do not go on."""
        ...


@runtime_checkable
class ModelBased(Protocol):
    """An agent with a model of its environment, which can be planned through and evaluated."""

    model: Any
    """A `Dynamics`."""
    reward: RewardFn | None
    """None: the model predicts rewards."""
    terminated: TerminatedFn | None
    """None: the model predicts terminations."""
    fits: int
    """How often the model was fitted."""


@runtime_checkable
class Coded(Protocol):
    """An agent with learned codes of its observations."""

    @property
    def encoder(self) -> Any:
        """An `mbrl.encoders.representation.Learned`."""
        ...

    def codes(self, obs: np.ndarray) -> Float[Tensor, "N Z"]:
        """The codes of observations (N, *O) of the environment."""
        ...


@runtime_checkable
class PlanningAgent(Protocol):
    """An agent that plans through its model."""

    mpc: MPC
    config: Any
    """`config.mpc` is the `MPCConfig` of `mpc`."""
