"""Random streams, named: a seed and what it is for give a generator of their own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator


def generator(seed: int, *names: int) -> Generator:
    """A CPU generator for a stream named by integers, a seed and what it is for."""
    # as a spawn key: plain seeds (1,) and (1, 0) would be the same
    sequence = np.random.SeedSequence(seed, spawn_key=names)
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))


def episode_seed(seed: int, episode: int) -> int:
    """The seed that an environment is reset with, from the run's seed and the episode's number.

    Every episode then starts from a stream of its own, whatever happened before it.
    """
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0])


def on_device(generator: Generator, device: torch.device) -> Generator:
    """The generator itself, or one on that kind of device that is seeded from it."""
    if generator.device.type == device.type:
        return generator
    seed = torch.randint(2**62, (), generator=generator)
    return torch.Generator(device).manual_seed(int(seed))
