"""Folders of runs: find them, name new ones, and read the returns in them."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from mbrl.plain import file_name
from mbrl.training.checkpoint import CONFIG, RunError
from mbrl.training.metrics import METRICS, read_metrics


def learning(path: Path, *, after: int = 0) -> tuple[list[int], list[float]]:
    """Environment steps and returns of the training episodes that ended after step `after`.

    Episodes of several environments that ended at the same step have one entry, their mean return.

    Raises:
        RunError: there are none, or a line is not one of metrics; the message has its number.
    """
    there = os.path.lexists(path / METRICS)
    lines = read_metrics(path / METRICS, "episode", numbers=["return"]) if there else []
    ended: dict[int, list[float]] = {}
    for line in lines:
        if line["env_steps"] > after:
            ended.setdefault(line["env_steps"], []).append(line["return"])
    if not ended:
        raise RunError(f"run {path} has no finished episode to draw yet")
    return list(ended), [sum(returns) / len(returns) for returns in ended.values()]


def find_run(name: str, root: Path) -> Path:
    """The folder `name`, or for "latest" that of the newest run under `root`.

    Raises:
        RunError: there is no run under `root`.
    """
    if name != "latest":
        return Path(name)
    found = []
    for path in all_runs(root):
        with suppress(OSError):  # it was deleted meanwhile
            found.append(((path / CONFIG).lstat().st_mtime, path))
    if not found:
        raise RunError(f"there is no run under {root} yet; `mbrl train` makes one")
    return max(found)[1]


def all_runs(root: Path) -> list[Path]:
    """Folders of all runs under `root`, sorted by path."""
    folders = (path.parent for path in root.rglob(CONFIG))
    return sorted(path for path in folders if not path.name.startswith("."))


def new_folder(root: Path, env: str, algo: str, seed: int) -> Path:
    """`root/env/algo/seed-time`, for `Run.create` or `make_folder`."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return root / file_name(env) / file_name(algo) / f"{seed}-{stamp}"
