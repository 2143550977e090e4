"""Metrics of a run: always as JSON lines, and optionally in TensorBoard or Weights & Biases."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

from mbrl.parts import require_extra
from mbrl.training.files import RunError, as_run_error, open_file, parsed_json, read_file

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"


class Sink(Protocol):
    """Receives each line when it is logged."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Log a line; it has `kind`, `env_steps` and values by name."""
        ...

    def close(self) -> None:
        """Write what is buffered."""
        ...


class MetricsLog:
    """Appends lines, each a JSON object, to `metrics.jsonl`; `env_steps` never decreases.

    Numbers that are not finite are written as null. No line contains the time of day or a duration,
    so that two runs with the same seed write the same bytes.
    """

    def __init__(self, folder: Path, *, sinks: Sequence[Sink] = ()) -> None:
        self._path, self._sinks = folder / METRICS, sinks
        self._opened: IO[bytes] | None = None
        self._steps = 0

    @property
    def _file(self) -> IO[bytes]:
        """The file, opened at the first write, so that a run that fails to start leaves none."""
        if self._opened is None:
            self._opened = appended(self._path)
        return self._opened

    def write(self, kind: str, env_steps: int, values: Mapping[str, Any]) -> None:
        """Log `values` under `kind` at `env_steps`.

        Raises:
            ValueError: `env_steps` is less than in the last line.
            RunError: the file cannot be written.
        """
        if env_steps < self._steps:
            raise ValueError(f"env_steps {env_steps} lies before the last line's {self._steps}")
        self._steps = env_steps
        line = {"kind": kind, "env_steps": env_steps} | {k: _plain(v) for k, v in values.items()}
        with as_run_error(self._path):
            self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            self._file.flush()
        for sink in self._sinks:
            sink.write(line)

    def sync(self) -> int:
        """Put all lines on disk; returns the file's size in bytes.

        Raises:
            RunError: the file cannot be written.
        """
        with as_run_error(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size

    def check(self, size: int) -> int:
        """Check that the file can be rewound to `size` bytes.

        All lines are checked, also those after `size`. The last line may be incomplete, because a
        killed process can leave one.

        Returns:
            `env_steps` of the last line before `size`, 0 if there is none.

        Raises:
            ValueError: the file is shorter than `size`, or no line ends there.
            RunError: a line that is not one of metrics; the message has its number.
        """
        try:
            data = read_file(self._path)
        except FileNotFoundError:
            data = b""
        _parsed(data, self._path)
        if not 0 <= size <= len(data):
            raise ValueError(f"{self._path} is shorter than its checkpoint says ({size} bytes)")
        if size and data[size - 1 : size] != b"\n":
            raise ValueError(f"{self._path} has no line that ends where its checkpoint says")
        kept = _parsed(data[:size], self._path)
        return kept[-1]["env_steps"] if kept else 0

    def rewind(self, size: int) -> None:
        """Delete everything after the first `size` bytes of the file.

        Raises:
            ValueError, RunError: see `check`; nothing is deleted then.
        """
        self._steps = self.check(size)
        with as_run_error(self._path):
            self._file.flush()
            self._file.truncate(size)

    def close(self) -> None:
        """Close the file and the sinks."""
        if self._opened is not None:
            with as_run_error(self._path):
                self._opened.close()
        for sink in self._sinks:
            sink.close()


def appended(path: Path) -> IO[bytes]:
    """A file opened for appending, created if missing; raises RunError for a link (`open_file`)."""
    return os.fdopen(open_file(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "ab")


class TensorBoardSink:
    """Writes scalars for TensorBoard, with tags kind/name, to the folder `tensorboard`.

    Raises:
        ModuleNotFoundError: the extra `tensorboard` is not installed.
    """

    @staticmethod
    def check() -> None:
        """Raise ModuleNotFoundError if it is not installed; the message says what to install."""
        require_extra("tensorboard", "tensorboard")

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _writer(self) -> Any:  # made at the first line: a run that fails to start leaves no file
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder / "tensorboard"))

    def write(self, line: Mapping[str, Any]) -> None:
        """Every number of the line."""
        for name, value in line.items():
            if isinstance(value, int | float) and name != "env_steps":
                self._writer.add_scalar(f"{line['kind']}/{name}", value, line["env_steps"])

    def close(self) -> None:
        """Write buffered lines, and close the file."""
        if "_writer" in self.__dict__:
            self._writer.close()


class WandbSink:
    """Sends the same numbers to Weights & Biases.

    Raises:
        ModuleNotFoundError: the extra `wandb` is not installed.
    """

    @staticmethod
    def check() -> None:
        """Raise ModuleNotFoundError if it is not installed; the message says what to install."""
        require_extra("wandb", "wandb")

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _run(self) -> Any:  # as in TensorBoardSink
        import wandb  # pyright: ignore[reportMissingImports]

        return wandb.init(dir=str(self._folder), name=self._folder.name)

    def write(self, line: Mapping[str, Any]) -> None:
        """Every number of the line."""
        self._run.log({f"{line['kind']}/{k}": v for k, v in line.items() if k != "kind"})

    def close(self) -> None:
        """Finish the run."""
        if "_run" in self.__dict__:
            self._run.finish()


SINKS = {"tensorboard": TensorBoardSink, "wandb": WandbSink}


def read_metrics(
    path: Path, kind: str | None = None, *, numbers: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, without an incomplete last line.

    Args:
        path: the file.
        kind: return only lines of this kind; None returns all.
        numbers: names of values that must be finite numbers in each of these lines.

    Raises:
        RunError: there is no file, or a line is not one of metrics; the message has its number.
    """
    try:
        parsed = _parsed(read_file(path), path)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    for number, line in enumerate(parsed, 1):
        for name in numbers if kind in (None, line["kind"]) else ():
            value: Any = line.get(name)
            if type(value) not in (int, float) or not math.isfinite(value):
                raise RunError(f"{path}, line {number}: {name} must be a number that is finite")
    return [line for line in parsed if kind in (None, line["kind"])]


def _parsed(data: bytes, path: Path) -> list[dict[str, Any]]:
    """All complete lines, after checks."""
    wanted = "a JSON object with kind, a text, and env_steps, an integer"
    parsed: list[dict[str, Any]] = []
    for number, text in enumerate(data.split(b"\n")[:-1], 1):
        try:
            line = parsed_json(text, path, wanted)
        except RunError:
            line = None
        line = line if isinstance(line, dict) else {}
        steps = line.get("env_steps")
        if type(steps) is not int or type(line.get("kind")) is not str:
            raise RunError(f"{path}, line {number} is no line of metrics: it must be {wanted}")
        if steps < (parsed[-1]["env_steps"] if parsed else 0):
            raise RunError(f"{path}, line {number}: env_steps {steps} lies before the last line's")
        parsed.append(line)
    return parsed


def _plain(value: Any) -> Any:
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
