"""Functions compiled by numba and kept on disk, so that later processes need not compile them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit


def compiled(function: Any = None, /, **options: Any) -> Any:
    """`numba.njit` without the GIL and with a cache on disk; a decorator, with or without options.

    numba recompiles a function only when its own file has changed, although the compiled code also
    contains the functions it calls and the constants it reads. So the name in the cache includes a
    hash of all files of the function's folder; functions outside that folder must not be called.
    If no cache directory can be written, every process compiles again.
    """
    if function is None:
        return lambda function: compiled(function, **options)
    folder = Path(function.__code__.co_filename).parent
    function.__qualname__ = f"{function.__qualname__}_{_digest(folder)}"
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # no writable directory
        return njit(nogil=True, **options)(function)


@cache
def _digest(folder: Path) -> str:
    """A hash of the Python files of a folder, their names included."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
