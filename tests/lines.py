"""Linear models in one dimension, whose rollouts can be worked out by hand."""

import math

import torch
from torch import tensor

from mbrl.types import Gaussian, Step

PROPAGATIONS = ("ts1", "tsinf", "expectation", "moment", "distribution")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Seen:
    """A model whose state is what is observed."""

    def encode(self, obs, *, state=None, action=None):
        return obs

    def decode(self, state):
        return state


class Line(Seen):
    """Member e moves a point on a line: s' = a_e s + b_e u + σ noise; the reward is s'."""

    def __init__(self, a, b=None, sigma=0.0, ends_above=math.inf, dtype=torch.float64):
        self.a = torch.as_tensor(a, dtype=dtype).view(-1, 1, 1)
        self.b = torch.ones_like(self.a) if b is None else tensor(b, dtype=dtype).view(-1, 1, 1)
        self.sigma, self.ends_above = sigma, ends_above

    @property
    def members(self):
        return len(self.a)

    noise_shape = (1,)

    def move(self, state, action):
        return self.a * state + self.b * action

    def predict(self, state, action):
        mean = self.move(state, action)
        std = torch.full_like(mean, self.sigma)
        return Gaussian(torch.cat((mean, mean), -1), torch.cat((std, 0 * std), -1))

    def step(self, state, action, *, noise):
        after = self.move(state, action)
        if noise is not None:
            after = after + self.sigma * noise
        return Step(after, after[..., 0], after[..., 0] > self.ends_above)


class Bad(Line):
    """A line whose state, or only reward, is not finite beyond `wall`."""

    def __init__(self, wall, value, what="state", **kwargs):
        super().__init__([1.0, 1.0], **kwargs)
        self.wall, self.value, self.what = wall, value, what

    def step(self, state, action, *, noise):
        step = super().step(state, action, noise=noise)
        behind = (state + action > self.wall)[..., 0]
        if self.what == "reward":
            return step._replace(reward=step.reward.masked_fill(behind, self.value))
        return step._replace(state=step.state.masked_fill(behind.unsqueeze(-1), self.value))


def plans(*rows):
    """Action sequences (N, H, 1) from N rows of H numbers."""
    return tensor(rows, dtype=torch.float64).unsqueeze(-1)


def start(value=0.0):
    return tensor([value], dtype=torch.float64)


def stay(state, *, generator, explore):
    """A policy whose action is the state."""
    return state


def spring(obs, action, next_obs):
    return -next_obs[..., 0].square() - 0.1 * action[..., 0].square()
