"""Settings of Dyna by environment."""

from __future__ import annotations

from dataclasses import replace

from experiments.presets.mbpo import SMALL_MODEL, SWING_UP
from mbrl.agents.dyna import Config
from mbrl.learners.configs import SACConfig
from mbrl.learners.value_configs import DQNConfig

_SMALL = Config(
    model=SMALL_MODEL,
    sac=SACConfig(learning_rate=1e-3),
    learning_starts=200,
    fit_every=100,
    starts=2000,
    real=0.5,
)
_CARTPOLE = Config(
    model=replace(SMALL_MODEL, learn_reward=True, learn_termination=True),
    base="dqn",
    dqn=DQNConfig(learning_rate=1e-3, target_every=100, exploration_steps=1000),
    learning_starts=200,
    fit_every=100,
    starts=2000,
    batch=64,
    updates=2,
    real=0.5,
)

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (3000, _SMALL),
    "cartpole-swingup": (4000, replace(_SMALL, sac=SWING_UP)),
    "pendulum-swingup": (4000, _SMALL),
    "CartPole-v1": (3000, _CARTPOLE),
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (20_000, Config(starts=2000))
"""For environments without a preset; `preset` adds what the model has to learn of them."""
