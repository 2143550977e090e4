"""Contrastive codes (CURL; Laskin et al. 2020, arXiv 2004.04136)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl.encoders.configs import ContrastiveConfig
from mbrl.encoders.encoder import Encoder
from mbrl.encoders.images import random_shift
from mbrl.encoders.losses import info_nce
from mbrl.encoders.representation import DecoderFree
from mbrl.types import Transition


class Contrastive(DecoderFree):
    """Codes that tell which of the batch's images, shifted, is the same one.

    The similarity of a code z and a key k of the slow encoder is zᵀ W k. The paper crops both
    images at random; here the key is shifted against the query, as in DrQ.

    Args:
        shape: *O, of an observation.
        config: settings.
        generator: draws the weights.

    Raises:
        ValueError: as `DecoderFree`.
    """

    def __init__(
        self, shape: Sequence[int], config: ContrastiveConfig, *, generator: Generator
    ) -> None:
        super().__init__(shape, config, generator=generator)
        self.config = config
        weight = torch.rand(config.latent, config.latent, generator=generator)
        self.weight = nn.Parameter(weight / config.latent)

    def batch_loss(
        self, batch: Transition, *, slow: Encoder, generator: Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """InfoNCE of the observations, among those of the batch.

        Returns:
            The loss, at log B where nothing is told apart; `matched`, the share of observations
            whose most similar key is their own.
        """
        obs = batch.obs
        if len(self.shape) == 3:
            obs = random_shift(obs, self.config.shift, generator=generator)
        with torch.no_grad():
            keys = slow(obs)
        logits = self(batch.obs) @ self.weight @ keys.mT
        own = torch.arange(len(logits), device=logits.device)
        matched = (logits.detach().argmax(-1) == own).to(logits.dtype).mean()
        return info_nce(logits).mean(), {"matched": matched}
