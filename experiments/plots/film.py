"""Episodes filmed from their recorded actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import gymnasium
import numpy as np

from envs import RenderingUnavailable
from envs.video import VideoError, make_filmed, write_film
from mbrl.training.collect import Episodes, collect, vector


def film(
    env_id: str, actions: Sequence[np.ndarray] | np.ndarray, path: str | Path, *, seed: int
) -> Path:
    """Replay the first episode of `seed` and write it by `envs.video.write_film`.

    Args:
        env_id: as `envs.make` takes it.
        actions: (T, *A), at least one.
        path: the mp4; parent folders are made.
        seed: of the episodes; the first is reset with `mbrl.rng.episode_seed(seed, 0)`.

    Raises:
        RenderingUnavailable: there is no OpenGL.
        VideoError: the encoder is missing or fails.
        ValueError: no actions, or a name not ending in .mp4.
    """
    env, running = make_filmed(env_id), Episodes(seed)
    frames, returns = [], []
    try:
        for _ in collect(_Recorded(actions), vector(env), running, steps=len(actions)):
            frames.append(np.asarray(env.render()))
            returns.append(float(running.returns[0]))
        return write_film(frames, returns, path, fps=int(env.metadata["render_fps"]))
    finally:
        env.close()


def film_or_tell(
    env_id: str,
    actions: Sequence[np.ndarray] | np.ndarray,
    path: Path,
    *,
    seed: int,
    tell: Callable[[str], None],
) -> bool:
    """`film`, or a line that says why there is none; whether there is one."""
    try:
        film(env_id, actions, path, seed=seed)
    except (RenderingUnavailable, gymnasium.error.Error, VideoError) as error:
        tell(f"video skipped: {error}")
        return False
    tell(f"video {path}")
    return True


class _Recorded:
    """Acts as it is told beforehand."""

    def __init__(self, actions: Sequence[np.ndarray] | np.ndarray) -> None:
        self.actions = iter(actions)

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        return np.asarray(next(self.actions))[None]
