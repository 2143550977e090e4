"""Settings of `TabularLearner`, and the form in which compiled code reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from mbrl.types import FiniteMDP

Target = Literal["sarsa", "expected", "tree", "q", "double"]
"""What an action value is moved towards. π is the ε-greedy policy of `TabularLearner.act`.

sarsa: the value of the next action taken, on-policy. Where an episode is truncated that action is
    unknown, and its expectation under π takes its place.
expected: the expected value of the next action under π (van Seijen et al. 2009). With traces, the
    error of every step is measured against that expectation (S&B, section 12.9).
tree: tree backup (S&B, sections 7.5 and 12.10): likewise, and what follows an action on the way
    counts with the probability of that action under π. With one step it equals `expected`.
q: the value of the best next action (Watkins 1989). With several steps or traces, what follows an
    action that is not greedy does not count.
double: the value, by one table, of the action that is best by the other; a coin decides which table
    learns (van Hasselt 2010). One step only.
"""

Traces = Literal["accumulating", "replacing", "dutch"]
"""What a new visit does to a trace: add to it, set it back to its first value, or the mixture of
both that makes true online Sarsa(λ) (van Seijen et al. 2016)."""

TARGETS = {name: code for code, name in enumerate(get_args(Target))}
SARSA, EXPECTED, TREE, Q, DOUBLE = range(5)
TRACES = {name: code for code, name in enumerate(get_args(Traces))}
ACCUMULATING, REPLACING, DUTCH = range(3)


@dataclass(frozen=True, kw_only=True)
class TabularConfig:
    """One-step, n-step, Monte Carlo or λ; on-policy or off-policy (S&B, chapters 5 to 7 and 12)."""

    target: Target = "q"
    """What values are moved towards; see `Target`."""
    steps: int | None = 1
    """n, the rewards summed before bootstrapping; None sums all rewards of the episode, which is
    Monte Carlo (values then change at the ends of episodes only)."""
    first_visit: bool = False
    """With Monte Carlo, whether a pair learns only from its first visit in an episode."""
    trace_decay: float = 0.0
    """λ, in [0, 1]; above 0, eligibility traces are used instead of n steps."""
    traces: Traces = "accumulating"
    """What a visit does to a trace; see `Traces`."""
    discount: float = 0.99
    """γ, in [0, 1]."""
    step_size: float = 0.1
    """α of a pair's first update, in (0, 1]."""
    step_decay: float = 0.0
    """p of α / visitsᵖ, with the visits of the pair. 1 with step_size 1 averages all targets;
    one-step values converge for p in (½, 1] (Robbins and Monro 1951)."""
    epsilon: float = 0.1
    """ε at a state's first visit, the probability of a random action, in [0, 1]."""
    epsilon_decay: float = 0.0
    """q of ε / visits^q, with the visits of the state. In (0, 1] the policy becomes greedy and
    still tries every action infinitely often (Singh et al. 2000)."""
    averaging: bool = False
    """Whether `action_values` are means over time, in which the value after visit n weighs n
    (Polyak and Juditsky 1992; Shamir and Zhang 2013). The means converge at the best possible rate
    for any slowly decaying step size. Learning and acting use the latest values all the same."""
    initial: float = 0.0
    """The initial value of every pair; a high one encourages exploration."""

    def __post_init__(self) -> None:
        require(self.target in TARGETS, "target", f"one of {[*TARGETS]}", self.target)
        require(self.traces in TRACES, "traces", f"one of {[*TRACES]}", self.traces)
        whole = isinstance(self.steps, int) and self.steps >= 1
        require(self.steps is None or whole, "steps", "None or an integer >= 1", self.steps)
        for name in ("trace_decay", "discount", "epsilon", "step_decay", "epsilon_decay"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, "in [0, 1]", value)
        require(0 < self.step_size <= 1, "step_size", "in (0, 1]", self.step_size)
        require(math.isfinite(self.initial), "initial", "finite", self.initial)
        one_step = self.steps == 1
        require(not self.trace_decay or one_step, "steps", "1 with trace_decay above 0", self.steps)
        require(
            not self.first_visit or self.steps is None, "steps", "None with first_visit", self.steps
        )
        if self.target == "double":
            require(one_step and not self.trace_decay, "target",
                    "other than double with several steps or traces", self.target)  # fmt: skip
        if self.trace_decay and self.traces == "dutch":
            require(self.target == "sarsa", "target", "sarsa with dutch traces", self.target)


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
            steps=config.steps or 0,
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
    """Raise ValueError unless the condition holds."""
    if not holds:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")


ALGORITHMS: Mapping[str, Mapping[str, Any]] = {
    "Q-learning": {"target": "q"},
    "double Q": {"target": "double"},
    "expected Sarsa": {"target": "expected"},
    "Sarsa": {"target": "sarsa"},
    "3-step Sarsa": {"target": "sarsa", "steps": 3},
    "3-step Q": {"target": "q", "steps": 3},
    "3-step tree": {"target": "tree", "steps": 3},
    "MC, every visit": {"target": "sarsa", "steps": None},
    "MC, first visit": {"target": "sarsa", "steps": None, "first_visit": True},
    "Sarsa(λ)": {"target": "sarsa", "trace_decay": 0.5, "traces": "replacing"},
    "true online": {"target": "sarsa", "trace_decay": 0.5, "traces": "dutch"},
    "Q(λ)": {"target": "q", "trace_decay": 0.5, "traces": "replacing"},
}
"""Settings of `TabularConfig` by which it is each algorithm, by name."""


def convergent(
    name: str, mdp: FiniteMDP, *, step_size: float = 0.2, epsilon: float = 0.3
) -> TabularConfig:
    """One of `ALGORITHMS`, with step sizes and ε with which its values converge to V*.

    In a stochastic world α is visits^-0.6 and values are means over time (Polyak and Juditsky
    1992); in a deterministic one α is 1, or `step_size` where the target holds the next action,
    which may explore. ε is `epsilon` where the target does not depend on it. Elsewhere it vanishes
    as 1 / visits, from 1 or in a deterministic world from 0.01; a learner then needs exploring
    starts, since it stops to try every pair.
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
