"""Replay buffers, hindsight goals, sequences, n-step transitions and running moments."""

from mbrl.data.hindsight import HindsightReplay
from mbrl.data.n_step import NStep
from mbrl.data.normaliser import Normaliser, moments
from mbrl.data.prioritised import PrioritisedReplay
from mbrl.data.replay import Replay
from mbrl.data.running import ReturnScale, RunningMoments
from mbrl.data.sequences import SequenceReplay

__all__ = [
    "HindsightReplay",
    "NStep",
    "Normaliser",
    "PrioritisedReplay",
    "Replay",
    "ReturnScale",
    "RunningMoments",
    "SequenceReplay",
    "moments",
]
