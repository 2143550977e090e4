"""What the scripts of all peers share: they answer requests until stdin ends.

The Python of a peer lacks this repository's packages, so a script loads this file by its path:

    serving = runpy.run_path(str(Path(__file__).with_name("serving.py")))
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def accepted(option: str, value: object, choices: Iterable[object]) -> Any:
    """The value; raises ValueError if it is not among the choices."""
    if value not in choices:
        raise ValueError(f"{option} {value!r} is not one of {', '.join(map(str, choices))}")
    return value


def timed(work: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each of so many calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def info(packages: Sequence[str]) -> dict[str, Any]:
    """Versions of the packages and of Python."""
    versions = {name: version(name) for name in packages}
    return {"versions": versions, "python": platform.python_version()}


def installed(package: str) -> str | None:
    """The version of a package, None if this Python lacks it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def serve(answer: Callable[..., dict[str, Any]]) -> None:
    """Answer each line of JSON on stdin by a line of JSON on stdout, until stdin ends.

    `answer` gets the keys of a request as keyword arguments. A ValueError, TypeError or
    RuntimeError that it raises is answered by {"error": "one line"}.
    """
    # Libraries print: what they print goes to stderr, so that stdout holds answers only.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        try:
            reply = answer(**json.loads(line))
        except (ValueError, TypeError, RuntimeError) as error:
            reply = {"error": " ".join(str(error).split())}
        print(json.dumps(reply), file=answers, flush=True)
