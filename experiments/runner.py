"""Runs one config in one folder, from nothing or from its last checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.build import RunConfig, build_agent, build_world
from mbrl.checkpoint import Run
from mbrl.metrics import SINKS, MetricsLog
from mbrl.training import Progress, train


def default_path(config: RunConfig, root: Path) -> Path:
    """`root/env/algo/seed-time`, to the second."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return root / config.env / config.algo / f"{config.seed}-{stamp}"


def train_run(
    config: RunConfig,
    path: Path,
    *,
    resume: bool = False,
    checkpoint_every: int | None = None,
    sinks: Sequence[str] = (),
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Train in the folder `path`; everything is checked before anything is written.

    Args:
        config: what to run.
        path: a new folder, or with `resume` one that this config began.
        resume: go on from the newest checkpoint (from the start if there is none yet).
        checkpoint_every: see `mbrl.training.train`.
        sinks: names in `mbrl.metrics.SINKS`.
        stop: see `mbrl.training.train`.
        watch: see `mbrl.training.train`.

    Raises:
        RunError: the folder exists already (or does not, to resume), or another process has it.
        ValueError: settings that do not fit the environment or one another.
        EnvironmentError: the environment returned what no agent can use.
    """
    world = build_world(config.env, device=config.device)
    agent = build_agent(config, world)
    run = Run.open(path) if resume else Run.create(path, config.to_json())
    with run:
        log = MetricsLog(path, sinks=[SINKS[name](path) for name in sinks])
        began = time.perf_counter()
        try:
            progress = train(
                agent,
                world.env,
                run,
                seed=config.seed,
                steps=config.steps,
                log=log,
                snapshots=world.snapshots,
                checkpoint_every=checkpoint_every,
                stop=stop,
                watch=watch,
            )
        finally:
            log.close()
            world.env.close()
        _append_timing(path, progress, time.perf_counter() - began)
    return progress


def _append_timing(path: Path, progress: Progress, seconds: float) -> None:
    """Durations have a file of their own: metrics.jsonl is the same for the same seed."""
    line: dict[str, Any] = {"env_steps": progress.env_steps, "seconds": round(seconds, 3)}
    line |= {name: round(value, 3) for name, value in progress.seconds.items()}
    with (path / "timings.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
