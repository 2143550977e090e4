"""Replay buffers, goals in hindsight, n-step transitions, the normaliser and running moments."""

from mbrl.data.hindsight import HindsightReplay
from mbrl.data.n_step import NStep
from mbrl.data.normaliser import Normaliser, moments
from mbrl.data.prioritised import PrioritisedReplay
from mbrl.data.replay import Replay
from mbrl.data.running import ReturnScale, RunningMoments

__all__ = [
    "HindsightReplay",
    "NStep",
    "Normaliser",
    "PrioritisedReplay",
    "Replay",
    "ReturnScale",
    "RunningMoments",
    "moments",
]
