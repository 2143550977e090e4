"""Runs packed as bytes, to be sent to another machine and back."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from mbrl.training.checkpoint import (
    CONFIG,
    DIGESTS,
    STATE,
    WEIGHTS,
    Run,
    RunError,
    sync,
    written_whole,
)
from mbrl.training.metrics import METRICS, TIMINGS

Packed = dict[str, bytes]
"""Contents by name in the run's folder: config, metrics, timings and the newest checkpoint."""

_LOGS = (METRICS, TIMINGS)
_FILES = (WEIGHTS, STATE, DIGESTS)
_CHECKPOINT = re.compile(rf"checkpoints/([0-9]+)/({'|'.join(map(re.escape, _FILES))})")


def pack(path: Path) -> Packed:
    """The files of a run that are needed to continue it and to read its metrics elsewhere.

    No other process may write to the run meanwhile.

    Raises:
        RunError: `path` is not a run folder.
    """
    run = Run.open(path)
    packed = {
        name: (path / name).read_bytes() for name in (CONFIG, *_LOGS) if (path / name).exists()
    }
    newest = run.newest()
    if newest is not None:
        for name in _FILES:
            packed[f"checkpoints/{newest.stem}/{name}"] = (newest / name).read_bytes()
    return packed


def unpack(packed: Mapping[str, bytes], path: Path) -> None:
    """Write the packed files into a run's folder; its other files, such as plots, are kept.

    A new folder appears complete or not at all. In an existing one the log is written before the
    checkpoint, each file atomically, so that a process that dies in between leaves a run that can
    be continued.

    Raises:
        RunError: `packed` has files that do not belong to a run, or lacks some; nothing is written
            then. The folder exists and is not a run's, or another process has created it; or the
            files cannot be written.
    """
    steps = _check_names(packed)
    try:
        if path.exists():
            _update(packed, steps, Run.open(path))
        else:
            _create(packed, steps, path)
    except OSError as error:
        raise RunError(f"cannot write run {path}: {error.strerror}") from error


def _check_names(packed: Mapping[str, bytes]) -> str | None:
    """Check the names; returns the checkpoint's environment steps, None without a checkpoint."""
    found: dict[str, set[str]] = {}
    for name in packed:
        match = _CHECKPOINT.fullmatch(name)
        if match:
            found.setdefault(match[1], set()).add(match[2])
        elif name not in (CONFIG, *_LOGS):
            raise RunError(f"a packed run cannot hold {name!r}")
    if CONFIG not in packed:
        raise RunError(f"a packed run lacks {CONFIG}")
    if len(found) > 1 or any(files != {*_FILES} for files in found.values()):
        raise RunError("a packed run must hold one whole checkpoint or none")
    return next(iter(found), None)


def _create(packed: Mapping[str, bytes], steps: str | None, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.mkdir(parents=True)
        for name in (CONFIG, *_LOGS):
            if name in packed:
                _write(temporary / name, packed[name])
        if steps is not None:
            (temporary / "checkpoints").mkdir()
            _write_checkpoint(packed, steps, temporary / "checkpoints" / steps)
            sync(temporary / "checkpoints")
        sync(temporary)
        temporary.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _update(packed: Mapping[str, bytes], steps: str | None, run: Run) -> None:
    for name in (CONFIG, *_LOGS):
        if name in packed:
            with written_whole(run.path / name) as file:
                file.write_bytes(packed[name])
    if steps is not None:
        folder = run.path / "checkpoints"
        shutil.rmtree(temporary := folder / f".{steps}.tmp", ignore_errors=True)
        folder.mkdir(exist_ok=True)
        _write_checkpoint(packed, steps, temporary)
        run.place(temporary, folder / steps)


def _write_checkpoint(packed: Mapping[str, bytes], steps: str, folder: Path) -> None:
    folder.mkdir()
    for name in _FILES:
        _write(folder / name, packed[f"checkpoints/{steps}/{name}"])
    sync(folder)


def _write(path: Path, contents: bytes) -> None:
    path.write_bytes(contents)
    sync(path)
