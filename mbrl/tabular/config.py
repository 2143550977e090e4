"""Settings of `TabularLearner`, also as numbers for compiled code, and of `Dyna`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from annotated_types import Interval

from planners.checks import NonNegativeFloat, PositiveInt, PositiveShare, Share, check_fields

if TYPE_CHECKING:
    from mbrl.types import FiniteMDP

Target = Literal["sarsa", "expected", "tree", "q", "double"]
"""The target of updates. π is the ε-greedy policy of `TabularLearner.act`.

sarsa: the value of the next action taken, on-policy. If an episode is truncated, that action is
    not known, and the expectation under π is used instead.
expected: the expected value of the next action under π (van Seijen et al. 2009). With traces, the
    error of every step is measured against that expectation (S&B, section 12.9).
tree: tree backup (S&B, sections 7.5 and 12.10): the same expectation; with several steps, the
    return after each action is weighted by the action's probability under π. With one step it
    equals `expected`.
q: the value of the best next action (Watkins 1989). With several steps or traces, the return after
    an action that is not greedy is not used.
double: the value in one table of the action that is best in the other; a random one of the two
    tables is updated (van Hasselt 2010). One step only.
"""

Traces = Literal["accumulating", "replacing", "dutch"]
"""What a new visit does to a trace: accumulating adds to it, replacing resets it to its first
value, and dutch mixes both, which gives true online Sarsa(λ) (van Seijen et al. 2016)."""

States = Literal["visited", "start", "priority"]
"""Where imagined steps start. visited: a state drawn uniformly from those acted in so far. start:
the first state of a past episode, drawn uniformly from these episodes. priority: the state and
action whose value would change most."""

Actions = Literal["taken", "any", "policy"]
"""The first imagined action. taken: drawn uniformly from those taken in that state so far. any:
drawn uniformly from all actions. policy: drawn from the ε-greedy policy."""

Memory = Literal["last", "all"]
"""What the model stores of a state and action. last: the last next state and reward, for
deterministic worlds. all: counts of all next states, and the mean reward."""

StepCount = Annotated[int, Interval(ge=0, le=1_000_000)]

TARGETS = {name: code for code, name in enumerate(get_args(Target))}
SARSA, EXPECTED, TREE, Q, DOUBLE = range(5)
TRACES = {name: code for code, name in enumerate(get_args(Traces))}
ACCUMULATING, REPLACING, DUTCH = range(3)


@dataclass(frozen=True, kw_only=True)
class TabularConfig:
    """Settings of `TabularLearner` (Sutton and Barto 2018, "S&B", chapters 5 to 7 and 12)."""

    target: Target = "q"
    """The target of updates; see `Target`."""
    n_step: PositiveInt | None = 1
    """n, the number of rewards summed before bootstrapping. None sums all rewards of the episode
    (Monte Carlo), and values then change only at the ends of episodes."""
    first_visit: bool = False
    """With Monte Carlo, whether only the first visit of a pair in an episode updates it."""
    trace_decay: Share = 0.0
    """λ, in [0, 1]. Above 0, eligibility traces are used instead of n-step returns."""
    traces: Traces = "accumulating"
    """The kind of eligibility trace; see `Traces`."""
    discount: Share = 0.99
    """γ, in [0, 1]."""
    step_size: PositiveShare = 0.1
    """α, the step size of a pair's first update, in (0, 1]."""
    step_decay: Share = 0.0
    """p; the n-th update of a pair has step size α / nᵖ. With p = 1 and α = 1, values are the means
    of their targets; one-step values converge for p in (½, 1] (Robbins and Monro 1951)."""
    epsilon: Share = 0.1
    """ε at a state's first visit: the probability of a random action, in [0, 1]."""
    epsilon_decay: Share = 0.0
    """q; at the n-th visit of a state the probability is ε / n^q. With q in (0, 1] the policy
    becomes greedy but still tries every action infinitely often (Singh et al. 2000)."""
    averaging: bool = False
    """Whether `action_values` are means over time, with weight n for the value after visit n
    (Polyak and Juditsky 1992; Shamir and Zhang 2013). The means converge at the best possible rate
    for any slowly decaying step size. Learning and acting still use the latest values."""
    initial: float = 0.0
    """The initial value of every pair. A high value encourages exploration."""

    def __post_init__(self) -> None:
        check_fields(self)
        n, one_step = self.n_step, self.n_step == 1
        require(not self.trace_decay or one_step, "n_step", "1 with trace_decay above 0", n)
        require(not self.first_visit or n is None, "n_step", "None with first_visit", n)
        if self.target == "double":
            require(one_step and not self.trace_decay, "target",
                    "other than double with several steps or traces", self.target)  # fmt: skip
        if self.trace_decay and self.traces == "dutch":
            require(self.target == "sarsa", "target", "sarsa with dutch traces", self.target)


