"""`mbrl evaluate`: play episodes with a run's agent, give their statistics and film the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.cli import options
from mbrl.plain import file_name


@dataclass(frozen=True)
class Evaluate(options.Common):
    """Play episodes with a run's newest checkpoint, without exploration."""

    run: tyro.conf.Positional[str] = "latest"
    """A run's folder, or latest."""
    episodes: int = 10
    """Number of episodes."""
    seed: int = 1000
    """Seed of the start states and of the planner's draws."""
    steps: Annotated[
        int | None, options.unset("until it ends; 10,000 if the environment has no time limit")
    ] = None
    """Most steps of an episode."""
    video: bool = False
    """Film the first episode: an mp4 and a sheet of frames in RUN/videos."""
    device: Annotated[str | None, options.unset("that of the run")] = None
    """Device of the model."""


def run(args: list[str]) -> int:
    """Evaluate a run; returns the exit status."""
    parsed = options.parse(Evaluate, "mbrl evaluate", args)
    options.check_least(parsed, episodes=1, seed=0, steps=1, threads=1)
    options.check_runs(parsed, parsed.run)
    options.set_threads(parsed)
    import envs
    from experiments.plots.film import film_or_tell
    from mbrl.evaluation import evaluate_run
    from mbrl.training.folders import find_run

    path, seed = find_run(parsed.run, parsed.root), parsed.seed
    options.check_writable(path / "evaluation.json")
    if parsed.video:
        options.check_writable(path / "videos" / "film.mp4")
    summary, config, first = evaluate_run(
        path,
        make_env=envs.make,
        episodes=parsed.episodes,
        seed=seed,
        steps=parsed.steps,
        device=parsed.device,
        callback=lambda number, total, steps: options.say(
            f"episode {number:3}  return {total:8.1f}  steps {steps}"
        ),
        tell=options.say,
    )
    found = f"mean {summary['mean']:.1f}"
    if parsed.episodes > 1:
        found += (
            f"  std {summary['std']:.1f}  IQM {summary['iqm']:.1f} "
            f"(95 % interval {summary['iqm_low']:.1f} to {summary['iqm_high']:.1f})"
        )
    options.say(f"{found}  over {parsed.episodes} episodes, seed {seed}")
    if parsed.video:
        target = path / "videos" / f"{file_name(config.env)}-{summary['env_steps']}.mp4"
        if film_or_tell(
            config.env, first, target, seed=seed, earned=summary["returns"][0], tell=options.say,
            action_repeat=config.action_repeat,
        ):  # fmt: skip
            summary["video"] = str(target)
    options.emit(parsed, summary)
    return 0
