"""Replay buffers, n-step transitions and the normaliser."""

from mbrl.data.n_step import NStep
from mbrl.data.normaliser import Normaliser, moments
from mbrl.data.prioritised import PrioritisedReplay
from mbrl.data.replay import Replay

__all__ = ["NStep", "Normaliser", "PrioritisedReplay", "Replay", "moments"]
