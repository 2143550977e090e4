"""Settings of a drive and of a tree search.

No torch is imported here, so that `mbrl mpc --help` and `mbrl tree --help` answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mbrl.agents import MPCConfig
from mbrl.randomisation import Randomisation
from planners.checks import NonNegativeInt, PositiveInt, PositiveShare, Rounds, check_fields


@dataclass(frozen=True)
class DriveConfig:
    """Settings of a drive."""

    env: str = "cartpole-swingup"
    """A task with a simulator, one of `mbrl list envs`."""
    mpc: MPCConfig = field(default_factory=MPCConfig)
    """Settings of the controller."""
    model: str = "planning"
    """The model to plan through. planning: the task's cheaper simulator, if it has one. true: the
    task's own simulator. Or the folder of a run: the model learned in it. Or module:Class: a model
    of your own that needs no fitting."""
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a model of your own, by name."""
    learner: str | None = None
    """The folder of a run of sac, ddpg or td3 in this environment: its critic values the state in
    which a plan ends (--terminal-value), and its policy proposes plans (--proposals)."""
    device: str | None = None
    """Device of a model learned in a run. If unset, that of the run."""
    members: PositiveInt = 1
    """Number of simulators to plan through: the task's own, and others with random parameters.
    --objective combines the returns of a plan in all of them."""
    randomisation: Randomisation = field(default_factory=Randomisation)
    """How much the parameters of the members differ: for each kind, the std of the log of a
    factor."""
    asynchronous: bool = False
    """Run in real time, and plan in a worker while the robot executes the last plan."""
    delay: Rounds | None = None
    """Control steps from the start of a search until its plan is used; the search starts from the
    state predicted for that time. If unset, the number of steps that the last search took. Without
    --asynchronous the delay is simulated, and results are the same on every machine."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class SearchConfig:
    """Settings of a tree search in an environment."""

    env: str = "frozen-lake"
    """One of `mbrl list envs`: a world (frozen-lake, cliff-walk, ..., CartPole-v1, ...), or a task
    with a simulator."""
    rule: Literal["uct", "puct", "gumbel"] = "uct"
    """How actions are selected, without noise at the root and with uniform priors. UCT's C is 1/√2
    times the range of the returns of 100 random games from the first state."""
    simulations: PositiveInt = 200
    """Number of simulations. Each adds one node, or a node for each outcome of a random action."""
    discount: PositiveShare | None = None
    """γ, in (0, 1]. If unset, that of the environment, or 0.99 if it defines none."""
    backup: Literal["mean", "max"] = "mean"
    """Value of a node: the mean over all simulations through it, or the value of its best action.
    "max" converges to Q* in a finite world, but overestimates after few rollouts."""
    seed: NonNegativeInt = 0
    """Seed of the first state, the real steps and the search."""
    steps: NonNegativeInt = 0
    """Real steps to take first, each chosen by a search. The tree is that of the last state."""
    rollouts: PositiveInt = 8
    """Random rollouts from each leaf; their mean return is its value."""
    depth: PositiveInt = 50
    """Maximum number of steps of a rollout."""
    samples: PositiveInt = 8
    """Number of actions drawn uniformly in each node if actions are continuous."""

    def __post_init__(self) -> None:
        check_fields(self)
