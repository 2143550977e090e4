"""The `mbrl` command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import gymnasium
import torch
from rich.console import Console
from rich.table import Table

import envs
from experiments.build import RunConfig, build_world, find_run
from experiments.options import (
    Bench,
    Common,
    Compare,
    Drive,
    Evaluate,
    List,
    Plot,
    Resume,
    SearchTree,
    Study,
    Train,
    Training,
    Wrong,
    check_least,
    check_name,
    parse,
    peek,
    train_of,
)
from experiments.peers import PeerError
from experiments.presets import ALGORITHMS, MPC_PRESETS, preset
from experiments.runner import default_path, train_run
from experiments.watch import Driving, Watch
from mbrl.agents import KINDS, MPCConfig
from mbrl.checkpoint import CONFIG, Run, RunError, written_whole
from mbrl.training import EnvironmentError

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
    check_name("command", command, COMMANDS)
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
    parsed = parse(kind, f"mbrl {command}", rest)
    _set_threads(parsed)
    return work(parsed)


def _set_threads(parsed: Common) -> None:
    check_least(parsed, threads=1)
    torch.set_num_threads(parsed.threads or os.cpu_count() or 1)


def _train(args: list[str]) -> int:
    if any(arg.split("=")[0] == "--resume" for arg in args):
        return _resume(parse(Resume, "mbrl train", args))
    if not args or args[0] in ("-h", "--help"):
        print("usage: mbrl train ALGO --env ID ...   or   mbrl train --resume RUN\n")
        print(f"ALGO is one of {', '.join(ALGORITHMS)}; mbrl train ALGO --help lists its options")
        return 0
    algo, *rest = args
    check_name("algorithm", algo, ALGORITHMS)
    env_id = peek(rest, "--env", "cartpole-swingup")
    world = build_world(env_id)
    world.env.close()
    steps, agent = preset(algo, env_id, reward_known=world.reward is not None, ends=world.ends)
    default = Train(agent=agent, env=env_id, steps=steps)
    parsed = parse(train_of(type(agent)), f"mbrl train {algo}", rest, default)
    _prepare(parsed)
    _check_train(parsed)
    config = RunConfig(algo, env_id, parsed.seed, parsed.steps, parsed.device, parsed.agent)
    if world.why:
        err.print(f"[dim]{env_id}: {world.why}[/dim]", highlight=False)
    path = parsed.run or default_path(config, parsed.root)
    return _go(config, path, parsed, resume=False)


def _check_train(parsed: Any) -> None:
    check_least(parsed, steps=1, seed=0)
    try:
        torch.empty(0, device=parsed.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise Wrong(f"--device {parsed.device!r} is not to be had here: {reason}") from None


def _prepare(parsed: Training) -> None:
    check_least(parsed, checkpoint_every=1)
    _set_threads(parsed)


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
    env_id = peek(args, "--env", "cartpole-swingup")
    config = MPC_PRESETS.get(env_id, MPCConfig())
    name = peek(args, "--planner.name", config.planner.name)
    check_name("planner", name, KINDS)
    start = Drive(mpc=dataclasses.replace(config, planner=config.planner.named(name)), env=env_id)
    parsed = parse(Drive, "mbrl mpc", args, start)
    _set_threads(parsed)
    check_least(parsed, seed=0, seeds=1, steps=1)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = parsed.out or parsed.root / env_id / f"mpc-{name}" / f"{parsed.seed}-{stamp}"
    names = {field.name for field in dataclasses.fields(DriveConfig)}
    settings = DriveConfig(**{name: getattr(parsed, name) for name in names})
    if parsed.viewer:
        from experiments.viewer.live import live

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
    check_least(parsed, nodes=1)
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
    out.print(f"the root's {_BACKUPS[parsed.backup]} is {found.value:.4f}{truth}", highlight=False)
    if parsed.backup == "mean":
        err.print("[dim]Q is a mean too, of exploration and random rollouts[/dim]", highlight=False)
    err.print(f"folder {path}", highlight=False, soft_wrap=True)
    _emit(parsed, {"path": str(path), **said})
    return 0


_BACKUPS = {"mean": "mean over simulations", "max": "best action's value"}


def _evaluate(parsed: Evaluate) -> int:
    from experiments.evaluation import evaluate_run

    check_least(parsed, episodes=1)
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

    check_least(parsed, episodes=1)
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
    check_least(parsed, last=1)
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

    check_name("study", parsed.name, STUDIES)
    check_least(parsed, seeds=1, workers=1)
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
        check_name("benchmark", name, BENCHES)
    check_least(parsed, repeats=1)
    results = bench(names, threads=parsed.threads, repeats=parsed.repeats, out=parsed.out)
    _emit(parsed, {"results": results})
    return 0


def _list(parsed: List) -> int:
    from experiments.listing import listings

    found = {}
    for name, table, rows in listings(parsed.what, parsed.root):
        out.print(table)
        found[name] = rows
    _emit(parsed, found)
    return 0


def _emit(parsed: Common, summary: Any) -> None:
    if parsed.json:
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
