"""Repeating each action for several control steps."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec


class ActionRepeat(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """Takes each action for `times` steps; the reward is their sum.

    It stops early where the episode ends. `spec.max_episode_steps` counts actions, so an episode of
    1,000 steps has 500 with `times` 2. The reward is then no function of one observation and the
    next, so `metadata["known"]` has none, no task for a simulator, and no rewards by goal.

    Raises ValueError for `times` below 1.
    """

    def __init__(self, env: gymnasium.Env, times: int) -> None:
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise ValueError(f"action_repeat must be an integer of at least 1, got {times!r}")
        super().__init__(env)
        self.times = times
        spec = copy.deepcopy(env.spec)
        if spec is not None and spec.max_episode_steps is not None:
            spec.max_episode_steps = -(-spec.max_episode_steps // times)
        self._spec = spec
        known = env.metadata.get("known")
        if known is not None and times > 1:
            why = f"with action_repeat {times} a reward is the sum over {times} steps"
            changed = {**known, "reward": None, "why": why, "task": None, "goal": None}
            self.metadata = {**env.metadata, "known": changed}

    @property
    def spec(self) -> EnvSpec | None:
        """That of the environment, with its time limit in actions."""
        return self._spec

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take the action `times` times, or until the episode ends."""
        total = 0.0
        for _ in range(self.times):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info
