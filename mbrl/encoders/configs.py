"""Settings of encoders. No torch is imported, so the command's help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planners.checks import NonNegativeInt, PositiveInt, check_fields


@dataclass(frozen=True)
class ImageConfig:
    """Settings of the encoder of images; used only where observations are images."""

    network: Literal["drq", "nature"] = "drq"
    """drq: four layers of 3 x 3, then features within ±1 (Yarats et al. 2021), for images of at
    least 15 x 15. nature: three layers, then ReLU features (Mnih et al. 2015), for images of at
    least 36 x 36."""
    channels: PositiveInt = 32
    """Channels of each layer of drq, and of the first layer of nature; its others have twice as
    many."""
    features: PositiveInt = 50
    """F, the number of features that an image becomes."""
    shift: NonNegativeInt = 4
    """Most pixels by which an image of a batch is shifted, at random and in each direction (DrQ);
    0: not at all."""

    def __post_init__(self) -> None:
        check_fields(self)


NATURE = ImageConfig(network="nature", features=512, shift=0)
"""The encoder of deep Q-learning (Mnih et al. 2015)."""
