"""The `mbrl` command: finds the file of a command and runs it; errors end in one line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from experiments.cli.options import Wrong, check_name

COMMANDS = {
    "mpc": ("drive", "drive a robot by planning: mbrl mpc --env ID --planner NAME"),
    "tree": (
        "tree",
        "search a tree, compare it with the exact values: mbrl tree --env ID --rule NAME",
    ),
    "train": ("train", "learn on an environment: mbrl train ALGO --env ID"),
    "evaluate": ("evaluate", "play episodes with a run's agent: mbrl evaluate RUN"),
    "plot": ("plot", "draw a run, or several: mbrl plot RUN..."),
    "compare": ("compare", "a table and a figure over runs: mbrl compare RUN..."),
    "study": ("study", "a whole experiment and its figure: mbrl study NAME"),
    "bench": ("bench", "speed, as ratios measured in one run: mbrl bench NAME"),
    "list": ("listing", "environments, worlds, algorithms, planners, studies, benchmarks, runs"),
}
"""File in `experiments.cli` and help text of each command; the file has `run(args) -> status`."""


def main() -> NoReturn:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command line; returns the exit status.

    0 done, 2 wrong input or a run that cannot go on (one line on stderr), 130 interrupted.
    """
    if not args or args[0] in ("-h", "--help"):
        print("usage: mbrl COMMAND ...   (mbrl COMMAND --help says more)\n")
        for name, (_, text) in COMMANDS.items():
            print(f"  {name:9} {text}")
        return 0
    try:
        command, *rest = args
        check_name("command", command, COMMANDS)
        return importlib.import_module(f"experiments.cli.{COMMANDS[command][0]}").run(rest)
    except KeyboardInterrupt:
        print("mbrl: interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # those not expected are raised again, with their traceback
        if os.environ.get("MBRL_TRACEBACK") or not isinstance(error, _expected()):
            raise
        print(f"mbrl: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _expected() -> tuple[type[Exception], ...]:
    """Errors that end in one line; imported only after one was raised."""
    import gymnasium

    import envs
    from experiments.peers import PeerError
    from mbrl.training import EnvironmentError, RunError
    from mbrl.training.executor import ExecutorError

    return (
        Wrong,
        RunError,
        ExecutorError,
        PeerError,
        EnvironmentError,
        envs.SimulationDiverged,
        gymnasium.error.Error,
        ValueError,
        OSError,
        ModuleNotFoundError,
    )


if __name__ == "__main__":
    main()
