"""The replay buffer and the normaliser."""

from mbrl.data.normaliser import Normaliser, moments
from mbrl.data.replay import Replay

__all__ = ["Normaliser", "Replay", "moments"]
