"""Plays episodes with a run's agent: returns, their statistics, a film."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import envs
from envs.video import VideoError, film
from experiments.build import load_run
from mbrl.checkpoint import written_whole
from mbrl.statistics import summarise
from mbrl.training import episode_seed, generator, play


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

    Without OpenGL the film is skipped, and said to be.

    Raises:
        RunError: see `load_run`.
        EnvironmentError: the environment returned what no agent can use.
    """
    loaded = load_run(path, device=device)
    player = loaded.agent.controller(generator=generator(seed, 1))
    returns, first = [], []
    for episode in range(episodes):
        steps = list(play(player, loaded.world.env, seed=episode_seed(seed, episode)))
        returns.append(sum(step.reward for step in steps))
        first = first or steps
        tell(f"episode {episode + 1:3}  return {returns[-1]:8.1f}  steps {len(steps)}")
    statistics = summarise(returns, rng=np.random.default_rng(seed))
    summary = {
        "run": str(path),
        "env_steps": loaded.run.latest(),
        "seed": seed,
        "returns": returns,
        **statistics,
    }
    with written_whole(path / "evaluation.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
    found = f"mean {statistics['mean']:.1f}"
    if episodes > 1:
        found += (
            f"  std {statistics['std']:.1f}  IQM {statistics['iqm']:.1f} "
            f"(95 % interval {statistics['iqm_low']:.1f} to {statistics['iqm_high']:.1f})"
        )
    tell(f"{found}  over {episodes} episodes, seed {seed}")
    if video:
        try:
            name = f"{loaded.config.env.replace('/', '-')}-{loaded.run.latest()}.mp4"
            target = loaded.run.path / "videos" / name
            taken = (step.action for step in first)
            film(loaded.config.env, taken, target, seed=episode_seed(seed, 0))
            summary["video"] = str(target)
            tell(f"video {summary['video']}")
        except (envs.RenderingUnavailable, gymnasium.error.Error, VideoError) as error:
            tell(f"video skipped: {error}")
    return summary
