"""Numbers of a run: always as JSON lines, and if asked for in TensorBoard or W&B."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"


class Sink(Protocol):
    """Takes each line as it is logged."""

    def write(self, line: Mapping[str, Any]) -> None:
        """One line; `env_steps` says when."""
        ...

    def close(self) -> None:
        """Write what is buffered."""
        ...


class MetricsLog:
    """Appends one JSON object a line to `metrics.jsonl`; `env_steps` never falls.

    Numbers that are not finite are written as null. No line holds the time of day or a
    duration, so that two runs of the same seed write the same bytes.
    """

    def __init__(self, folder: Path, *, sinks: Sequence[Sink] = ()) -> None:
        self._path, self._sinks = folder / METRICS, sinks
        self._file = self._path.open("ab")
        self._steps = 0

    def write(self, kind: str, env_steps: int, values: Mapping[str, Any]) -> None:
        """Log `values` under `kind` at `env_steps`.

        Raises:
            ValueError: `env_steps` lies before the last line's.
        """
        if env_steps < self._steps:
            raise ValueError(f"env_steps {env_steps} lies before the last line's {self._steps}")
        self._steps = env_steps
        line = {"kind": kind, "env_steps": env_steps} | {k: _plain(v) for k, v in values.items()}
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()
        for sink in self._sinks:
            sink.write(line)

    def sync(self) -> int:
        """Put all lines on disk; returns the file's size in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._path.stat().st_size

    def rewind(self, size: int) -> None:
        """Drop what was written after the file had `size` bytes.

        Raises:
            ValueError: the file is shorter than that.
        """
        if self._path.stat().st_size < size:
            raise ValueError(f"{self._path} is shorter than its checkpoint says ({size} bytes)")
        self._file.truncate(size)
        self._steps = max((line["env_steps"] for line in read_metrics(self._path)), default=0)

    def close(self) -> None:
        """Close the file and the sinks."""
        self._file.close()
        for sink in self._sinks:
            sink.close()


class TensorBoardSink:
    """Scalars for TensorBoard, tagged kind/name, in the folder `tensorboard`.

    Raises:
        ModuleNotFoundError: the extra `tensorboard` is not installed.
    """

    @staticmethod
    def check() -> None:
        """Raise ModuleNotFoundError if it is not installed; the message says what to install."""
        require("tensorboard", "tensorboard")

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def write(self, line: Mapping[str, Any]) -> None:
        """Every number of the line."""
        for name, value in line.items():
            if isinstance(value, int | float) and name != "env_steps":
                self._writer.add_scalar(f"{line['kind']}/{name}", value, line["env_steps"])

    def close(self) -> None:
        """Flush."""
        self._writer.close()


class WandbSink:
    """The same numbers for Weights & Biases.

    Raises:
        ModuleNotFoundError: the extra `wandb` is not installed.
    """

    @staticmethod
    def check() -> None:
        """Raise ModuleNotFoundError if it is not installed; the message says what to install."""
        require("wandb", "wandb")

    def __init__(self, folder: Path) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self._run = wandb.init(dir=str(folder), name=folder.name)

    def write(self, line: Mapping[str, Any]) -> None:
        """Every number of the line."""
        self._run.log({f"{line['kind']}/{k}": v for k, v in line.items() if k != "kind"})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def require(module: str, extra: str) -> None:
    """Raise ModuleNotFoundError if a module is not installed; the message says what to install."""
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"{module} is not installed: pip install 'rolloutlab[{extra}]'")


SINKS = {"tensorboard": TensorBoardSink, "wandb": WandbSink}


def read_metrics(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, or those of one kind; an incomplete last line is left out."""
    lines = path.read_bytes().split(b"\n")[:-1]
    parsed = [json.loads(line) for line in lines]
    return [line for line in parsed if kind in (None, line["kind"])]


def _plain(value: Any) -> Any:
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
