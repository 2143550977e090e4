"""Plain values as JSON, and text that a terminal can show."""

from __future__ import annotations

import errno
import json
import math
import re
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Plain values as JSON, which has no NaN and no infinity: such numbers become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(text: object, *, most: int | None = None) -> str:
    r"""Text with unprintable characters escaped (`\x1b`), cut after `most` characters.

    Use it for names and values read from files before a terminal shows them, because a control
    character could move the cursor, colour the rest of the screen or hide text.
    """
    whole = str(text)
    if most is not None and len(whole) > most:
        whole = f"{whole[:most]}..."
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in whole
    )


_WORDS = {
    errno.EACCES: "permission is denied",
    errno.EDQUOT: "the disk quota is used up",
    errno.EEXIST: "it exists already",
    errno.EFBIG: "it would be larger than a file may be here",
    errno.EIO: "the disk does not read or write it",
    errno.EISDIR: "it is a folder, not a file",
    errno.ELOOP: "it is a link",
    errno.EMFILE: "too many files are open",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ENOENT: "it does not exist",
    errno.ENOLCK: "it cannot be locked on this file system",
    errno.ENOSPC: "the disk is full",
    errno.ENOTDIR: "a file is where a folder should be",
    errno.ENOTEMPTY: "the folder is not empty",
    errno.EPERM: "permission is denied",
    errno.EROFS: "the file system is read-only",
    errno.ETXTBSY: "another program uses it",
}


def words(code: int | None) -> str:
    """The meaning of an error number of the operating system."""
    return _WORDS.get(code or 0, f"the system refuses it (error {code})")


def file_name(text: str) -> str:
    """An id or a label for a file name, without characters that some systems do not allow."""
    return re.sub(r"[/:\\]", "-", text)
