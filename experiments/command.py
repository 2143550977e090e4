"""The `mbrl` command."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import gymnasium
import torch
import tyro
from rich.console import Console
from rich.table import Table

import envs
from experiments.build import RunConfig, build_world, find_run
from experiments.peers import PeerError
from experiments.presets import ALGORITHMS, MPC_PRESETS, AgentConfig, preset
from experiments.runner import default_path, train_run
from experiments.watch import Driving, Watch
from mbrl.agents import KINDS, MPCConfig
from mbrl.checkpoint import CONFIG, Run, RunError, written_whole
from mbrl.dynamics import Randomisation
from mbrl.training import EnvironmentError

T = TypeVar("T")

COMMANDS = {
    "mpc": "drive a robot by planning: mbrl mpc --env ID --planner NAME",
    "tree": "search a tree, draw it, hold it to the truth: mbrl tree --env ID --rule NAME",
    "train": "learn on an environment: mbrl train ALGO --env ID",
    "evaluate": "play episodes with a run's agent: mbrl evaluate RUN",
    "plot": "draw a run, or several: mbrl plot RUN...",
    "compare": "a table and a figure over runs: mbrl compare RUN...",
    "study": "a whole experiment and its figure: mbrl study NAME",
    "bench": "speed, as ratios measured in one run: mbrl bench NAME",
    "list": "environments, worlds, algorithms, planners, studies, benchmarks, runs",
}

out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)


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


def main() -> NoReturn:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command line; returns the exit status.

    0 done, 2 wrong input or a run that cannot go on (one line on stderr), 130 interrupted.
    """
    try:
        return _dispatch(list(args))
    except (
        Wrong,
        RunError,
        PeerError,
        EnvironmentError,
        envs.SimulationDiverged,
        gymnasium.error.Error,
        ValueError,
        OSError,
        ModuleNotFoundError,
    ) as error:
        if os.environ.get("MBRL_TRACEBACK"):
            raise
        print(f"mbrl: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mbrl: interrupted", file=sys.stderr)
        return 130


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print("usage: mbrl COMMAND ...   (mbrl COMMAND --help says more)\n")
        for name, text in COMMANDS.items():
            print(f"  {name:9} {text}")
        return 0
    command, *rest = args
    if command not in COMMANDS:
        raise Wrong(_unknown("command", command, COMMANDS))
    if command == "train":
        return _train(rest)
    if command == "mpc":
        return _mpc(rest)
    kind, work = {
        "tree": (SearchTree, _tree),
        "evaluate": (Evaluate, _evaluate),
        "plot": (Plot, _plot),
        "compare": (Compare, _compare),
        "study": (Study, _study),
        "bench": (Bench, _bench),
        "list": (List, _list),
    }[command]
    parsed = _parse(kind, f"mbrl {command}", rest)
    _set_threads(parsed.threads)
    return work(parsed)


def _parse(kind: type[T], prog: str, args: Sequence[str], default: T | None = None) -> T:
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
        words = " ".join(complaint.getvalue().translate(_BOX).split())
        raise Wrong(words or f"{prog}: cannot read {' '.join(args)}") from None


_BOX = {ord(character): " " for character in "╭╮╰╯│─"}


