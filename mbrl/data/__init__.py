"""The replay buffer, the normaliser and running moments."""

from mbrl.data.normaliser import Normaliser, moments
from mbrl.data.replay import Replay
from mbrl.data.running import ReturnScale, RunningMoments

__all__ = ["Normaliser", "Replay", "ReturnScale", "RunningMoments", "moments"]
