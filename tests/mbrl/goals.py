"""Small environments of goals."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary


class BitFlip(gymnasium.Env):
    """Flip one of n bits in each of n steps until they are those of the goal; 0 there, -1 else.

    Andrychowicz et al. 2017, section 3.1.
    """

    def __init__(self, n: int = 8):
        self.n = n
        bits = MultiBinary(n)
        self.observation_space = Dict(
            {"observation": bits, "achieved_goal": bits, "desired_goal": bits}
        )
        self.action_space = Discrete(n)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.bits, self.goal = self.np_random.integers(0, 2, (2, self.n), dtype=np.int8)
        self.steps = 0
        return self._seen(), {}

    def _seen(self):
        return {"observation": self.bits, "achieved_goal": self.bits, "desired_goal": self.goal}

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -(achieved_goal != desired_goal).any(-1).astype(np.float32)

    def compute_terminated(self, achieved_goal, desired_goal, info):
        return not (achieved_goal != desired_goal).any()  # of one goal only

    def step(self, action):
        self.bits = self.bits.copy()
        self.bits[action] ^= 1
        self.steps += 1
        reward = float(self.compute_reward(self.bits, self.goal, {}))
        ended = self.compute_terminated(self.bits, self.goal, {})
        return self._seen(), reward, ended, self.steps >= self.n, {}


class Point(gymnasium.Env):
    """A point in the plane that goes to a goal in 15 steps; reward 0 near it, -1 elsewhere."""

    observation_space = Dict(
        {
            "achieved_goal": Box(-np.inf, np.inf, (2,)),
            "desired_goal": Box(-np.inf, np.inf, (2,)),
            "observation": Box(-np.inf, np.inf, (3,)),
        }
    )
    action_space = Box(-1.0, 1.0, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = np.zeros(2, np.float32)
        self.goal = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        self.steps = 0
        return self._seen(), {}

    def _seen(self):
        observation = np.array([*self.at, 1.0], np.float32)
        return {"observation": observation, "achieved_goal": self.at, "desired_goal": self.goal}

    def compute_reward(self, achieved_goal, desired_goal, info):
        far = np.linalg.norm(achieved_goal - desired_goal, axis=-1) > 0.15
        return -far.astype(np.float32)

    def step(self, action):
        self.at = (self.at + 0.2 * np.clip(action, -1, 1)).astype(np.float32)
        self.steps += 1
        reward = float(self.compute_reward(self.at, self.goal, {}))
        return self._seen(), reward, False, self.steps >= 15, {}
