"""The continuous wet chicken (Hans and Udluft 2009, "Efficient uncertainty propagation").

With continuous positions and actions by Depeweg et al. 2017, "Learning and policy search in
stochastic dynamical systems with Bayesian neural networks". `envs.worlds.wet_chicken` is finite.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from envs.task import never

RIVER, SPEED, TURBULENCE = 5, 3.0, 3.5
"""The river's length and width; the water's speed at the right bank; speed plus turbulence."""


class WetChicken(gymnasium.Env[np.ndarray, np.ndarray]):
    """Paddle close to a waterfall, where rewards are higher, without going over it.

    An observation is the position (x, y) on a river 5 wide and 5 long. An action is (right, ahead)
    in [-1, 1]²; ahead = 1 drifts and ahead = -1 paddles back. The water adds 3 x / 5 to y, and
    turbulence adds a uniform number within ±(3.5 - 3 x / 5), so the noise depends on the position.
    Beyond y = 5 the canoe falls and starts again at (0, 0), so the distribution of the next
    position has two modes. The reward is y after the step (that of Depeweg et al. is y - 5 before
    it). It never terminates.

    Attributes:
        falls: number of falls since the last reset.

    Raises ValueError for any render mode, and for an action that is not finite or not (2,).
    """

    metadata = {"render_modes": []}

    def __init__(self, *, render_mode: str | None = None) -> None:
        if render_mode is not None:
            raise ValueError(f"wet-chicken: no render mode {render_mode!r}, only None")
        self.render_mode = None
        self.observation_space = Box(0.0, float(RIVER), (2,), np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self._position: np.ndarray | None = None
        self.falls = 0

    @staticmethod
    def reward(obs: Any, action: Any, next_obs: Any) -> Any:
        """y after the step, for numpy or torch arrays (..., 2)."""
        return next_obs[..., 1]

    terminated = staticmethod(never)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode at (0, 0)."""
        super().reset(seed=seed)
        self._position, self.falls = np.zeros(2, dtype=np.float32), 0
        return self._position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step with the action clipped to its bounds; ResetNeeded before the first reset."""
        if self._position is None:
            raise gymnasium.error.ResetNeeded("wet-chicken: call reset() before step()")
        action = np.asarray(action)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise ValueError(f"wet-chicken: an action is finite and of shape (2,), got {action}")
        obs, (right, ahead) = self._position, np.clip(action, -1, 1)
        speed = SPEED * float(obs[0]) / RIVER
        gust = (TURBULENCE - speed) * self.np_random.uniform(-1, 1)
        x, y = float(obs[0]) + right, float(obs[1]) + ahead - 1 + speed + gust
        fell = bool(y > RIVER)
        self.falls += fell
        place = (0.0, 0.0) if fell else (np.clip(x, 0, RIVER), max(y, 0.0))
        self._position = np.array(place, dtype=np.float32)
        reward = float(self.reward(obs, action, self._position))
        return self._position.copy(), reward, False, False, {}


if "wet-chicken" not in gymnasium.registry:
    gymnasium.register(
        "wet-chicken", entry_point="envs.wet_chicken:WetChicken", max_episode_steps=100
    )
