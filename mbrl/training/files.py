"""Reading and opening files without following links, with errors of one line."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mbrl.plain import shown, words

MOST_JSON, DEPTH = 1_000_000, 30
"""Maximum size of a JSON file of a run, in bytes, and maximum depth of its nesting."""


class RunError(Exception):
    """A run folder cannot be created, opened, saved or resumed; the message gives the reason."""


def file_error(error: BaseException, file: Path, wanted: str) -> RunError:
    """A RunError of one line for an error that another library raised about a file.

    It names the file, what is wrong with it and what is accepted. The library's own text is not
    used, because it may contain control characters of the file, or advise to load it unsafely.
    """
    if isinstance(error, RunError):
        return error
    code = error_code(error)
    if code is not None:
        return RunError(f"{file}: {words(code)}")
    if isinstance(error, json.JSONDecodeError):
        wrong = f"line {error.lineno}, column {error.colno} is not JSON"
    elif isinstance(error, UnicodeDecodeError):
        wrong = "it is not text in UTF-8"
    elif isinstance(error, RecursionError):
        wrong = "it is nested too deeply"
    elif isinstance(error, MemoryError):
        wrong = "there is not enough memory for it"
    else:
        wrong = "it holds something else"
    return RunError(f"{file} cannot be read: {wrong}; it must be {wanted}")


def error_code(error: BaseException) -> int | None:
    """The operating system's number of an error, None for others.

    Libraries in Rust have the number only in the text of their errors.
    """
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"os error (\d+)", str(error))
    return None if found is None else int(found[1])


@contextmanager
def as_run_error(file: Path, wanted: str = "a file of a run") -> Iterator[None]:
    """A context that turns errors of the operating system into a RunError; see `file_error`.

    Raises:
        RunError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise file_error(error, file, wanted) from error


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file without following links; returns its descriptor.

    A file opened for writing must not have hard links, because their content would change too.

    Raises:
        FileNotFoundError: the file does not exist, and `flags` do not create it.
        RunError: a link, a folder, a pipe or a device; a file that cannot be opened.
    """
    try:
        # without O_NONBLOCK opening a pipe would wait for its other end
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        raise
    except OSError as error:
        if path.is_symlink():  # some systems have another error number for it
            raise RunError(_wrong_kind(path, "a link", "a file")) from error
        raise file_error(error, path, "a file") from error
    found = os.fstat(descriptor)
    wrong = None
    if not stat.S_ISREG(found.st_mode):
        wrong = _kind(found.st_mode)
    elif flags & (os.O_WRONLY | os.O_RDWR) and found.st_nlink > 1:
        wrong = "a hard link"
    if wrong is not None:
        os.close(descriptor)
        raise RunError(_wrong_kind(path, wrong, "a file"))
    return descriptor


def read_file(path: Path, *, most: int | None = None) -> bytes:
    """The bytes of a regular file; see `open_file`.

    Raises:
        FileNotFoundError: the file does not exist.
        RunError: it is not a regular file, cannot be read, or has more than `most` bytes.
    """
    descriptor = open_file(path)
    with as_run_error(path), os.fdopen(descriptor, "rb") as file:
        if most is None:
            return file.read()
        data = file.read(most + 1)
    if len(data) > most:
        raise RunError(f"{path} is too large: it must have at most {most:,} bytes")
    return data


def check_kinds(folder: Path, *, files: tuple[str, ...], folders: tuple[str, ...]) -> None:
    """Check that these names in a folder are missing, or files and folders and not links.

    Raises:
        RunError: one is of another kind; the message names it.
    """
    for wanted, names in (("a file", files), ("a folder", folders)):
        for name in names:
            try:
                mode = (folder / name).lstat().st_mode
            except FileNotFoundError:
                continue
            except OSError as error:
                raise file_error(error, folder / name, wanted) from error
            if _kind(mode) != wanted:
                raise RunError(_wrong_kind(folder / name, _kind(mode), wanted))


def _wrong_kind(path: Path, found: str, wanted: str) -> str:
    kind = wanted.removeprefix("a ")
    return f"{path} is {found}; in a run's folder it must be an ordinary {kind}, so move it away"


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file"))
    return next((name for is_it, name in kinds if is_it(mode)), "a pipe or a device")


def parsed_json(data: bytes, file: Path, wanted: str) -> Any:
    """Parse JSON text; the depth of nesting is limited, and integers must have 64 bits.

    Raises:
        RunError: other text; the message names the file, and the line or the field.
    """
    try:
        value = json.loads(data.decode(), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise file_error(error, file, wanted) from error
    _check_plain(value, file)
    return value


def read_json(path: Path, wanted: str) -> Any:
    """The value in a JSON file; see `read_file` and `parsed_json`."""
    return parsed_json(read_file(path, most=MOST_JSON), path, wanted)


class _TooLong(int):
    """Replaces an integer with too many digits, which would take long to parse."""


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= 20 else _TooLong(2**63)


def _check_plain(value: Any, file: Path) -> None:
    """Check depth and integers without recursion, which deep nesting would exhaust."""
    left: list[tuple[Any, tuple[str, ...]]] = [(value, ())]
    while left:
        each, place = left.pop()
        if len(place) > DEPTH:
            raise RunError(
                f"{file} cannot be read: {shown('.'.join(place[:2]), most=60)} is nested more "
                f"than {DEPTH} deep"
            )
        if isinstance(each, dict):
            left += [(inner, (*place, name)) for name, inner in each.items()]
        elif isinstance(each, list):
            left += [(inner, (*place, str(i))) for i, inner in enumerate(each)]
        elif isinstance(each, int) and not -(2**63) <= each < 2**63:
            field = shown(".".join(place), most=60) or "the value"
            raise RunError(f"{file}: {field} must be an integer of 64 bits, got a larger one")
