"""Codes that predict the next one (LeWorldModel; 2026, arXiv 2603.19312)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.encoders.configs import SelfPredictionConfig
from mbrl.encoders.encoder import Encoder
from mbrl.encoders.losses import isotropy
from mbrl.encoders.networks import MLP
from mbrl.encoders.representation import DecoderFree
from mbrl.types import Transition


class SelfPrediction(DecoderFree):
    """Codes of which a network of code and action predicts the next.

    The loss is |predicted - next|² / Z + λ SIGReg(codes), with gradients into both codes: no slow
    encoder, and no decoder. SIGReg (`isotropy`) keeps codes from becoming equal.

    Args:
        shape: *O, of an observation.
        config: settings.
        actions: A; actions are vectors.
        generator: draws the weights.

    Raises:
        ValueError: as `DecoderFree`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        config: SelfPredictionConfig,
        *,
        actions: int,
        generator: Generator,
    ) -> None:
        super().__init__(shape, config, generator=generator)
        self.config = config
        sizes = (config.latent + actions, *config.predictor, config.latent)
        self.predictor = MLP(sizes, config.activation, generator=generator)

    def batch_loss(
        self, batch: Transition, *, slow: Encoder, generator: Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of these transitions.

        Returns:
            The loss; `error`, the mean squared error of the next code; `isotropy`, about 1 if the
            codes are an isotropic Gaussian.
        """
        codes = self(torch.cat((batch.obs, batch.next_obs)))
        now, after = codes.chunk(2)
        predicted = self.predictor(torch.cat((now, batch.action.to(now)), -1))
        error = (predicted - after).square().mean()
        shape = self.features, self.config.directions
        directions = torch.randn(shape, generator=generator, device=generator.device)
        distance = isotropy(codes, directions.to(codes))
        loss = error + self.config.isotropy * distance
        return loss, {"error": error.detach(), "isotropy": distance.detach()}
