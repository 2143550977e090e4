"""A run's folder: atomic checkpoints, exact resumption, and reading that executes no code."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mbrl.plain import json_text, shown, words
from mbrl.training.files import (
    MOST_JSON,
    RunError,
    as_run_error,
    check_kinds,
    error_code,
    file_error,
    open_file,
    parsed_json,
    read_json,
)
from mbrl.training.metrics import METRICS, TIMINGS

CONFIG, WEIGHTS, STATE, DIGESTS = "config.json", "model.safetensors", "state.pt", "digests.json"

FORMAT = 3
"""Version of a checkpoint's files; increased when older ones can no longer be read."""

MAY_CHANGE = ("steps", "device", "until_return", "until_episodes")
"""Fields of a config that may change when a run is continued."""

_LOCK = ".lock"
_FILES = (DIGESTS, WEIGHTS, STATE)  # the files of a checkpoint
_CHECKPOINT = re.compile(r"(0|[1-9][0-9]{0,17})(\.old)?")
_UNFINISHED = re.compile(r"\.[0-9]{1,18}\.tmp")


def write_json(path: Path, value: Any) -> None:
    """Write plain values atomically as JSON; see `json_text` and `written_whole`."""
    with written_whole(path) as temporary:
        temporary.write_text(json_text(value, indent=2) + "\n")


def make_folder(path: Path, *, numbered: bool = False) -> Path:
    """Create a new folder, which no other process can create too, and return it.

    With `numbered` it is `path-2`, `path-3`, ... if `path` exists already.

    Raises:
        RunError: the folder exists already or cannot be created.
    """
    for place in _names(path, numbered):
        with as_run_error(place), suppress(FileExistsError):
            place.mkdir(parents=True)
            return place
    raise RunError(f"{path} exists already")


def _names(path: Path, numbered: bool) -> Iterator[Path]:
    yield path
    if numbered:
        yield from (path.with_name(f"{path.name}-{k}") for k in range(2, 1000))


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file atomically: yields a temporary file, which replaces `path` after the block.

    Parent folders are created. If the block raises an exception, `path` does not change.

    Raises:
        RunError: the file cannot be written, or `path` is a folder, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise RunError(f"{path} is {kind}; a file is to be written there, so move it away")
    # a random name, so that nobody can have created a link of that name
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        with as_run_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    except safetensors.SafetensorError as error:  # it contains an error of the system as text
        raise file_error(error, path, "a file") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_run_folder(path: Path) -> None:
    """Check that the files and folders of a run are files and folders, and not links.

    Raises:
        RunError: one is of another kind; the message names it.
    """
    check_kinds(
        path,
        files=(CONFIG, METRICS, TIMINGS, _LOCK, "evaluation.json"),
        folders=("checkpoints", "plots", "videos", "tensorboard", "wandb"),
    )
    for drawn in ("plots", "videos"):
        with as_run_error(path / drawn), suppress(FileNotFoundError):
            names = os.listdir(path / drawn)
            made = tuple(name for name in names if name.endswith((".png", ".json", ".mp4")))
            check_kinds(path / drawn, files=made, folders=())


