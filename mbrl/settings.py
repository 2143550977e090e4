"""What a drive and a search depend on, apart from what runs them: no torch is imported here.

`mbrl mpc --help` and `mbrl tree --help` read these settings, so they answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mbrl.agents import MPCConfig
from mbrl.randomisation import Randomisation


@dataclass(frozen=True)
class DriveConfig:
    """Everything that a drive's numbers depend on, except the clock."""

    env: str = "cartpole-swingup"
    """A task with a simulator, of `mbrl list envs`."""
    mpc: MPCConfig = field(default_factory=MPCConfig)
    """How to plan."""
    model: str = "planning"
    """What to plan through. planning: the task's cheaper simulator, if it has one. true: its own
    simulator. Or the folder of a run: the model that it learned. Or module:Class: a model of your
    own that needs no fitting."""
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a model of your own, by name."""
    members: int = 1
    """Simulators planned through at once: the task's own, and others with random parameters.
    --objective says what a plan is worth over all of them."""
    randomisation: Randomisation = field(default_factory=Randomisation)
    """How much the parameters of the members differ."""
    asynchronous: bool = False
    """Run in real time and plan in a worker while the robot carries out the last plan."""
    delay: int | None = None
    """Control steps from the start of a search until its plan takes over; the search plans from the
    state expected then. If unset, as many as the last search took. Without --asynchronous the
    delay is simulated, and results are the same on every machine."""


_LEAST = {"simulations": 1, "rollouts": 1, "depth": 1, "samples": 1, "steps": 0, "seed": 0}


@dataclass(frozen=True)
class SearchConfig:
    """Everything that a tree depends on."""

    env: str = "frozen-lake"
    """One of `mbrl list envs`: a world (frozen-lake, cliff-walk, ..., CartPole-v1, ...), or a task
    with a simulator."""
    rule: Literal["uct", "puct", "gumbel"] = "uct"
    """How actions are selected, without noise at the root and with uniform priors. UCT's C is 1/√2
    times the range of the returns of 100 random games from the first state."""
    simulations: int = 200
    """Number of simulations; each adds a node, or all outcomes of an action if they are random."""
    discount: float | None = None
    """γ, in (0, 1]; the world's own if unset, 0.99 where it has none."""
    backup: Literal["mean", "max"] = "mean"
    """Value of a node: the mean over all simulations through it, or the value of its best action.
    "max" converges to Q* in a finite world, but overestimates where it has made few rollouts."""
    seed: int = 0
    """Seed of the first state, of the real steps and of all draws."""
    steps: int = 0
    """Real steps played first, with a search for each; the tree is that of the last state."""
    rollouts: int = 8
    """Random rollouts whose mean return values a leaf."""
    depth: int = 50
    """Most steps of a rollout."""
    samples: int = 8
    """Actions drawn uniformly in each node, where actions are continuous."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be >= {least}, got {getattr(self, name)}")
        if self.discount is not None and not 0 < self.discount <= 1:
            raise ValueError(f"--discount must be in (0, 1], got {self.discount}")
