"""Models for tests that use different parts of the protocol."""

import torch

from mbrl.types import Gaussian, Step


class LinearGaussian:
    """x' = F x + G u + noise of std σ (S,) with the reward -|x'|²: a model in closed form.

    One member, no termination. `forecast` gives the exact mean and covariance after k steps.
    """

    members = 1

    def __init__(self, f, g, std):
        self.f, self.g, self.std = (torch.as_tensor(x, dtype=torch.float64) for x in (f, g, std))
        self.noise_shape = (len(self.std),)

    def encode(self, obs, *, state=None, action=None):
        return obs

    def decode(self, state):
        return state

    def predict(self, state, action):
        _check(state, action, self.g.shape)
        f, g, std = (x.to(state) for x in (self.f, self.g, self.std))
        mean = state @ f.mT + action @ g.mT
        reward = -mean.square().sum(-1, keepdim=True)
        spread = std.expand(mean.shape)
        return Gaussian(
            torch.cat((mean, reward), -1), torch.cat((spread, torch.zeros_like(reward)), -1)
        )

    def step(self, state, action, *, noise):
        mean, std = self.predict(state, action)
        after = mean[..., :-1] if noise is None else mean[..., :-1] + std[..., :-1] * noise
        return Step(after, mean[..., -1], torch.zeros(after.shape[:-1], dtype=torch.bool))

    def forecast(self, state, actions):
        """Means (H, S) and covariances (H, S, S) after each of the actions (H, A): a Kalman
        filter's prediction."""
        mean, covariance = state, torch.zeros_like(self.f)
        means, covariances = [], []
        for action in actions:
            mean = self.f @ mean + self.g @ action
            covariance = self.f @ covariance @ self.f.T + torch.diag(self.std.square())
            means.append(mean)
            covariances.append(covariance)
        return torch.stack(means), torch.stack(covariances)


class Remembering:
    """A latent model with memory, which infers the speed of a point from its observed places.

    The state is (place, speed). `encode` filters: the speed is the change of place since the last
    state, plus the effect of the action. It has its own reward and termination, and no decoder.
    """

    members, noise_shape = 1, (1,)

    def encode(self, obs, *, state=None, action=None):
        place = obs[..., :1]
        if state is None:
            return torch.cat((place, torch.zeros_like(place)), -1)
        return torch.cat((place, place - state[..., :1]), -1)

    def decode(self, state):
        raise NotImplementedError("this model has no decoder")

    def step(self, state, action, *, noise):
        _check(state, action, (2, 1))
        speed = state[..., 1:] + 0.1 * action
        if noise is not None:
            speed = speed + 0.01 * noise
        place = state[..., :1] + speed
        return Step(torch.cat((place, speed), -1), -place[..., 0].abs(), place[..., 0] > 3)


def _check(state, action, sizes):
    given = (("state", state), ("action", action))
    for (name, value), size in zip(given, sizes, strict=True):
        if value.ndim != 3 or len(value) != 1 or value.shape[-1] != size:
            raise ValueError(f"{name} must be (1, B, {size}), got {tuple(value.shape)}")
