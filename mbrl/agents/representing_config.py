"""What the settings of agents that learn from codes have in common.

No torch is imported, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mbrl.agents.schedules import OffPolicySchedule
from mbrl.encoders.configs import (
    AutoencoderConfig,
    ContrastiveConfig,
    ImageConfig,
    SelfPredictionConfig,
    VAEConfig,
)
from mbrl.learners.configs import SACAEConfig
from planners.checks import NonNegativeInt, PositiveInt, require


@dataclass(frozen=True)
class RepresentingSchedule(OffPolicySchedule):
    """A learner from codes of observations, and what the codes are learned by."""

    learner: SACAEConfig = field(default_factory=SACAEConfig)
    """Settings of policy and critics, and of how often the encoder learns by its own loss."""
    representation: Literal["autoencoder", "vae", "contrastive", "self-prediction"] = "autoencoder"
    """What the encoder learns by besides the critics' loss: reconstruction, by a regularised or a
    variational autoencoder; telling images apart (CURL); or prediction of the next code, with codes
    kept isotropic (LeWorldModel)."""
    training: Literal["joint", "frozen"] = "joint"
    """joint: the encoder learns all along. frozen: it learns from the first steps, which are
    random, or from other data, and stays as it is; policy and critics then learn from codes, which
    the replay buffer keeps instead of frames."""
    pretrain: NonNegativeInt | None = None
    """Updates of the encoder alone before the first one of policy and critics. If unset, 2,000 if
    it is frozen and not loaded, else none."""
    encoder: str | None = None
    """Where the encoder's first weights come from: a run of this algorithm, or a .safetensors file
    with the weights of its checkpoint. If unset, they are random."""
    data: str | None = None
    """A run whose replay buffer the encoder learns from before: one of any algorithm that keeps
    transitions, with the same observations and actions. If unset, this run's first steps."""
    batch: PositiveInt = 128
    """Transitions in each update."""
    images: ImageConfig = field(default_factory=lambda: ImageConfig(shift=0))
    """Only its `shift` counts here: most pixels by which images of an update are shifted (DrQ)."""
    autoencoder: AutoencoderConfig = field(default_factory=lambda: AutoencoderConfig(latent=50))
    """Settings of the regularised autoencoder."""
    vae: VAEConfig = field(default_factory=lambda: VAEConfig(latent=50))
    """Settings of the variational autoencoder."""
    contrastive: ContrastiveConfig = field(default_factory=lambda: ContrastiveConfig(latent=50))
    """Settings of contrastive codes."""
    self_prediction: SelfPredictionConfig = field(
        default_factory=lambda: SelfPredictionConfig(latent=50)
    )
    """Settings of codes that predict the next one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.data is None or self.pretraining > 0,
            "data: the encoder learns from it in pretraining; want pretrain above 0",
        )
        require(
            self.hindsight == 0 or self.training == "joint",
            "hindsight: codes that are frozen have no goals; want 0, or training joint",
        )
        require(
            self.n_step == 1
            or self.representation != "self-prediction"
            or self.training == "frozen",
            f"n_step: self-prediction learns from single steps; want 1, or training frozen, "
            f"got {self.n_step}",
        )

    @property
    def pretraining(self) -> int:
        """Updates of the encoder alone."""
        own = 2000 if self.training == "frozen" and self.encoder is None else 0
        return own if self.pretrain is None else self.pretrain

    @property
    def codes(self) -> AutoencoderConfig | VAEConfig | ContrastiveConfig | SelfPredictionConfig:
        """Settings of the representation."""
        return getattr(self, self.representation.replace("-", "_"))
