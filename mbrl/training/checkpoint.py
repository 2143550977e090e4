"""A run's folder: created once, saved atomically, resumed exactly, read without running code."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mbrl.plain import json_text

CONFIG, WEIGHTS, STATE = "config.json", "model.safetensors", "state.pt"

FORMAT = 2
"""Version of a checkpoint's files; raised when older ones can no longer be read."""


def write_json(path: Path, value: Any) -> None:
    """Write plain values, whole or not at all; see `json_text`."""
    with written_whole(path) as temporary:
        temporary.write_text(json_text(value, indent=2) + "\n")


def make_folder(path: Path, *, numbered: bool = False) -> Path:
    """Make a folder that no other process makes, and return it.

    With `numbered` it is `path-2`, `path-3`, ... if `path` exists already.

    Raises:
        RunError: it exists already.
    """
    for place in _names(path, numbered):
        with suppress(FileExistsError):
            place.mkdir(parents=True)
            return place
    raise RunError(f"{path} exists already")


def _names(path: Path, numbered: bool) -> Iterator[Path]:
    yield path
    if numbered:
        yield from (path.with_name(f"{path.name}-{k}") for k in range(2, 1000))


class RunError(Exception):
    """A run folder that cannot be created, opened, saved or resumed; the message says why."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary file beside `path`; once the block is done it is on disk as `path`.

    Parent folders are made. Where the block raises, `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


class Run:
    """The folder of one run: `config.json`, `metrics.jsonl`, `checkpoints/`, and so on.

    Only one process at a time may hold a run for writing.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path, self.config = path, dict(config)
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], *, numbered: bool = False) -> Run:
        """A new run; with `numbered`, in `path-2`, `path-3`, ... if `path` exists already.

        Of several processes that create the same folder at once, each gets a folder of its own.

        Raises:
            RunError: something is there already, or the folder cannot be written.
        """
        for place in _names(path, numbered):
            if not place.exists():
                with suppress(FileExistsError):
                    return cls._created(place, config)
        raise RunError(f"run folder {path} exists already; resume it or name another")

    @classmethod
    def _created(cls, path: Path, config: Mapping[str, Any]) -> Run:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            temporary.mkdir(parents=True)
            (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
            sync(temporary / CONFIG)
            temporary.rename(path)
            sync(path.parent)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):  # another process was faster
                raise FileExistsError(path) from error
            raise RunError(f"cannot create run folder {path}: {error.strerror}") from error
        return cls(path, config)

    @classmethod
    def open(cls, path: Path) -> Run:
        """A run that exists.

        Raises:
            RunError: it is not a run folder, or its config.json cannot be read.
        """
        try:
            config = json.loads((path / CONFIG).read_text())
        except FileNotFoundError:
            raise RunError(f"{path} is not a run folder: it holds no {CONFIG}") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise RunError(f"{path / CONFIG} cannot be read: {error}") from None
        if not isinstance(config, dict):
            raise RunError(f"{path / CONFIG} holds no JSON object")
        return cls(path, config)

    def __enter__(self) -> Run:
        """Hold the run for writing.

        Raises:
            RunError: another process holds it.
        """
        self._lock = os.open(self.path / ".lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = None
            raise RunError(f"run {self.path} is being written by another process") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def latest(self) -> int | None:
        """Environment steps at the newest checkpoint, None before the first."""
        newest = self.newest()
        return None if newest is None else int(newest.stem)

    def newest(self) -> Path | None:
        """The folder of the newest checkpoint, None before the first."""
        if not self._checkpoints.is_dir():
            return None
        whole = [path for path in self._checkpoints.iterdir() if path.stem.isdigit()]
        return max(whole, key=lambda path: (int(path.stem), not path.suffix), default=None)

    def save(self, env_steps: int, state: Any) -> None:
        """Make this the newest checkpoint; older ones are deleted once it is on disk.

        Args:
            env_steps: names the checkpoint.
            state: tensors, numbers, strings, None, dicts with string keys, lists and tuples,
                nested. The tensors go to `model.safetensors`, named by their path, the rest to
                `state.pt`.

        Raises:
            RunError: the files cannot be written.
        """
        target = self._checkpoints / str(env_steps)
        temporary = self._checkpoints / f".{env_steps}.tmp"
        tensors: dict[str, Tensor] = {}
        plain = _without_tensors(state, (), tensors)
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            safetensors.torch.save_file(tensors, temporary / WEIGHTS)
            torch.save({"format": FORMAT, "state": plain}, temporary / STATE)
            for written in (temporary / WEIGHTS, temporary / STATE, temporary):
                sync(written)
            self.place(temporary, target)
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:
            raise RunError(f"cannot save checkpoint {target}: {_first_line(error)}") from error

    def place(self, written: Path, target: Path) -> None:
        """Move a folder that is on disk to `checkpoints/<n>`, and delete all other checkpoints."""
        if target.exists():
            # if the process dies between the two renames, the old one is kept as .old
            shutil.rmtree(aside := target.with_suffix(".old"), ignore_errors=True)
            target.rename(aside)
        written.rename(target)
        sync(self._checkpoints)
        for entry in self._checkpoints.iterdir():
            if entry.name != target.name:
                shutil.rmtree(entry, ignore_errors=True)

    def load(self, *, device: torch.device | str = "cpu") -> Any:
        """The state of the newest checkpoint, its tensors on `device`. Runs no code from the files.

        Raises:
            RunError: there is none, it is of another version, or a file is truncated, foreign or
                holds code.
        """
        folder = self.newest()
        if folder is None:
            raise RunError(f"run {self.path} has no checkpoint yet")
        try:
            tensors = safetensors.torch.load_file(folder / WEIGHTS, device=str(device))
        except (OSError, safetensors.SafetensorError) as error:
            raise RunError(
                f"{folder / WEIGHTS} is not a whole safetensors file ({_first_line(error)})"
            ) from None
        try:
            saved = torch.load(folder / STATE, weights_only=True, map_location=device)
        except Exception as error:  # on foreign bytes the unpickler raises exceptions of any type
            raise RunError(
                f"{folder / STATE} is truncated, foreign or holds more than tensors and plain "
                f"values ({_first_line(error)})"
            ) from None
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise RunError(
                f"{folder / STATE} was not saved by this version of the library (format {FORMAT})"
            )
        try:
            return _with_tensors(saved.get("state"), (), tensors)
        except KeyError as error:
            raise RunError(f"{folder / WEIGHTS} lacks the tensor {error}") from None


_TENSOR = "\0tensor"
"""Stands for a tensor in `state.pt`."""


def _without_tensors(state: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    """The nested state with a mark in place of each tensor, which goes to `tensors` by its path."""
    if isinstance(state, Tensor):
        whole = state.detach().contiguous()
        if whole.untyped_storage().nbytes() != whole.nbytes:  # safetensors refuses shared storage
            whole = whole.clone()
        tensors["/".join(path)] = whole
        return _TENSOR
    if isinstance(state, Mapping):
        return {k: _without_tensors(v, (*path, str(k)), tensors) for k, v in state.items()}
    if isinstance(state, list | tuple):
        items = [_without_tensors(v, (*path, str(k)), tensors) for k, v in enumerate(state)]
        return items if isinstance(state, list) else tuple(items)
    return state


def _with_tensors(state: Any, path: tuple[str, ...], tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_without_tensors`."""
    if isinstance(state, str) and state == _TENSOR:
        return tensors["/".join(path)]
    if isinstance(state, dict):
        return {k: _with_tensors(v, (*path, str(k)), tensors) for k, v in state.items()}
    if isinstance(state, list | tuple):
        items = [_with_tensors(v, (*path, str(k)), tensors) for k, v in enumerate(state)]
        return items if isinstance(state, list) else tuple(items)
    return state


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__


def sync(path: Path) -> None:
    """Put a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
