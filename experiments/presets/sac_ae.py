"""Tuned settings of SAC from learned codes by environment."""

from __future__ import annotations

from mbrl.agents.sac_ae import Config
from mbrl.encoders.configs import AutoencoderConfig, ContrastiveConfig, ImageConfig, VAEConfig
from mbrl.encoders.configs import SelfPredictionConfig as Prediction
from mbrl.learners.configs import SACAEConfig

# An update takes some 0.1 s of one core with frames of 64 x 64. With batches of 64, 8 channels and
# returns of one step the return after 100,000 frames of the cart-pole was 195 instead of 549.
_SMALL = Config(
    learner=SACAEConfig(hidden=(256, 256), represent_every=4),
    batch=128,
    n_step=3,
    images=ImageConfig(shift=4),
    autoencoder=AutoencoderConfig(latent=50, channels=16, activation="relu"),
    vae=VAEConfig(latent=50, channels=16, activation="relu"),
    contrastive=ContrastiveConfig(latent=50, channels=16, activation="relu"),
    self_prediction=Prediction(latent=50, channels=16, activation="relu"),
)

PRESETS: dict[str, tuple[int, Config]] = {
    # 100,000 frames with --env-repeat 8 and 4, as PlaNet and SAC+AE count them
    "dmc-cartpole-swingup-pixels": (12_500, _SMALL),
    "dmc-reacher-easy-pixels": (25_000, _SMALL),
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (20_000, _SMALL)
"""For environments without a preset."""
