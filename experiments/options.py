"""What each `mbrl` command takes, and how a command line becomes that.

tyro reads the classes: a field is an option, its docstring the help. What is wrong ends in `Wrong`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from experiments.presets import AgentConfig
from mbrl.agents import MPCConfig
from mbrl.dynamics import Randomisation

T = TypeVar("T")


class Wrong(Exception):
    """Wrong input; one line names the option, the value and what is accepted."""


@dataclass(frozen=True)
class Common:
    """What every command takes."""

    root: Path = Path("runs")
    """Where runs live: root/environment/algorithm/seed-time."""
    threads: int | None = None
    """Worker threads; all cores if unset."""
    json: bool = False
    """Print one line of JSON last on stdout."""


@dataclass(frozen=True)
class Training(Common):
    """What a run takes, new or resumed."""

    checkpoint_every: int | None = None
    """Steps between checkpoints within an episode; each episode's end has one anyway."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Log there too; metrics.jsonl is always written."""


@dataclass(frozen=True)
class Train(Training):
    """Learn on an environment. Further options are the algorithm's, with the preset's values."""

    agent: Annotated[Any, tyro.conf.arg(name="")] = None
    env: str = "cartpole-swingup"
    """A task of `mbrl list envs`, or any gymnasium id with continuous actions."""
    seed: int = 0
    """All randomness of the run comes from it."""
    steps: int = 0
    """Environment steps in all."""
    device: str = "cpu"
    """Where the model lives: cpu, cuda, cuda:1, ..."""
    run: Path | None = None
    """The run's folder, which must not exist yet."""


@dataclass(frozen=True)
class Resume(Training):
    """Go on with a run from its newest checkpoint."""

    resume: str = "latest"
    """The run's folder, or latest."""
    steps: int | None = None
    """Train on to this many environment steps in all."""


@dataclass(frozen=True)
class Drive(Common):
    """Drive a robot by MPC, through its true simulator or a learned model of it.

    Further options are the planner's, with the environment's preset; --planner NAME takes
    another planner, with its own defaults for what the preset's does not share.
    """

    mpc: Annotated[MPCConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=MPCConfig)
    env: str = "cartpole-swingup"
    """One of our tasks: `mbrl list envs`."""
    model: str = "planning"
    """planning: the task's cheaper simulator to plan with, where it has one. true: its own
    simulator. Or the folder of a trained run: its learned model."""
    members: int = 1
    """Simulators planned through at once, the first the task's own, the others with parameters
    drawn anew; --objective says what a plan is worth over all of them."""
    randomisation: Randomisation = dataclasses.field(default_factory=Randomisation)
    """How far their parameters lie apart."""
    asynchronous: bool = False
    """Run in real time and plan in a worker while the robot carries out the last plan."""
    delay: int | None = None
    """Control steps after which a plan takes over, counted in while planning; as many as the last
    search took if unset. Without --asynchronous, a delay that is the same on every machine."""
    seed: int = 0
    """Of the first episode: its start and the planner's draws."""
    seeds: int = 1
    """Episodes, with seeds from --seed on."""
    steps: int | None = None
    """Control steps an episode, if fewer than its own."""
    video: bool = False
    """Film the first episode: an mp4 and a sheet of frames in the folder."""
    viewer: bool = False
    """Open the robot live in a web browser: its plans, sliders for settings and weights, pushes.
    Runs until stopped and leaves no folder."""
    viewer_port: int = 8080
    """Where on this machine the page is served."""
    out: Path | None = None
    """Folder for the numbers, the recorded controls and the figure; must not exist yet."""


@dataclass(frozen=True)
class SearchTree(Common):
    """Search a tree through a world's true model, draw it, and say what it makes of the root.

    tree.png and tree.dot have the most visited nodes, tree.json all of them, search.json the
    table that is printed. Where the world is a finite MDP, nodes of one state share what follows,
    and the table has the exact Q* beside.
    """

    env: str = "frozen-lake"
    """One of `mbrl list envs`: a world (frozen-lake, cliff-walk, ..., CartPole-v1, ...), or a task
    with a simulator."""
    rule: Literal["uct", "puct", "gumbel"] = "uct"
    """Which action is looked into: no noise at the root, even priors."""
    simulations: int = 200
    """Looks ahead; each adds a node, or where chance has a hand all outcomes of an action."""
    discount: float | None = None
    """γ; the world's own if unset, 0.99 where it has none."""
    backup: Literal["mean", "max"] = "mean"
    """What a node is worth: all that simulations found, exploring too, or its best action. "max"
    comes to Q* in a finite world, and trusts what few rollouts say."""
    seed: int = 0
    """Of the start, the real steps and all that is drawn."""
    steps: int = 0
    """Real steps played first, a search for each; the tree is that of the state they lead to."""
    rollouts: int = 8
    """Random rollouts whose mean return values a leaf."""
    depth: int = 50
    """Steps of each, at most."""
    samples: int = 8
    """Continuous actions are searched by so many uniform draws a node."""
    nodes: int = 40
    """How many are drawn, the most visited; more than about 60 are hard to read."""
    actions: tuple[str, ...] = ()
    """Names for the actions, one each; the world's own if unset."""
    out: Path | None = None
    """The folder, which must not exist yet."""


