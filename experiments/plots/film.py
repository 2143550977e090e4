"""Episodes filmed from their recorded actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import gymnasium
import numpy as np

from envs import RenderingUnavailable
from envs.video import VideoError, make_filmed, write_film
from mbrl import control
from mbrl.plain import shown
from mbrl.training import EnvironmentError


def film(
    env_id: str, actions: Sequence[np.ndarray] | np.ndarray, path: str | Path, *, seed: int
) -> Path:
    """Replay the first episode of `seed` and write it by `envs.video.write_film`.

    Args:
        env_id: a name that `envs.make` takes.
        actions: (T, *A), at least one.
        path: of the mp4 file; parent folders are made.
        seed: of the episodes; the first is reset with `mbrl.rng.episode_seed(seed, 0)`.

    Raises:
        RenderingUnavailable: there is no OpenGL.
        VideoError: the encoder is missing or fails.
        ValueError: no actions, or a name not ending in .mp4.
    """
    env = make_filmed(env_id)
    try:
        frames, returns = control.film(env, actions, seed=seed)
        return write_film(frames, returns, path, fps=int(env.metadata.get("render_fps") or 30))
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
    """Call `film`; if it fails, tell why in one line. Returns whether there is a film."""
    try:
        film(env_id, actions, path, seed=seed)
    except (RenderingUnavailable, gymnasium.error.Error, EnvironmentError, VideoError) as error:
        tell(f"video skipped: {error}")
        return False
    except Exception as error:  # a user's environment may raise anything; the results matter more
        said = shown(" ".join(str(error).split()), most=300)
        tell(f"video skipped: {type(error).__name__}: {said}")
        return False
    tell(f"video {path}")
    return True
