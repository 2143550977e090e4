"""The regularised deterministic autoencoder (Ghosh et al. 2020), as SAC+AE has it.

Yarats et al. 2019, "Improving sample efficiency in model-free reinforcement learning from images"
(arXiv 1910.01741).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Generator, Tensor

from mbrl.encoders.configs import AutoencoderConfig
from mbrl.encoders.representation import Representation


class Autoencoder(Representation):
    """Codes without noise, held small by a penalty on them and on the decoder's weights.

    Args:
        shape: *O, of an observation: a vector, or an image of uint8.
        config: settings.
        generator: draws the weights.

    Raises:
        ValueError: as `Representation`.
    """

    def __init__(
        self, shape: Sequence[int], config: AutoencoderConfig, *, generator: Generator
    ) -> None:
        super().__init__(shape, config, config.latent, generator=generator)
        self.config = config

    def loss(
        self, obs: Shaped[Tensor, " B *O"], *, generator: Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Half the squared error of each number, mean over numbers and rows, with the penalties.

        The error is in units of the variance of pixels once `rescale` has measured it.

        Returns:
            The loss; `error`, the mean squared error; `code`, mean squared length of a code.
        """
        z = self(obs)
        # not by `decoded` and `scaled`, which would bring both into another order of memory
        error = F.mse_loss(self.drawn(z), self.scaling(obs))
        length = z.square().sum(-1).mean()
        weights = sum(part.square().sum() for part in self.decoder.parameters())
        loss = 0.5 * (
            error / self.spread.square()
            + self.config.code_penalty * length
            + self.config.decoder_penalty * weights
        )
        return loss, {"error": error.detach(), "code": length.detach()}