def _unknown(what: str, name: str, names: Sequence[str] | dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(names), 3, 0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {what} {name!r}: {hint}there are {', '.join(names)}"


def _set_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise Wrong(f"--threads must be >= 1, got {threads}")
    torch.set_num_threads(threads or os.cpu_count() or 1)


def _option(args: Sequence[str], name: str, default: str) -> str:
    """The value of an option that others' defaults depend on."""
    for place, arg in enumerate(args):
        if arg == name and place + 1 < len(args):
            return args[place + 1]
        if arg.startswith(f"{name}="):
            return arg.removeprefix(f"{name}=")
    return default


def _train(args: list[str]) -> int:
    if any(arg.split("=")[0] == "--resume" for arg in args):
        return _resume(_parse(Resume, "mbrl train", args))
    if not args or args[0] in ("-h", "--help"):
        print("usage: mbrl train ALGO --env ID ...   or   mbrl train --resume RUN\n")
        print(f"ALGO is one of {', '.join(ALGORITHMS)}; mbrl train ALGO --help lists its options")
        return 0
    algo, *rest = args
    if algo not in ALGORITHMS:
        raise Wrong(_unknown("algorithm", algo, ALGORITHMS))
    env_id = _option(rest, "--env", "cartpole-swingup")
    world = build_world(env_id)
    world.env.close()
    steps, agent = preset(algo, env_id, reward_known=world.reward is not None, ends=world.ends)
    default = Train(agent=agent, env=env_id, steps=steps)
    parsed = _parse(_with_agent(type(agent)), f"mbrl train {algo}", rest, default)
    _prepare(parsed)
    _check_train(parsed)
    config = RunConfig(algo, env_id, parsed.seed, parsed.steps, parsed.device, parsed.agent)
    if world.why:
        err.print(f"[dim]{env_id}: {world.why}[/dim]", highlight=False)
    path = parsed.run or default_path(config, parsed.root)
    return _go(config, path, parsed, resume=False)


def _with_agent(kind: type[AgentConfig]) -> Any:
    """`Train` whose `agent` has the algorithm's own type."""
    field = (
        "agent",
        Annotated[kind, tyro.conf.arg(name="")],
        dataclasses.field(default_factory=kind),
    )
    made = dataclasses.make_dataclass("Train", [field], bases=(Train,), frozen=True)
    made.__doc__ = Train.__doc__
    return made


def _check_train(parsed: Any) -> None:
    if parsed.steps < 1:
        raise Wrong(f"--steps must be >= 1, got {parsed.steps}")
    if parsed.seed < 0:
        raise Wrong(f"--seed must be >= 0, got {parsed.seed}")
    try:
        torch.empty(0, device=parsed.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise Wrong(f"--device {parsed.device!r} is not to be had here: {reason}") from None


def _prepare(parsed: Training) -> None:
    if parsed.checkpoint_every is not None and parsed.checkpoint_every < 1:
        raise Wrong(f"--checkpoint-every must be >= 1, got {parsed.checkpoint_every}")
    _set_threads(parsed.threads)


def _resume(parsed: Resume) -> int:
    _prepare(parsed)
    path = find_run(parsed.resume, parsed.root)
    run = Run.open(path)
    config = RunConfig.from_json(run.config)
    if parsed.steps is not None and parsed.steps != config.steps:
        if parsed.steps < (run.latest() or 0):
            raise Wrong(f"--steps {parsed.steps}: the run is at step {run.latest()} already")
        config = dataclasses.replace(config, steps=parsed.steps)
        with written_whole(path / CONFIG) as temporary:
            temporary.write_text(json.dumps(run.config | {"steps": parsed.steps}, indent=2) + "\n")
    return _go(config, path, parsed, resume=True)


def _go(config: RunConfig, path: Path, parsed: Any, *, resume: bool) -> int:
    with _interruptible() as stop, Watch(config, err) as watch:
        progress = train_run(
            config,
            path,
            resume=resume,
            checkpoint_every=parsed.checkpoint_every,
            sinks=parsed.log,
            stop=stop,
            watch=watch,
        )
    if progress.env_steps < config.steps:
        print(
            f"mbrl: interrupted at step {progress.env_steps}; "
            f"go on with: mbrl train --resume {path}",
            file=sys.stderr,
        )
        return 130
    best = max(progress.returns, default=None)
    summary = {
        "run": str(path),
        "env_steps": progress.env_steps,
        "episodes": progress.episode,
        "last_return": progress.returns[-1] if progress.returns else None,
        "best_return": best,
        "seconds": {name: round(value, 2) for name, value in progress.seconds.items()},
    }
    err.print(f"[bold]run[/bold] {path}", highlight=False)
    _emit(parsed, summary)
    return 0


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks to stop at the next step; a second one stops at once."""
    asked = False

    def ask(signum: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("\nmbrl: saving a checkpoint (Ctrl-C again to stop at once)", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _mpc(args: list[str]) -> int:
    from experiments.driving import DriveConfig, drive_all

    args = [arg.replace("--planner=", "--planner.name=") for arg in args]
    args = ["--planner.name" if arg == "--planner" else arg for arg in args]
    env_id = _option(args, "--env", "cartpole-swingup")
    config = MPC_PRESETS.get(env_id, MPCConfig())
    name = _option(args, "--planner.name", config.planner.name)
    if name not in KINDS:
        raise Wrong(_unknown("planner", name, KINDS))
    start = Drive(mpc=dataclasses.replace(config, planner=config.planner.named(name)), env=env_id)
    parsed = _parse(Drive, "mbrl mpc", args, start)
    _set_threads(parsed.threads)
    for option, least in (("seed", 0), ("seeds", 1), ("steps", 1)):
        value = getattr(parsed, option)
        if value is not None and value < least:
            raise Wrong(f"--{option} must be >= {least}, got {value}")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = parsed.out or parsed.root / env_id / f"mpc-{name}" / f"{parsed.seed}-{stamp}"
    names = {field.name for field in dataclasses.fields(DriveConfig)}
    settings = DriveConfig(**{name: getattr(parsed, name) for name in names})
    if parsed.viewer:
        from experiments.live import live

        taken = live(
            settings,
            seed=parsed.seed,
            port=parsed.viewer_port,
            steps=parsed.steps,
            tell=lambda text: err.print(text, highlight=False, markup=False, soft_wrap=True),
        )
        _emit(parsed, {"steps": taken})
        return 0
    with Driving(f"{name} {env_id}", err) as watch:
        summary = drive_all(
            settings,
            path,
            seeds=range(parsed.seed, parsed.seed + parsed.seeds),
            steps=parsed.steps,
            video=parsed.video,
            watch=watch,
            tell=watch.tell,
        )
    err.print(_said(summary), highlight=False, soft_wrap=True)
    _emit(parsed, summary)
    return 0


def _said(summary: dict[str, Any]) -> str:
    done = "" if summary["succeeded"] is None else f"{summary['succeeded']} succeeded, "
    kept = summary["within_budget"]
    budget = "" if kept is None else f", within budget {kept:.1%}"
    return (
        f"[bold]{summary['episodes']} episodes[/bold]  {done}reward {summary['reward']:.4f} a step "
        f"(last second {summary['reward_last_second']:.4f})  plan {summary['plan_ms']:.2f} ms "
        f"(best {summary['plan_ms_best']:.2f}), {summary['plan_hz']:.3g} plans a simulated second"
        f"{budget}  real time x {summary['realtime']:.2f}\nfolder {summary['path']}"
    )


def _tree(parsed: SearchTree) -> int:
    from experiments.searching import SearchConfig, save_tree, searched

    names = {field.name for field in dataclasses.fields(SearchConfig)}
    config = SearchConfig(**{name: getattr(parsed, name) for name in names})
    if parsed.nodes < 1:
        raise Wrong(f"--nodes must be >= 1, got {parsed.nodes}")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = parsed.out or parsed.root / config.env / f"tree-{config.rule}" / f"{config.seed}-{stamp}"
    if path.exists():
        raise Wrong(f"{path} exists already")
    found = searched(config, actions=parsed.actions)
    said = save_tree(config, found, path, nodes=parsed.nodes)
    exact = found.optimum is not None
    table = Table("action", "visits", "prior", "Q", *(["Q*"] if exact else []), "")
    for choice in found.choices:
        value = "untried" if choice.value is None else f"{choice.value:.4f}"
        truth = [f"{choice.optimum:.4f}"] if choice.optimum is not None else []
        mark = ["chosen"] if choice.chosen else []
        if choice.optimum is not None and found.optimum is not None:
            # ties but for rounding
            mark += ["best"] if choice.optimum >= found.optimum - 1e-9 else []
        table.add_row(
            choice.action, str(choice.visits), f"{choice.prior:.3f}", value, *truth, ", ".join(mark)
        )
    out.print(table)
    truth = f"; V* is {found.optimum:.4f}" if exact else ""
    out.print(f"the root's mean over simulations is {found.value:.4f}{truth}", highlight=False)
    err.print("[dim]Q is a mean too, of exploration and random rollouts[/dim]", highlight=False)
    err.print(f"folder {path}", highlight=False, soft_wrap=True)
    _emit(parsed, {"path": str(path), **said})
    return 0


def _evaluate(parsed: Evaluate) -> int:
    from experiments.evaluation import evaluate_run

    if parsed.episodes < 1:
        raise Wrong(f"--episodes must be >= 1, got {parsed.episodes}")
    summary = evaluate_run(
        find_run(parsed.run, parsed.root),
        episodes=parsed.episodes,
        seed=parsed.seed,
        video=parsed.video,
        device=parsed.device,
        tell=lambda text: err.print(text, highlight=False),
    )
    _emit(parsed, summary)
    return 0


def _plot(parsed: Plot) -> int:
    from experiments.figures import plot_runs

    if parsed.episodes < 1:
        raise Wrong(f"--episodes must be >= 1, got {parsed.episodes}")
    paths = [find_run(name, parsed.root) for name in parsed.runs]
    numbers = plot_runs(
        paths,
        episodes=parsed.episodes,
        seed=parsed.seed,
        tell=lambda text: err.print(text, highlight=False),
    )
    _emit(parsed, numbers)
    return 0


def _compare(parsed: Compare) -> int:
    from experiments.figures import compare_runs

    if not parsed.runs:
        raise Wrong("compare needs one or more run folders")
    if parsed.label and len(parsed.label) != len(parsed.runs):
        raise Wrong(f"--label needs one for each of {len(parsed.runs)} runs, got {parsed.label}")
    if parsed.last < 1:
        raise Wrong(f"--last must be >= 1, got {parsed.last}")
    table, numbers = compare_runs(
        [find_run(name, parsed.root) for name in parsed.runs],
        labels=parsed.label or None,
        last=parsed.last,
        out=parsed.out,
    )
    out.print(table)
    err.print(f"figure {parsed.out}", highlight=False)
    _emit(parsed, numbers)
    return 0


def _study(parsed: Study) -> int:
    from experiments.studies import STUDIES

    if parsed.name not in STUDIES:
        raise Wrong(_unknown("study", parsed.name, list(STUDIES)))
    for name in ("seeds", "workers"):
        value = getattr(parsed, name)
        if value is not None and value < 1:
            raise Wrong(f"--{name} must be >= 1, got {value}")
    folder = STUDIES[parsed.name](
        parsed.out,
        seeds=parsed.seeds,
        workers=parsed.workers,
        fast=parsed.fast,
        say=lambda text: err.print(text, highlight=False, markup=False, soft_wrap=True),
    )
    _emit(parsed, json.loads((folder / "results.json").read_text()))
    return 0


def _bench(parsed: Bench) -> int:
    from experiments.bench import BENCHES, bench

    names = list(BENCHES) if "all" in parsed.names else list(parsed.names)
    for name in names:
        if name not in BENCHES:
            raise Wrong(_unknown("benchmark", name, list(BENCHES)))
    if parsed.repeats < 1:
        raise Wrong(f"--repeats must be >= 1, got {parsed.repeats}")
    results = bench(names, threads=parsed.threads, repeats=parsed.repeats, out=parsed.out)
    _emit(parsed, {"results": results})
    return 0


def _list(parsed: List) -> int:
    from experiments.bench import BENCHES
    from experiments.studies import STUDIES

    listings: dict[str, Callable[[], tuple[Table, Any]]] = {
        "envs": _list_envs,
        "worlds": _list_worlds,
        "algorithms": lambda: _two_columns("algorithm", ALGORITHMS),
        "planners": lambda: _two_columns("planner", KINDS),
        "studies": lambda: _two_columns("study", STUDIES),
        "benchmarks": lambda: _two_columns("benchmark", BENCHES),
        "runs": lambda: _list_runs(parsed.root),
    }
    several = {"all": list(listings), "envs": ["envs", "worlds"]}
    wanted = several.get(parsed.what, [parsed.what])
    found = {}
    for name in wanted:
        table, found[name] = listings[name]()
        out.print(table)
    _emit(parsed, found)
    return 0


def _two_columns(title: str, things: Any) -> tuple[Table, list[str]]:
    table = Table(title, "what it is")
    for name, thing in things.items():
        table.add_row(name, (thing.__doc__ or "").strip().split("\n")[0])
    return table, list(things)


def _list_envs() -> tuple[Table, list[dict[str, Any]]]:
    from experiments.searching import simulators

    table, rows = (
        Table("task", "obs", "act", "steps", "reward", "ends", "simulator", "what it is"),
        [],
    )
    for row in map(envs.describe, envs.names()):
        simulated = row.name in simulators()
        table.add_row(
            row.name,
            str(row.obs_dim),
            str(row.action_dim),
            str(row.steps),
            "known" if row.reward_known else "learned",
            "known" if row.terminated_known else "learned",
            "yes" if simulated else "no",
            row.summary,
        )
        rows.append(row._asdict() | {"simulator": simulated})
    return table, rows


def _list_worlds() -> tuple[Table, list[dict[str, Any]]]:
    """What `mbrl tree` takes beside tasks with a simulator."""
    from experiments.searching import worlds

    table, rows = Table("world", "states", "actions", "what it is"), []
    for world in worlds():
        states = "continuous" if world.states is None else str(world.states)
        table.add_row(world.name, states, ", ".join(world.actions), world.summary)
        rows.append(world._asdict())
    return table, rows


def _list_runs(root: Path) -> tuple[Table, list[dict[str, Any]]]:
    table, rows = Table("run", "steps", "of", "algorithm", "environment"), []
    for path in sorted(root.glob("*/*/*/config.json")):
        with contextlib.suppress(RunError):
            run = Run.open(path.parent)
            config = RunConfig.from_json(run.config)
            rows.append({"run": str(run.path), "env_steps": run.latest() or 0})
            table.add_row(
                str(run.path), str(run.latest() or 0), str(config.steps), config.algo, config.env
            )
    return table, rows


def _emit(parsed: Common, summary: Any) -> None:
    if parsed.json:
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