class Run:
    """The folder of one run: `config.json`, `metrics.jsonl`, `checkpoints/`, and so on.

    Only one process at a time can write to a run: use the run as a context manager to lock it. Only
    files and folders that this class has written are ever deleted.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path, self.config = path, dict(config)
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], *, numbered: bool = False) -> Run:
        """Create a run; with `numbered`, in `path-2`, `path-3`, ... if `path` exists already.

        Processes that create the same numbered folder at the same time get different folders.

        Raises:
            RunError: the path exists already, or the folder cannot be written.
        """
        for place in _names(path, numbered):
            if not os.path.lexists(place):
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
            raise RunError(f"cannot create run folder {path}: {words(error.errno)}") from error
        return cls(path, config)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open an existing run.

        Raises:
            RunError: the path is not a run folder, its config.json cannot be read, or a file or
                folder in it is a link or of another kind.
        """
        check_run_folder(path)
        return cls(path, _read_config(path))

    def __enter__(self) -> Run:
        """Lock the run for writing.

        Raises:
            RunError: another process has locked it, or the folder cannot be written; see `open`.
        """
        lock = open_file(self.path / _LOCK, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            check_run_folder(self.path)
            for name in (METRICS, TIMINGS):  # opened for writing, which refuses hard links too
                with suppress(FileNotFoundError):
                    os.close(open_file(self.path / name, os.O_RDWR))
        except BlockingIOError:
            os.close(lock)
            raise RunError(f"run {self.path} is being written by another process") from None
        except OSError as error:
            os.close(lock)
            raise file_error(error, self.path / _LOCK, "a file") from error
        except RunError:
            os.close(lock)
            raise
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def extend(self, steps: int, **end: Any) -> None:
        """Write another number of steps, and other fields of where the run ends, to config.json.

        Raises:
            RunError: the run has more steps already, or the file cannot be written.
        """
        latest = self.latest() or 0
        if steps < latest:
            raise RunError(f"{self.path} is at step {latest} already, beyond {steps}")
        self.config = _read_config(self.path) | {"steps": steps} | end
        write_json(self.path / CONFIG, self.config)

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def latest(self) -> int | None:
        """Environment steps at the newest checkpoint; None if there is no checkpoint."""
        newest = self.newest()
        return None if newest is None else int(newest.stem)

    def newest(self) -> Path | None:
        """The folder of the newest checkpoint; folders without any checkpoint file are ignored."""
        before: set[str] | None = None
        while (names := self._names()) != before:  # again if another process wrote meanwhile
            before = names
            whole = [
                self._checkpoints / name
                for name in names
                if _CHECKPOINT.fullmatch(name) and _ours(self._checkpoints / name)
            ]
            if whole:
                return max(whole, key=lambda path: (int(path.stem), not path.suffix))
        return None

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self._checkpoints))
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise file_error(error, self._checkpoints, "a folder") from error

    def said(self) -> str:
        """The step of the newest checkpoint, as a clause for a message."""
        latest = self.latest()
        return "it has no checkpoint yet" if latest is None else f"its last one is at step {latest}"

    def goes_on_from(self) -> str:
        """The point from which the run would be continued, as words for a message."""
        latest = self.latest()
        return "its start" if latest is None else f"its checkpoint at step {latest}"

    def save(self, env_steps: int, state: Any) -> None:
        """Write a checkpoint; older ones are deleted when it is on disk.

        Only the files of checkpoints, in folders named like checkpoints, are deleted; everything
        else in `checkpoints/` is kept.

        Args:
            env_steps: number of environment steps, the name of the checkpoint.
            state: tensors, numbers, strings, None, dicts with string keys, lists and tuples,
                nested. The tensors are written to `model.safetensors`, named by their path, the
                rest to `state.pt`; `digests.json` has the sha256 of both.

        Raises:
            RunError: the files cannot be written; the last checkpoint is not changed.
        """
        check_kinds(self.path, files=(), folders=("checkpoints",))
        target = self._checkpoints / str(env_steps)
        temporary = self._checkpoints / f".{env_steps}.tmp"
        aside = target.with_name(f"{env_steps}.old")
        check_kinds(self._checkpoints, files=(), folders=(temporary.name, target.name, aside.name))
        if target.exists() and not _ours(target):
            raise RunError(
                f"cannot save checkpoint {target}: another folder has that name, so move it away "
                f"({self.said()})"
            )
        tensors: dict[str, Tensor] = {}
        plain = _without_tensors(state, (), tensors)
        if not _is_plain(plain):
            raise RunError(
                f"cannot save checkpoint {target}: the agent's state_dict may hold only tensors, "
                "numbers, texts, None, and lists, tuples and dicts of these"
            )
        written = io.BytesIO()
        try:
            torch.save({"format": FORMAT, "state": plain}, written)
            _remove(temporary)
            if temporary.exists():
                raise RunError(
                    f"cannot save checkpoint {temporary}: there is a folder of that name"
                )
            temporary.mkdir(parents=True)
            # not by save_file, whose own temporary file would stay where the process is killed
            _write(temporary / WEIGHTS, safetensors.torch.save(tensors))
            _write(temporary / STATE, written.getvalue())
            _write(temporary / DIGESTS, self._digests(env_steps, temporary))
            sync(temporary)
            self.place(temporary, target)
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:
            _remove(temporary)  # to free space on a full disk
            code = error_code(error)
            why = "a value in it cannot be written" if code is None else words(code)
            raise RunError(f"cannot save checkpoint {target}: {why} ({self.said()})") from error

    def place(self, written: Path, target: Path) -> None:
        """Rename a complete checkpoint to `checkpoints/<n>`, and delete all other checkpoints."""
        if target.exists():
            # if the process dies between the two renames, the old one is kept as .old
            aside = target.with_name(f"{target.name}.old")
            _remove(aside)
            target.rename(aside)
        written.rename(target)
        sync(self._checkpoints)
        for name in self._names() - {target.name}:
            if _CHECKPOINT.fullmatch(name) or _UNFINISHED.fullmatch(name):
                _remove(self._checkpoints / name)

    def _digests(self, env_steps: int, folder: Path) -> bytes:
        files = {}
        for name in (WEIGHTS, STATE):
            with (folder / name).open("rb") as file:
                files[name] = hashlib.file_digest(file, "sha256").hexdigest()
        kept = {
            "format": FORMAT,
            "run": self._config_digest(),
            "env_steps": env_steps,
            "files": files,
        }
        return json.dumps(kept, indent=2).encode() + b"\n"

    def _config_digest(self, without: Collection[str] = MAY_CHANGE) -> str:
        """A digest of the config without some fields, which distinguishes the run from others."""
        own = {k: v for k, v in self.config.items() if k not in without}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()

    def load(self, *, device: torch.device | str = "cpu") -> Any:
        """The state of the newest checkpoint, with its tensors on `device`.

        No code in the files is executed. If another process saves meanwhile, the newer checkpoint
        is loaded.

        Raises:
            RunError: there is no checkpoint, or it is of another version or another run, or it has
                a file that is missing, unknown, changed since it was saved, or of another kind.
        """
        while True:
            folder = self.newest()
            if folder is None:
                raise RunError(f"run {self.path} has no checkpoint yet")
            before = _identity(folder)
            try:
                return self._load(folder, device)
            except RunError:
                newest = self.newest()
                if newest == folder and _identity(folder) == before is not None:
                    raise  # no other process has replaced it, so it is broken

    def _load(self, folder: Path, device: torch.device | str) -> Any:
        check_kinds(self.path, files=(), folders=("checkpoints",))
        check_kinds(self._checkpoints, files=(), folders=(folder.name,))
        with ExitStack() as stack:
            # all are opened before any is read, because another process may delete them meanwhile
            files = {name: stack.enter_context(_opened(folder / name)) for name in _FILES}
            with as_run_error(folder):
                others = sorted(set(os.listdir(folder)) - set(_FILES))
                data = {name: file.read() for name, file in files.items()}
        if others:
            raise RunError(
                f"{folder / shown(others[0])} does not belong to the checkpoint, which has "
                f"only {', '.join(_FILES)}; move it away"
            )
        self._check_digests(folder, data)
        tensors = _tensors(data[WEIGHTS], folder / WEIGHTS, device)
        plain = _plain(data[STATE], folder / STATE)
        try:
            state = _with_tensors(plain, (), tensors)
        except KeyError as error:
            raise RunError(f"{folder / WEIGHTS} lacks the tensor {shown(error)}") from None
        if tensors:
            raise RunError(
                f"{folder / WEIGHTS} holds a tensor {shown(next(iter(tensors)), most=60)!r} of "
                f"which {STATE} knows nothing"
            )
        return state

    def _check_digests(self, folder: Path, data: Mapping[str, bytes]) -> None:
        file, wanted = folder / DIGESTS, "digests of a checkpoint's files"
        if len(data[DIGESTS]) > MOST_JSON:
            raise RunError(f"{file} is too large: it must have at most {MOST_JSON:,} bytes")
        kept = parsed_json(data[DIGESTS], file, wanted)
        if not isinstance(kept, dict) or not isinstance(kept.get("files"), dict):
            raise RunError(f"{file} cannot be read: it must be {wanted}")
        if kept.get("format") != FORMAT:
            raise RunError(
                f"{file} was not saved by this version of the library (which reads format {FORMAT})"
            )
        for name in (WEIGHTS, STATE):
            if kept["files"].get(name) != hashlib.sha256(data[name]).hexdigest():
                raise RunError(
                    f"{folder / name} is not as it was saved (its sha256 differs from that in "
                    f"{DIGESTS}): it is truncated, damaged or another checkpoint's"
                )
        # the second is that of checkpoints whose version took the return that ends a run as fixed
        digests = self._config_digest(), self._config_digest(MAY_CHANGE[:2])
        if kept.get("run") not in digests:
            raise RunError(
                f"{file} is of another run, or {self.path / CONFIG} was changed since it was saved"
            )
        if kept.get("env_steps") != int(folder.stem):
            raise RunError(f"{file} is of another step than its folder's name says")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path / CONFIG, "one JSON object")
    except FileNotFoundError:
        raise RunError(f"{path} is not a run folder: it holds no {CONFIG}") from None
    if not isinstance(config, dict):
        raise RunError(f"{path / CONFIG} holds no JSON object")
    return config


