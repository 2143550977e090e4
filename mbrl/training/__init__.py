"""Training: steps of N environments, the online and the offline loop, and runs on disk."""

from mbrl.rng import episode_seed, generator
from mbrl.training.checkpoint import Run, RunError
from mbrl.training.collect import (
    EnvironmentError,
    Episodes,
    collect,
    evaluate,
    play,
    vector,
)
from mbrl.training.metrics import MetricsLog
from mbrl.training.offline import fit_offline
from mbrl.training.online import Evaluation, Progress, Target, run_agent
from mbrl.training.run_config import RunConfig
from mbrl.training.runs import load_run, make, train

__all__ = [
    "EnvironmentError",
    "Episodes",
    "Evaluation",
    "MetricsLog",
    "Progress",
    "Run",
    "RunConfig",
    "RunError",
    "Target",
    "collect",
    "episode_seed",
    "evaluate",
    "fit_offline",
    "generator",
    "load_run",
    "make",
    "play",
    "run_agent",
    "train",
    "vector",
]
