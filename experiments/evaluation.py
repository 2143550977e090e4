"""Plays episodes with a run's agent: returns, their statistics, a film."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import envs
from experiments.build import load_run
from experiments.statistics import summarise
from experiments.video import VideoError, contact_sheet, write_video
from mbrl.checkpoint import written_whole
from mbrl.training import episode_seed, generator, play

FILM_SIZE = {"width": 480, "height": 272}
"""Pixels, even as H.264 wants them."""


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
        **{name: _plain(value) for name, value in statistics.items()},
    }
    with written_whole(path / "evaluation.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
    tell(
        f"mean {statistics['mean']:.1f}  std {statistics['std']:.1f}  IQM {statistics['iqm']:.1f} "
        f"(95 % interval {statistics['iqm_low']:.1f} to {statistics['iqm_high']:.1f})  "
        f"over {episodes} episodes, seed {seed}"
    )
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


def film(env_id: str, actions: Iterable[np.ndarray], path: Path, *, seed: int) -> Path:
    """Replay an episode's actions in a rendering environment, as an mp4 and a sheet of frames.

    Raises:
        RenderingUnavailable: there is no OpenGL.
        VideoError: the encoder fails.
    """
    env = envs.make(env_id, render_mode="rgb_array", **FILM_SIZE)
    frames, captions, total = [], [], 0.0
    try:
        env.reset(seed=seed)
        for place, action in enumerate(actions):
            _, reward, *_ = env.step(action)
            total += float(reward)
            frames.append(np.asarray(env.render()))
            captions.append(f"step {place + 1}   return {total:.1f}")
        fps = int(env.metadata["render_fps"])
    finally:
        env.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(frames, path, fps, captions=captions)
    shown = np.linspace(0, len(frames) - 1, min(8, len(frames))).round().astype(int)
    contact_sheet(
        [frames[i] for i in shown],
        path.with_suffix(".png"),
        4,
        rows=2,
        captions=[captions[i] for i in shown],
    )
    return path


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
