"""Standard output and error as they are: a terminal of few characters, a pipe that ends early."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from collections.abc import Callable
from typing import Any, TextIO

_PLAIN = str.maketrans(
    {
        "α": "alpha", "β": "beta", "γ": "gamma", "λ": "lambda", "μ": "mu", "µ": "mu", "σ": "sigma",
        "π": "pi", "ε": "epsilon", "Δ": "d", "∞": "inf", "√": "sqrt", "→": "->", "↔": "<->",
        "≥": ">=", "≤": "<=", "≈": "~", "×": "x", "·": ".", "−": "-", "–": "-", "—": "-",
        "…": "...", "‘": "'", "’": "'", "“": '"', "”": '"', "½": "1/2", "°": " deg",
    }
)  # fmt: skip


def readable(text: str) -> str:
    """Characters of ASCII that stand for others, as a reader would write them."""
    found = ""
    for character in text.translate(_PLAIN):
        kind = unicodedata.name(character, "")
        if kind.startswith(("BOX DRAWINGS", "BLOCK", "FULL BLOCK")):
            upright = "HORIZONTAL" not in kind and "VERTICAL" in kind
            corner = any(side in kind for side in ("DOWN", "UP", "AND", "ARC"))
            found += "|" if upright and "AND" not in kind else "+" if corner else "-"
            continue
        plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        found += plain or "?"
    return found


def _substitute(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return readable(error.object[error.start : error.end]), error.end


def guarded(work: Callable[[], int]) -> int:
    """The exit status of some work that prints.

    What a stream cannot encode is written in ASCII. Where a reader of a pipe has gone, the status
    is 141, as for other programs; where standard output is closed or full, a line on stderr says
    so, and it is 2.
    """
    codecs.register_error("readable", _substitute)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
    if sys.stdout is None:
        print("mbrl: standard output is closed", file=sys.stderr)
        return 2
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.reconfigure(errors="readable")
    try:
        status = work()
    except BrokenPipeError:
        give_up(*streams)
        return 141
    except SystemExit as exit:  # tyro ends so after a help text
        status = exit.code if isinstance(exit.code, int) else 0
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = 141
        give_up(sys.stdout)
    except OSError as error:
        give_up(sys.stdout)
        if status == 0:
            print(f"mbrl: standard output: {error.strerror}", file=sys.stderr)
            status = 2
    return status


def give_up(*streams: TextIO) -> None:
    """Send what is still unwritten to nowhere, so that flushing it at exit does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
