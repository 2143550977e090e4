"""The `mbrl` command: finds the file of a command and runs it; errors end in one line."""

from __future__ import annotations

import importlib
import os
import signal
import sys

TYPE_CHECKING = False  # importing `typing` takes long enough for a Ctrl-C to meet it
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

COMMANDS = {
    "mpc": ("drive", "drive a robot by planning: mbrl mpc --env ID --planner NAME"),
    "tree": (
        "tree",
        "search a tree, compare it with the exact values: mbrl tree --env ID --rule NAME",
    ),
    "train": ("train", "learn on an environment: mbrl train ALGO --env ID"),
    "evaluate": ("evaluate", "play episodes with a run's agent: mbrl evaluate RUN"),
    "plot": ("plot", "draw a run, or several: mbrl plot RUN..."),
    "audit": ("audit", "what a run's model knows, and what exploits its errors: mbrl audit RUN"),
    "compare": ("compare", "a table and a figure over runs: mbrl compare RUN..."),
    "study": ("study", "a whole experiment and its figure: mbrl study NAME"),
    "bench": ("bench", "speed, as ratios measured in one run: mbrl bench NAME"),
    "list": (
        "listing",
        "environments, worlds, algorithms, planners, models, studies, benchmarks, runs",
    ),
    "completion": ("completion", "a script for the shell's Tab key: mbrl completion bash|zsh|fish"),
}
"""File in `experiments.cli` and help text of each command; the file has `run(args) -> status`."""

LONGEST = 400
"""Characters of a word, such as a path, after which a message cuts it; a line has five times as
many."""

_interrupted = False


def main() -> NoReturn:
    """Entry point of the console script."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        from experiments.cli import streams

        status = streams.guarded(lambda: run(sys.argv[1:]))
    except KeyboardInterrupt:  # before or after the work, or a second one
        status = 130
    sys.exit(status)


def _interrupt(signum: int, frame: Any) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def run(args: Sequence[str]) -> int:
    """Run one command line; returns the exit status.

    0 done, 2 wrong input or a run that cannot go on (one line on stderr), 130 interrupted.
    """
    global _interrupted
    _interrupted = False
    try:
        if not args or args[0] in ("-h", "--help", "--version"):
            _print_about("--version" in args)
            return 0
        from experiments.cli.names import check_name, check_once
        from experiments.cli.own import search_working_folder

        search_working_folder()
        command, *rest = args
        check_name("command", command, COMMANDS)
        check_once(rest)
        if any(arg.split("=")[0] == "--module" for arg in rest):
            from experiments.cli.options import import_modules

            import_modules(rest)
        return importlib.import_module(f"experiments.cli.{COMMANDS[command][0]}").run(rest)
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, Exception) as error:  # an import may turn the first into another
        if _interrupted or isinstance(error, KeyboardInterrupt):
            complain("mbrl: interrupted")
            return 130
        # those not expected are raised again, with their traceback
        short = _out_of_memory(error)
        theirs = None if isinstance(error, _expected()) else _in_own_part(error)
        if os.environ.get("MBRL_TRACEBACK") or not (
            short or theirs or isinstance(error, _expected())
        ):
            raise
        from mbrl.plain import shown

        said = f"out of memory: {error}".splitlines()[0] if short else theirs or _text(error)
        words = (shown(word, most=LONGEST) for word in said.split())
        complain(f"mbrl: {shown(' '.join(words), most=5 * LONGEST)}")
        return 2


def complain(line: str) -> None:
    """A line on stderr, where there is room for it."""
    from experiments.cli.streams import give_up

    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        give_up(sys.stderr)


def _out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch says so in a RuntimeError."""
    words = ("can't allocate memory", "out of memory")
    said = isinstance(error, RuntimeError) and any(part in str(error) for part in words)
    return said or isinstance(error, MemoryError)


def _in_own_part(error: BaseException) -> str | None:
    """Where in a part of the user's own an exception was raised, and what it says.

    None if no code of theirs was running: then the mistake is the library's.
    """
    import sysconfig
    import traceback

    places = sysconfig.get_paths()
    installed = {os.path.realpath(places[name]) for name in ("stdlib", "purelib", "platlib")}
    installed.add(os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..")))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = os.path.realpath(frame.filename)
        if os.path.isfile(file) and not file.startswith(tuple(f"{p}{os.sep}" for p in installed)):
            said = str(error) or "nothing more"
            return (
                f"{frame.filename}, line {frame.lineno}, in {frame.name}: raised "
                f"{type(error).__name__}: {said}; MBRL_TRACEBACK=1 shows where it was called"
            )
    return None


def _text(error: BaseException) -> str:
    from mbrl.plain import words

    if not isinstance(error, OSError) or not error.errno:
        return str(error)
    return f"{error.filename}: {words(error.errno)}" if error.filename else words(error.errno)


def _print_about(version: bool) -> None:
    if not version:
        print("usage: mbrl COMMAND ...   (mbrl COMMAND --help says more)\n")
        for name, (_, text) in COMMANDS.items():
            print(f"  {name:10} {text}")
        print("\nmbrl --version gives the versions of this and of what its numbers depend on")
        return
    from importlib import metadata

    names = ("rolloutlab", "torch", "mujoco", "gymnasium", "numpy")
    own, *others = [f"{name} {metadata.version(name)}" for name in names]
    print(f"{own} ({', '.join(others)})")


def _expected() -> tuple[type[BaseException], ...]:
    """Errors that end in one line; those of a module that was never loaded were not raised."""
    from experiments.cli.names import Wrong

    named = {
        "gymnasium.error": ("Error",),
        "envs": ("SimulationDiverged",),
        "experiments.peers": ("PeerError",),
        "mbrl.training": ("EnvironmentError", "RunError"),
        "mbrl.training.executor": ("ExecutorError",),
    }
    loaded = [
        getattr(sys.modules[module], name)
        for module, names in named.items()
        if module in sys.modules
        for name in names
        if hasattr(sys.modules[module], name)
    ]
    return (Wrong, ValueError, OSError, ModuleNotFoundError, *loaded)


if __name__ == "__main__":
    main()