def _ours(folder: Path) -> bool:
    """Whether a folder has any file of a checkpoint, or is a link, which `load` refuses."""
    return folder.is_symlink() or any(os.path.lexists(folder / name) for name in _FILES)


def _remove(folder: Path) -> None:
    """Delete the files of a checkpoint, and its folder if it is then empty."""
    if folder.is_symlink():
        return
    for name in _FILES:
        with suppress(OSError):
            (folder / name).unlink()
    with suppress(OSError):
        folder.rmdir()


def _identity(folder: Path) -> tuple[int, int] | None:
    """Distinguishes a folder from a later one of the same name; None if it does not exist."""
    try:
        found = folder.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def _opened(file: Path) -> io.BufferedReader:
    try:
        return os.fdopen(open_file(file), "rb")
    except FileNotFoundError:
        why = "is missing"
        if file.name == DIGESTS:
            why = (
                f"is missing: either it was removed, or the checkpoint was saved by an older "
                f"version of the library (this one reads format {FORMAT})"
            )
        raise RunError(f"{file} {why}") from None


def _tensors(data: bytes, file: Path, device: torch.device | str) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name."""
    try:
        found = safetensors.torch.load(data)
        return {name: tensor.to(device) for name, tensor in found.items()}
    except Exception as error:  # other bytes raise exceptions of many types
        raise file_error(error, file, "a whole safetensors file") from error


def _plain(data: bytes, file: Path) -> Any:
    """The plain values of a state file, loaded without executing code."""
    wanted = f"tensors' places and plain values, saved by this library in format {FORMAT}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the unpickler warns of files in other formats
            saved = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        if type(saved) is not dict or saved.get("format") != FORMAT or not _is_plain(saved):
            raise TypeError
        return saved["state"]
    except Exception as error:  # for other bytes the unpickler raises exceptions of any type
        raise file_error(error, file, wanted) from error


def _is_plain(value: Any, depth: int = 0) -> bool:
    if depth > 100:
        return False
    if type(value) is dict:
        return all(type(k) in (str, int) and _is_plain(v, depth + 1) for k, v in value.items())
    if type(value) in (list, tuple):
        return all(_is_plain(each, depth + 1) for each in value)
    return value is None or type(value) in (str, int, float, bool)


def _write(file: Path, data: bytes) -> None:
    """Write a new file, and wait until it is on disk."""
    with file.open("xb") as new:
        new.write(data)
        new.flush()
        os.fsync(new.fileno())


_TENSOR = "\0tensor"
"""Replaces a tensor in `state.pt`."""


def _without_tensors(state: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    """The nested state without its tensors, which are moved to `tensors`, named by their path."""
    if isinstance(state, Tensor):
        whole = state.detach().contiguous()
        storage = whole.untyped_storage()
        shared = any(storage.data_ptr() == t.untyped_storage().data_ptr() for t in tensors.values())
        if shared or storage.nbytes() != whole.nbytes:  # safetensors refuses shared storage
            whole = whole.clone()
        tensors["/".join(path)] = whole
        return _TENSOR
    if isinstance(state, Mapping):
        return {k: _without_tensors(v, (*path, str(k)), tensors) for k, v in state.items()}
    if isinstance(state, list | tuple):
        items = [_without_tensors(v, (*path, str(k)), tensors) for k, v in enumerate(state)]
        return items if isinstance(state, list) else tuple(items)
    return state


def _with_tensors(state: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    """The inverse of `_without_tensors`; removes the tensors from `tensors`."""
    if isinstance(state, str) and state == _TENSOR:
        return tensors.pop("/".join(path))
    if isinstance(state, dict):
        return {k: _with_tensors(v, (*path, str(k)), tensors) for k, v in state.items()}
    if isinstance(state, list | tuple):
        items = [_with_tensors(v, (*path, str(k)), tensors) for k, v in enumerate(state)]
        return items if isinstance(state, list) else tuple(items)
    return state


def sync(path: Path) -> None:
    """Wait until a file, or the list of files in a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