@dataclass(frozen=True)
class DynaConfig:
    """Settings of `Dyna`; the defaults are Dyna-Q with five planning steps."""

    planning: StepCount = 5
    """Number of imagined starts after each real step. 0 is Q-learning. With states priority,
    maximum number of updates after each real step."""
    states: States = "visited"
    """Where imagined steps start; see `States`."""
    actions: Actions = "taken"
    """The first imagined action; see `Actions`. Not used with states priority."""
    further: StepCount = 0
    """Maximum number of model steps with the policy after the first. They end early in a terminal
    state and, without a bonus, at a state and action never tried."""
    memory: Memory = "last"
    """What the model stores; see `Memory`."""
    bonus: NonNegativeFloat = 0.0
    """κ of Dyna-Q+: imagined rewards are increased by κ √τ, with τ the number of real steps since
    the state and action were last tried. Pairs never tried are then modelled as staying in their
    state with reward 0; without a bonus they are not imagined."""
    threshold: NonNegativeFloat = 1e-4
    """θ, with states priority: values that would change by no more than this are not updated."""
    discount: Share = 0.95
    """γ, in [0, 1]."""
    step_size: PositiveShare = 0.1
    """α, in (0, 1], of real and imagined steps."""
    epsilon: Share = 0.1
    """ε of the policy, in [0, 1]."""
    initial: float = 0.0
    """The initial value of every pair; a high one encourages exploration."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.states == "priority":
            for name in ("further", "bonus"):
                value = getattr(self, name)
                require(value == 0, name, "0 with states priority", value)


class Settings(NamedTuple):
    """A `TabularConfig` as numbers, for compiled code."""

    target: int  # a code of `TARGETS`
    steps: int  # 0 for all steps of an episode
    discount: float
    step_size: float
    step_decay: float
    epsilon: float
    epsilon_decay: float
    trace_decay: float
    traces: int  # a code of `TRACES`
    averaging: bool

    @classmethod
    def of(cls, config: TabularConfig) -> Settings:
        """The numbers of a config."""
        return cls(
            target=TARGETS[config.target],
            steps=config.n_step or 0,
            discount=float(config.discount),
            step_size=float(config.step_size),
            step_decay=float(config.step_decay),
            epsilon=float(config.epsilon),
            epsilon_decay=float(config.epsilon_decay),
            trace_decay=float(config.trace_decay),
            traces=TRACES[config.traces],
            averaging=bool(config.averaging),
        )


def require(holds: bool, name: str, accepted: str, value: object) -> None:
    """Raise ValueError, with the name, what is accepted and the value, unless `holds`."""
    if not holds:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")


ALGORITHMS: Mapping[str, Mapping[str, Any]] = {
    "Q-learning": {"target": "q"},
    "double Q": {"target": "double"},
    "expected Sarsa": {"target": "expected"},
    "Sarsa": {"target": "sarsa"},
    "3-step Sarsa": {"target": "sarsa", "n_step": 3},
    "3-step Q": {"target": "q", "n_step": 3},
    "3-step tree": {"target": "tree", "n_step": 3},
    "MC, every visit": {"target": "sarsa", "n_step": None},
    "MC, first visit": {"target": "sarsa", "n_step": None, "first_visit": True},
    "Sarsa(λ)": {"target": "sarsa", "trace_decay": 0.5, "traces": "replacing"},
    "true online": {"target": "sarsa", "trace_decay": 0.5, "traces": "dutch"},
    "Q(λ)": {"target": "q", "trace_decay": 0.5, "traces": "replacing"},
}
"""The settings that make a `TabularConfig` each algorithm, by the algorithm's name."""


def convergent(
    name: str, mdp: FiniteMDP, *, step_size: float = 0.2, epsilon: float = 0.3
) -> TabularConfig:
    """One of `ALGORITHMS`, with step sizes and ε for which its values converge to V*.

    In a stochastic world α is n^-0.6 at visit n and values are means over time (Polyak and Juditsky
    1992). In a deterministic world α is 1, or `step_size` for Sarsa targets, which use a next
    action that may be exploratory.

    For targets that do not depend on the policy, ε is `epsilon`. For the others ε decays as 1 / n,
    from 1 in a stochastic world and from 0.01 in a deterministic one. The learner then soon stops
    trying every action, so it needs exploring starts.
    """
    given: dict[str, Any] = dict(ALGORITHMS[name])
    if np.diff(mdp.transitions.indptr).max() > 1:
        given |= {"step_size": 1.0, "step_decay": 0.6, "averaging": True, "epsilon": 1.0}
    else:
        given |= {"step_size": step_size if given["target"] == "sarsa" else 1.0, "epsilon": 0.01}
    if given["target"] in ("q", "double"):
        given |= {"epsilon": epsilon}
    else:
        given |= {"epsilon_decay": 1.0}
    return TabularConfig(discount=mdp.discount, **given)
