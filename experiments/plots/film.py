"""Episodes filmed from their recorded actions."""

from __future__ import annotations

import math
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
    env_id: str,
    actions: Sequence[np.ndarray] | np.ndarray,
    path: str | Path,
    *,
    seed: int,
    action_repeat: int = 1,
) -> float:
    """Replay the first episode of `seed` and write it by `envs.video.write_film`.

    Args:
        env_id: a name that `envs.make` takes.
        actions: (T, *A), at least one.
        path: of the mp4 file; parent folders are made.
        seed: of the episodes; the first is reset with `mbrl.rng.episode_seed(seed, 0)`.
        action_repeat: steps for which each action was taken; there is a frame for each action.

    Returns:
        The return of what was filmed.

    Raises:
        RenderingUnavailable: there is no OpenGL.
        VideoError: the encoder is missing or fails.
        ValueError: no actions, or a name not ending in .mp4.
    """
    env = make_filmed(env_id, action_repeat=action_repeat)
    try:
        frames, returns = control.film(env, actions, seed=seed)
        fps = int(env.metadata.get("render_fps") or 30)
        write_film(frames, returns, path, fps=max(1, round(fps / action_repeat)))
        return returns[-1]
    finally:
        env.close()


def film_or_tell(
    env_id: str,
    actions: Sequence[np.ndarray] | np.ndarray,
    path: Path,
    *,
    seed: int,
    earned: float,
    tell: Callable[[str], None],
    action_repeat: int = 1,
) -> bool:
    """Call `film`; if it fails, tell why in one line. Returns whether there is a film.

    If the return of the film is not `earned`, it shows another episode, and this is told too.
    """
    try:
        found = film(env_id, actions, path, seed=seed, action_repeat=action_repeat)
    except (RenderingUnavailable, gymnasium.error.Error, EnvironmentError, VideoError) as error:
        tell(f"video skipped: {error}")
        return False
    except Exception as error:  # a user's environment may raise anything; the results matter more
        said = shown(" ".join(str(error).split()), most=300)
        tell(f"video skipped: {type(error).__name__}: {said}")
        return False
    tell(f"video {path}")
    if not math.isclose(found, earned, rel_tol=1e-3, abs_tol=1e-3):
        tell(
            f"the film shows another episode: after a reset with the same seed {env_id} returned "
            f"{found:.1f} for the same actions, not {earned:.1f}"
        )
    return True
