"""Benchmarks: our speed or memory, over that of a reference measured in the same run.

References are this machine's own float32 matrix-product rate, bare MuJoCo steps and frames, and
mbrl-lib, judo, mctx, Stable-Baselines3 and SBX if they are installed. `measure` says how it is
measured.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from experiments.bench import (
    action,
    collect,
    dyna,
    executor,
    latent,
    learners,
    mcts,
    memory,
    mpc,
    physics,
    planner,
    rollout,
    train,
    uncertainty,
    world,
)
from experiments.bench.measure import Bench, Result
from experiments.peers import HOW_TO_INSTALL, MbrlLib, available

__all__ = ["BENCHES", "Bench", "Result", "bench", "cpu"]

BENCHES: Mapping[str, Callable[[Bench], list[Result]]] = {
    "rollout": rollout.rollout,
    "rollout-busy": rollout.rollout_busy,
    "action": action.action,
    "train": train.train,
    "learners": learners.learners,
    "dyna": dyna.dyna,
    "uncertainty": uncertainty.uncertainty,
    "planner": planner.planner,
    "physics": physics.physics,
    "mpc": mpc.mpc,
    "mcts": mcts.mcts,
    "memory": memory.memory,
    "collect": collect.collect_steps,
    "executor": executor.executor,
    "latent": latent.latent,
    "world": world.world,
}
"""Benchmarks by name."""


def bench(
    names: Sequence[str],
    *,
    threads: int | None = None,
    repeats: int = 7,
    console: Console | None = None,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Run benchmarks, show a table of each, and return the rows as plain values.

    Args:
        names: of `BENCHES`.
        threads: torch's threads, for ours and for mbrl-lib; None leaves them as they are.
        repeats: number of timed turns, after an untimed one.
        console: prints the tables; None is stderr.
        out: folder in which each benchmark's `<name>.json` is written; None writes nothing.

    Raises:
        ValueError: an unknown benchmark, threads or repeats below one; nothing has run then.
    """
    for name in names:
        if name not in BENCHES:
            raise ValueError(f"benchmark {name!r} is unknown; take any of {', '.join(BENCHES)}")
    for option, value in (("threads", threads), ("repeats", repeats)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be >= 1, got {value}")
    console = console or Console(stderr=True)
    rows = []
    before = torch.get_num_threads()
    count = threads or before
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        torch.set_num_threads(count)
        peer = stack.enter_context(MbrlLib()) if available() else None
        if peer is None:
            console.print(HOW_TO_INSTALL)
        for name in names:
            about = {"bench": name, "threads": count, "torch": torch.__version__, "cpu": cpu()}
            found = [about | row.to_dict() for row in BENCHES[name](Bench(repeats, count, peer))]
            console.print(_table(found))
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                (out / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
            rows += found
    return rows


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", info.read_text(), re.M) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    title = "{bench}: {threads} threads, torch {torch}, {cpu}; median (best)".format(**rows[0])
    table = Table(title=title)
    for heading in ("work", "unit", "ours", "against", "reference", "ratio", "wanted"):
        table.add_column(heading, justify="left" if heading in ("work", "against") else "right")
    for row in rows:
        figures = [
            f"{_digits(row[name])} ({_digits(row[name + '_best'])})"
            for name in ("ours", "reference", "ratio")
        ]
        figures.insert(1, row["against"])
        table.add_row(row["work"], row["unit"], *figures, row["wanted"])
    return table


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
