"""What samplers by Markov chains share: a bank of samples, of which E predict at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.dynamics import fitting
from mbrl.dynamics.bayesian_configs import ChainConfig
from mbrl.dynamics.samples import Potential, WeightSamples, flat


class ChainMLP(WeightSamples):
    """E samples from a bank of samples of K chains, each of which starts at a fitted network.

    Attributes:
        bank: (K, M, P), M samples of each chain.
        restarts: (K,), how often a chain left all bounds and was restarted from its last sample,
            and how many of its samples no longer fit and are replaced by the one before.
    """

    bank: Tensor
    restarts: Tensor

    def __init__(self, config: ChainConfig, sizes: Sequence[int], *, generator: Generator) -> None:
        super().__init__(config, sizes, generator=generator)
        start = flat(self.base)
        shape = (config.networks, config.kept, start.shape[1])
        self.register_buffer("bank", start.unsqueeze(1).expand(shape).clone())
        self.register_buffer("restarts", torch.zeros(config.networks, dtype=torch.int64))

    def reset(self, *, generator: Generator) -> None:
        """Draw fresh networks, which are their own samples until a fit."""
        super().reset(generator=generator)
        self.bank.copy_(flat(self.base).unsqueeze(1).expand_as(self.bank))

    @abstractmethod
    def samples(
        self, potential: Potential, *, generator: Generator
    ) -> tuple[Float[Tensor, "K M P"], Tensor]:
        """The bank, and the number of restarts (K,)."""

    @torch.no_grad()
    def explore(self, potential: Potential, *, generator: Generator) -> dict[str, float]:
        """Run the chains and keep their samples, but for those that no longer fit."""
        bank, restarts = self.samples(potential, generator=generator)
        good = potential.start
        first = potential.loss(good)
        limit = first + fitting.DIVERGED * first.abs().clamp(min=1)
        for sample, kept in zip(bank.unbind(1), self.bank.unbind(1), strict=True):
            lost = ~(potential.loss(sample) <= limit)
            restarts = restarts + lost
            good = torch.where(lost.unsqueeze(1), good, sample)
            kept.copy_(good)
        self.restarts.copy_(restarts)
        return {"chain_restarts": float(restarts.sum())}

    def resample(self, *, generator: Generator) -> None:
        """Take E samples of the bank, different ones of each chain."""
        networks, kept, _ = self.bank.shape
        each = self.members // networks
        random = torch.rand(networks, kept, generator=generator, device=generator.device)
        order = random.argsort(1)[:, :each]
        rows = torch.arange(networks).unsqueeze(1)
        # sample e belongs to network e mod K
        self.take(self.bank[rows, order.to(self.bank.device)].transpose(0, 1).flatten(0, 1))
