"""`mbrl evaluate`: play episodes with a run's agent, give their statistics and film the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import envs
from experiments.cli.options import (
    Common,
    check_least,
    check_writable,
    emit,
    parse,
    say,
    set_threads,
)
from experiments.plots.film import film_or_tell
from mbrl.rng import generator
from mbrl.statistics import summarise
from mbrl.training.checkpoint import write_json
from mbrl.training.collect import Episodes, play
from mbrl.training.runs import find_run, load_run


@dataclass(frozen=True)
class Evaluate(Common):
    """Play episodes with a run's newest checkpoint, without exploration."""

    run: tyro.conf.Positional[str] = "latest"
    """A run's folder, or latest."""
    episodes: int = 10
    """Number of episodes."""
    seed: int = 1000
    """Seed of the start states and of the planner's draws."""
    video: bool = False
    """Film the first episode: an mp4 and a sheet of frames in RUN/videos."""
    device: str | None = None
    """Device of the model; that of the run if unset."""


def run(args: list[str]) -> int:
    """Evaluate a run; returns the exit status."""
    parsed = parse(Evaluate, "mbrl evaluate", args)
    set_threads(parsed)
    check_least(parsed, episodes=1, seed=0)
    summary = evaluate_run(
        find_run(parsed.run, parsed.root),
        episodes=parsed.episodes,
        seed=parsed.seed,
        video=parsed.video,
        device=parsed.device,
        tell=say,
    )
    emit(parsed, summary)
    return 0


def evaluate_run(
    path: Path,
    *,
    episodes: int,
    seed: int,
    video: bool,
    device: str | None,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Returns of `episodes` episodes at the newest checkpoint, written to RUN/evaluation.json.

    Without OpenGL no film is made, and a message says so.

    Raises:
        RunError: see `load_run`.
        EnvironmentError: the environment returned what no agent can use.
    """
    loaded = load_run(path, make_env=envs.make, device=device)
    check_writable(path / "evaluation.json")
    if video:
        check_writable(path / "videos" / "film.mp4")
    player = loaded.agent.player(generator=generator(seed, 1))
    running, returns, first = Episodes(seed), [], []
    for step in play(player, loaded.env, running):
        if not returns:
            first.append(step.action[0].numpy())
        if running.over[0]:
            returns.append(float(running.returns[0]))
            length = int(running.lengths[0])
            tell(f"episode {len(returns):3}  return {returns[-1]:8.1f}  steps {length}")
            if len(returns) == episodes:
                break
    statistics = summarise(returns, rng=np.random.default_rng(seed))
    summary = {
        "run": str(path),
        "env_steps": loaded.env_steps,
        "seed": seed,
        "returns": returns,
        **statistics,
    }
    write_json(path / "evaluation.json", summary)
    found = f"mean {statistics['mean']:.1f}"
    if episodes > 1:
        found += (
            f"  std {statistics['std']:.1f}  IQM {statistics['iqm']:.1f} "
            f"(95 % interval {statistics['iqm_low']:.1f} to {statistics['iqm_high']:.1f})"
        )
    tell(f"{found}  over {episodes} episodes, seed {seed}")
    if video:
        name = f"{loaded.config.env.replace('/', '-')}-{loaded.env_steps}.mp4"
        target = loaded.run.path / "videos" / name
        if film_or_tell(loaded.config.env, first, target, seed=seed, tell=tell):
            summary["video"] = str(target)
    return summary
