"""Command lines as dataclasses: each field is an option, and its docstring is the help text.

Wrong input raises `Wrong`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_type_hints

import tyro
from rich.console import Console

from mbrl.plain import json_text

T = TypeVar("T")

out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)


class Wrong(Exception):
    """Wrong input; one line names the option, the value and what is accepted."""


@dataclass(frozen=True)
class Common:
    """What every command takes."""

    root: Path = Path("runs")
    """Folder of all runs, each in root/environment/algorithm/seed-time."""
    threads: int | None = None
    """Worker threads; all cores if unset."""
    json: bool = False
    """Print one line of JSON last on stdout."""


FLAT = ("agent", "drive", "mpc", "search")
"""Fields whose options have no prefix: --horizon and not --mpc.horizon."""


def flat(kind: type[T]) -> type[T]:
    """The dataclass whose options of the nested configs in `FLAT` have no prefix."""
    hints = get_type_hints(kind)
    inner = [f for f in dataclasses.fields(cast(Any, kind)) if f.name in FLAT]
    if not inner:
        return kind
    fields = []
    for field in inner:
        hint = flat(hints[field.name])
        start = _start(field, hints[field.name], hint)
        fields.append((field.name, Annotated[hint, tyro.conf.arg(name="")], start))
    made = dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True)
    made.__doc__ = kind.__doc__
    return made


def _start(field: Any, kind: Any, flattened: Any) -> Any:
    if field.default_factory is dataclasses.MISSING:
        return dataclasses.field(default_factory=flattened)
    return dataclasses.field(default_factory=lambda: _as(flattened, field.default_factory()))


def _as(kind: type[T], value: Any) -> T:
    """The same values in a class with the same fields, nested ones likewise."""
    hints = get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(cast(Any, kind)):
        held, wanted = getattr(value, field.name), hints[field.name]
        again = isinstance(wanted, type) and dataclasses.is_dataclass(wanted)
        values[field.name] = _as(wanted, held) if again and type(held) is not wanted else held
    return kind(**values)


_BOX = re.compile("[╭╮╰╯│─]|-{3,}")  # the latter where there are only ASCII's characters


def parse(kind: type[T], prog: str, args: Sequence[str], default: T | None = None) -> T:
    """Parse by tyro, whose boxed complaint becomes one line.

    Raises:
        Wrong: an unknown option, or a value that is none.
    """
    complaint, taken = io.StringIO(), flat(kind)
    try:
        with contextlib.redirect_stderr(complaint):
            start = tyro.MISSING_NONPROP if default is None else _as(taken, default)
            return _as(kind, tyro.cli(taken, prog=prog, args=list(args), default=start))
    except SystemExit as exit:
        if exit.code in (0, None):
            raise
        words = " ".join(_BOX.sub(" ", complaint.getvalue()).split())
        words = re.sub(r"(Invalid choice|Unrecognized options) \1", r"\1", words, flags=re.I)
        words = re.sub(
            "^Value error Error parsing [^:]+: (.* must .*) For full helptext.*", r"\1", words
        )
        raise Wrong(words or f"{prog}: cannot read {' '.join(args)}") from None


def check_least(parsed: Any, **least: int) -> None:
    """Check that options are not below their least values, nor above what `MOST` says.

    Unset options are not checked.

    Raises:
        Wrong: one that is smaller, or larger.
    """
    for name, bound in least.items():
        value, most = getattr(parsed, name), MOST.get(name, 2**63 - 1)
        if value is not None and not bound <= value <= most:
            accepted = f">= {bound}" if value < bound else f"<= {most}"
            raise Wrong(f"--{name.replace('_', '-')} must be {accepted}, got {value}")


MOST = {
    "seeds": 1_000_000,
    "episodes": 1_000_000,
    "repeats": 1_000_000,
    "num_envs": 65_536,
    "threads": 1024,
    "workers": 1024,
}
"""The largest values of options that say how often to do something, or on how many cores."""


def check_new(path: Path) -> None:
    """Hold a folder to be written to one that is not there yet.

    Raises:
        Wrong: it is.
    """
    if path.exists():
        raise Wrong(f"{path} exists already")


def check_name(what: str, name: str, names: Iterable[str]) -> None:
    """Check that a name exists.

    Raises:
        Wrong: it does not; the message gives the nearest names and all names.
    """
    there = list(names)
    if name not in there:
        near = difflib.get_close_matches(name, there, 3, 0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise Wrong(f"unknown {what} {name!r}: {hint}there are {', '.join(there)}")


def peek(args: Sequence[str], name: str, default: str) -> str:
    """The value of an option on which the defaults of others depend, before these are parsed."""
    for place, arg in enumerate(args):
        if arg == name and place + 1 < len(args):
            return args[place + 1]
        if arg.startswith(f"{name}="):
            return arg.removeprefix(f"{name}=")
    return default


def set_threads(parsed: Common) -> None:
    """Give torch the threads asked for, or one for each core that this process may use.

    Raises:
        Wrong: fewer than one.
    """
    import torch

    from mbrl.parallel import cores

    check_least(parsed, threads=1)
    torch.set_num_threads(parsed.threads or cores())


def say(text: str) -> None:
    """A line on stderr, as it is."""
    err.print(text, highlight=False, markup=False, soft_wrap=True)


def emit(parsed: Common, summary: Any) -> None:
    """The line of JSON, where it was asked for; numbers that are not finite are null in it."""
    if parsed.json:
        print(json_text(summary))
