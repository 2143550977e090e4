"""Small models and environments with a solution in closed form."""

import math
from dataclasses import dataclass

import gymnasium
import numpy as np
import scipy.linalg
import torch
from torch import Generator, Tensor, nn

from mbrl.dynamics.configs import NeuralConfig
from mbrl.nn import Net


class BayesianLinear(Net):
    """Linear regression by variational inference with a factorised Gaussian over the weights.

    Bayes by backprop (Blundell et al. 2015) on one layer without a bias, prior N(0, prior²). It
    trains with the local reparameterisation (Kingma et al. 2015), E draws for each row, and
    predicts with E samples of the weights.
    """

    def __init__(
        self, members: int, inputs: int, outputs: int, prior: float, *, generator: Generator
    ) -> None:
        super().__init__()
        self.prior = prior
        self.mean = nn.Parameter(torch.zeros(inputs, outputs))
        self.log_std = nn.Parameter(torch.full((inputs, outputs), -3.0))
        self.register_buffer("noise", torch.zeros(members, inputs, outputs))
        self.resample(generator=generator)

    @property
    def members(self) -> int:
        return len(self.noise)

    def forward(self, x: Tensor) -> Tensor:
        std = self.log_std.exp()
        if not self.training:
            return x @ (self.mean + std * self.noise)
        out, std = x @ self.mean, (x.square() @ std.square()).sqrt()
        return out + std * torch.randn(out.shape, generator=self.generator).to(out)

    def penalty(self) -> Tensor:
        """KL to the prior."""
        ratio = (self.log_std.exp() / self.prior).square()
        return 0.5 * (ratio + (self.mean / self.prior).square() - 1 - ratio.log()).sum()

    def resample(self, *, generator: Generator) -> None:
        self.generator = generator
        self.noise.copy_(torch.randn(self.noise.shape, generator=generator))

    def reset(self, *, generator: Generator) -> None:
        nn.init.zeros_(self.mean)
        nn.init.constant_(self.log_std, -3.0)


@dataclass(frozen=True)
class BayesianLinearConfig(NeuralConfig):
    homoscedastic: bool = True
    prior: float = 1.0

    def build(self, inputs: int, outputs: int, *, generator: Generator) -> Net:
        return BayesianLinear(self.members, inputs, outputs, self.prior, generator=generator)


def linear_posterior(x: Tensor, y: Tensor, *, noise: float, prior: float) -> tuple[Tensor, Tensor]:
    """Mean (I, D) and precision (I, I) of the weights of y = x w + noise · ε, w ~ N(0, prior²)."""
    precision = x.T @ x / noise**2 + torch.eye(x.shape[1], dtype=x.dtype) / prior**2
    return torch.linalg.solve(precision, x.T @ y) / noise**2, precision


class QuadraticWorld(gymnasium.Env):
    """x' = a x + b u + noise with the reward -x² - u², which never ends."""

    A, B, NOISE, DISCOUNT = 1.0, 0.5, 0.05, 0.9
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    @staticmethod
    def reward(obs, action, next_obs):
        return -obs.square().sum(-1) - action.square().sum(-1)

    metadata = {
        "render_modes": [],
        "known": {"reward": reward.__func__, "ends": False, "discount": DISCOUNT},
    }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = float(self.np_random.uniform(-1, 1))
        return np.array([self.at], np.float32), {}

    def step(self, action):
        force = float(action[0])
        reward = -(self.at**2) - force**2
        self.at = self.A * self.at + self.B * force + self.NOISE * self.np_random.normal()
        return np.array([self.at], np.float32), reward, False, False, {}

    @classmethod
    def riccati(cls):
        """p of the minimal discounted cost p x² without noise, and k of the optimal action -k x."""
        a, b = math.sqrt(cls.DISCOUNT) * cls.A, math.sqrt(cls.DISCOUNT) * cls.B
        p = float(scipy.linalg.solve_discrete_are(*(np.eye(1) * v for v in (a, b, 1, 1)))[0, 0])
        return p, a * b * p / (1 + b * b * p)

    @classmethod
    def regret(cls, policy):
        """Excess of a policy's discounted cost without noise over the minimum, relative to it.

        Costs are sums over 200 steps from 41 starts in [-1, 1].
        """
        x, cost = torch.linspace(-1, 1, 41).double()[:, None], 0.0
        least = cls.riccati()[0] * float(x.square().sum())
        for t in range(200):
            with torch.no_grad():
                u = policy(x.float(), generator=torch.Generator(), explore=False).double()
            cost -= cls.DISCOUNT**t * float(cls.reward(x, u, None).sum())
            x = cls.A * x + cls.B * u
        return cost / least - 1
