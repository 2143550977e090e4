"""One bad invocation, and the command lines that several subjects use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One invocation in a folder that holds the runs `run`, `other`, `far` and `rnd`."""

    name: str
    args: tuple[str, ...]
    says: str
    """Text that the line on stderr must contain."""
    prepare: Callable[[], object] | None = None
    """Called in the working folder before the command; an `ExitStack` that it returns is closed
    afterwards."""
    status: tuple[int, ...] = (2,)
    """Exit statuses that are right."""
    writes: tuple[str, ...] = ()
    """Names in the working folder that may be written to."""
    progress: bool = False
    """Whether lines of progress may precede the last line on stderr."""
    shell: str = ""
    """A line of sh to run in another process, with the command as $mbrl; `args` is then empty."""


class Cases(list[Case]):
    """The cases of one subject."""

    def add(
        self,
        name: str,
        line: str | list[str],
        says: str,
        prepare: Callable[[], object] | None = None,
        **fields,
    ) -> None:
        """Append a case with the command's arguments as one line or as a list."""
        args = tuple(line.split(" ") if isinstance(line, str) else line)
        self.append(Case(name, args, says, prepare, **fields))

    def add_shell(self, name: str, line: str, says: str = "", **fields) -> None:
        """Append a case with a line of sh."""
        self.append(Case(name, (), says, shell=line, **fields))


READERS = {
    "evaluate": "evaluate run --episodes 1",
    "plot": "plot run --episodes 1",
    "audit": "audit run --episodes 1",
    "resume": "train --resume run --steps 180",
    "compare": "compare run --out c.png",
    "mpc": "mpc --env cartpole-swingup --model run --steps 1 --out drive",
}
"""Commands that read the folder `run`."""

SMALL_SEARCH = [
    "--planner.horizon=3",
    "--planner.population=4",
    "--planner.iterations=1",
    "--planner.elites=2",
]
"""Options of a search that takes little time."""
