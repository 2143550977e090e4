"""Mixtures of members, and targets drawn from them."""

import torch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mixture(members, *shape, seed=0):
    """Members with different means and stds."""
    g = generator(seed)
    mean = 1.5 * torch.randn(members, *shape, generator=g, dtype=torch.float64)
    std = 0.2 + torch.rand(members, *shape, generator=g, dtype=torch.float64)
    return mean, std


def draw(mean, std, seed=1):
    """One target from each mixture; the member is drawn for each dimension."""
    g = generator(seed)
    member = torch.randint(len(mean), (1, *mean.shape[1:]), generator=g)
    noise = torch.randn(mean.shape[1:], generator=g, dtype=mean.dtype)
    return mean.gather(0, member)[0] + std.gather(0, member)[0] * noise