@dataclass(frozen=True)
class Evaluate(Common):
    """Play episodes with a run's newest checkpoint, without exploration."""

    run: tyro.conf.Positional[str] = "latest"
    """A run's folder, or latest."""
    episodes: int = 10
    """How many."""
    seed: int = 1000
    """Start states and the planner's randomness."""
    video: bool = False
    """Film the first episode: an mp4 and a sheet of frames in RUN/videos."""
    device: str | None = None
    """Where the model lives; the run's own device if unset."""


@dataclass(frozen=True)
class Plot(Common):
    """Draw runs: returns, and for a model its errors, calibration and spreads."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ("latest",)
    """Run folders, or latest."""
    episodes: int = 3
    """Fresh episodes played to measure the model on."""
    seed: int = 2000
    """Of these episodes."""


@dataclass(frozen=True)
class Compare(Common):
    """Compare runs, grouped by environment and algorithm (and by --label, one a run)."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """Run folders."""
    label: tuple[str, ...] = ()
    """One label for each run; runs of the same label are seeds of the same thing."""
    last: int = 1
    """Episodes at the end of a run whose mean return is its result."""
    out: Path = Path("results/compare.png")
    """The figure."""


@dataclass(frozen=True)
class List(Common):
    """What there is."""

    what: tyro.conf.Positional[
        Literal["all", "envs", "worlds", "algorithms", "planners", "studies", "benchmarks", "runs"]
    ] = "all"
    """Which listing; envs is tasks and worlds."""


@dataclass(frozen=True)
class Study(Common):
    """Run a study: all its runs, their numbers and its figure, in results/NAME."""

    name: tyro.conf.Positional[str] = ""
    """One of `mbrl list studies`."""
    seeds: int | None = None
    """How many seeds; the study's own number if unset."""
    workers: int | None = None
    """Processes side by side; all cores if unset."""
    out: Path = Path("results")
    """Where results go."""
    fast: bool = False
    """A small version that only shows that everything runs."""


@dataclass(frozen=True)
class Bench(Common):
    """Measure speed as ratios within one run; leave the machine alone meanwhile."""

    names: tyro.conf.Positional[tuple[str, ...]] = ("all",)
    """Some of `mbrl list benchmarks`, or all."""
    repeats: int = 7
    """Samples of each figure."""
    out: Path | None = None
    """Write the numbers as JSON too."""


def train_of(kind: type[AgentConfig]) -> Any:
    """`Train` whose `agent` has the algorithm's own type."""
    field = (
        "agent",
        Annotated[kind, tyro.conf.arg(name="")],
        dataclasses.field(default_factory=kind),
    )
    made = dataclasses.make_dataclass("Train", [field], bases=(Train,), frozen=True)
    made.__doc__ = Train.__doc__
    return made


_BOX = re.compile("[╭╮╰╯│─]|-{3,}")  # the latter where there are only ASCII's characters


def parse(kind: type[T], prog: str, args: Sequence[str], default: T | None = None) -> T:
    """Parse by tyro, whose boxed complaint becomes one line.

    Raises:
        Wrong: an unknown option, or a value that is none.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            start = tyro.MISSING_NONPROP if default is None else default
            return tyro.cli(kind, prog=prog, args=list(args), default=start)
    except SystemExit as exit:
        if exit.code in (0, None):
            raise
        words = " ".join(_BOX.sub(" ", complaint.getvalue()).split())
        words = words.replace("Invalid choice invalid choice", "Invalid choice")  # says it twice
        raise Wrong(words or f"{prog}: cannot read {' '.join(args)}") from None


def check_least(parsed: Common, **least: int) -> None:
    """Hold options to their least values; those that are unset are free.

    Raises:
        Wrong: one that is smaller.
    """
    for name, bound in least.items():
        value = getattr(parsed, name)
        if value is not None and value < bound:
            raise Wrong(f"--{name.replace('_', '-')} must be >= {bound}, got {value}")


def check_name(what: str, name: str, names: Iterable[str]) -> None:
    """Hold a name to those there are.

    Raises:
        Wrong: another; the message gives the nearest and all.
    """
    there = list(names)
    if name not in there:
        near = difflib.get_close_matches(name, there, 3, 0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise Wrong(f"unknown {what} {name!r}: {hint}there are {', '.join(there)}")


def peek(args: Sequence[str], name: str, default: str) -> str:
    """The value of an option that others' defaults depend on, before they are parsed."""
    for place, arg in enumerate(args):
        if arg == name and place + 1 < len(args):
            return args[place + 1]
        if arg.startswith(f"{name}="):
            return arg.removeprefix(f"{name}=")
    return default
