"""`mbrl evaluate`: play episodes with a run's agent, give their statistics and film the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.cli.options import (
    Common,
    check_least,
    check_runs,
    check_writable,
    emit,
    parse,
    say,
    set_threads,
    unset,
)
from mbrl.plain import file_name


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
    device: Annotated[str | None, unset("that of the run")] = None
    """Device of the model."""


def run(args: list[str]) -> int:
    """Evaluate a run; returns the exit status."""
    parsed = parse(Evaluate, "mbrl evaluate", args)
    check_least(parsed, episodes=1, seed=0, threads=1)
    check_runs(parsed, parsed.run)
    set_threads(parsed)
    import envs
    from experiments.plots.film import film_or_tell
    from mbrl.evaluation import evaluate_run
    from mbrl.training.runs import find_run

    path, seed = find_run(parsed.run, parsed.root), parsed.seed
    check_writable(path / "evaluation.json")
    if parsed.video:
        check_writable(path / "videos" / "film.mp4")
    summary, env, first = evaluate_run(
        path,
        make_env=envs.make,
        episodes=parsed.episodes,
        seed=seed,
        device=parsed.device,
        callback=lambda number, total, steps: say(
            f"episode {number:3}  return {total:8.1f}  steps {steps}"
        ),
    )
    found = f"mean {summary['mean']:.1f}"
    if parsed.episodes > 1:
        found += (
            f"  std {summary['std']:.1f}  IQM {summary['iqm']:.1f} "
            f"(95 % interval {summary['iqm_low']:.1f} to {summary['iqm_high']:.1f})"
        )
    say(f"{found}  over {parsed.episodes} episodes, seed {seed}")
    if parsed.video:
        target = path / "videos" / f"{file_name(env)}-{summary['env_steps']}.mp4"
        if film_or_tell(env, first, target, seed=seed, tell=say):
            summary["video"] = str(target)
    emit(parsed, summary)
    return 0
