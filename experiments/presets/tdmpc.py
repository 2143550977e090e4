"""Settings of TD-MPC2 by environment, sized for one core of a CPU."""

from __future__ import annotations

from dataclasses import replace

from mbrl.agents.tdmpc import Config
from mbrl.agents.world_config import planning
from mbrl.learners.tdmpc_config import TDMPCConfig

_SMALL = Config(
    learner=TDMPCConfig(
        latent=128, hidden=(128, 128), encoder_hidden=(128,), learning_rate=1e-3, polyak=0.05
    ),
    plan=planning(population=120, iterations=4, elites=16, proposals=6),
    train_every=2,
    batch=128,
)
_ONE_ACTION = replace(_SMALL, plan=planning(population=64, iterations=3, elites=8, proposals=3))

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (5000, replace(_ONE_ACTION, train_every=1)),
    "cartpole-swingup": (20_000, _ONE_ACTION),
    "dmc-cartpole-swingup": (50_000, _ONE_ACTION),
    "pendulum-swingup": (20_000, _ONE_ACTION),
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (50_000, _SMALL)
"""For environments without a preset."""
