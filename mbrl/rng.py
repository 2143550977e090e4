"""Random generators for independent streams of one seed, named by integers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator


def generator(seed: int, *names: int) -> Generator:
    """A CPU generator for the stream with these names; other names give independent streams."""
    # names as a spawn key, because the entropies (1,) and (1, 0) would give the same stream
    sequence = np.random.SeedSequence(seed, spawn_key=names)
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))


def episode_seed(seed: int, episode: int) -> int:
    """The seed with which an environment is reset in an episode of a run with this seed.

    The first state of an episode therefore does not depend on the episodes before it.
    """
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0])


def on_device(generator: Generator, device: torch.device) -> Generator:
    """The generator itself if it is on this type of device, else a new one there seeded from it."""
    if generator.device.type == device.type:
        return generator
    seed = torch.randint(2**62, (), generator=generator)
    return torch.Generator(device).manual_seed(int(seed))
