"""Data, potentials and checks that tests of posteriors share."""

import torch

SMALL = {
    "hidden": (16, 16),
    "activation": "tanh",
    "epochs": 60,
    "batch": 50,
    "holdout": 0.0,
    "learning_rate": 1e-2,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def wave(count=200, seed=0):
    draw = seeded(seed)
    x = torch.randn(count, 1, generator=draw)
    return x, torch.sin(2 * x) + 0.1 * torch.randn(count, 1, generator=draw)


def close(estimates, exact, errors=4.5):
    """Whether the mean of estimates (N, ...) is the exact value, within standard errors."""
    estimates = torch.as_tensor(estimates).double()
    error = estimates.std(0) / len(estimates) ** 0.5
    return bool(((estimates.mean(0) - exact).abs() <= errors * error + 1e-9).all())


def quadratic(curvature, noise, seed):
    """A potential ½ Σ λ θ² whose gradients have noise of these variances."""
    draw = seeded(seed)

    def potential(position, index=None):
        value = 0.5 * (curvature * position.square()).sum(1)
        disturbed = noise.sqrt() * torch.randn(position.shape, generator=draw)
        return value, curvature * position + disturbed

    return potential
