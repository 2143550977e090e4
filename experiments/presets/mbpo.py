"""Settings of MBPO by environment: those of the paper (Janner et al. 2019) for MuJoCo's."""

from __future__ import annotations

import math
from dataclasses import replace

from experiments.presets import DISCOUNTS
from mbrl.agents.dyna_config import MacuraConfig
from mbrl.agents.mbpo import Config
from mbrl.dynamics.configs import EnsembleConfig
from mbrl.learners.configs import SACConfig

_DECAY = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
# The paper's members train on until none of them has improved for five passes; ours stop one by
# one, and with five passes of their own they stop far too early on little data.
_MODEL = EnsembleConfig(
    members=7,
    elites=5,
    weight_decay=_DECAY,
    holdout=0.2,
    patience=25,
    learn_reward=True,
)
_PAPER = Config(model=_MODEL)


def _paper(updates: int, entropy: float, last: int, to: int = 150_000, **more: object) -> Config:
    """Published settings: updates a step, target entropy, and the last length of rollouts."""
    learner = SACConfig(target_entropy=entropy)
    schedule = {"updates": updates, "last_horizon": None if last == 1 else last, "horizon_to": to}
    return replace(_PAPER, learner=learner, **schedule, **more)


_HUMANOID = replace(_MODEL, hidden=(400, 400, 400, 400))

# Actions are in [-3, 3], and the published entropy is that of actions in [-1, 1].
_INVERTED = _paper(10, -0.05 + math.log(3), 1, learning_starts=500)

# Smaller nets and fewer rollouts than published, for tasks that are learned in minutes.
SMALL_MODEL = EnsembleConfig(
    members=5,
    hidden=(128, 128, 128),
    batch=32,
    holdout=0.2,
    patience=15,
    weight_decay=1e-5,
)
"""An ensemble for few dimensions."""

SWING_UP = SACConfig(
    learning_rate=1e-3, first_temperature=0.1, discount=DISCOUNTS["cartpole-swingup"]
)
"""A learner for the cart-pole. Its rewards are small at first; a temperature of 1 would hide them.
"""

_SMALL = Config(
    model=SMALL_MODEL,
    learner=SACConfig(learning_rate=1e-3),
    learning_starts=200,
    fit_every=100,
    starts=2000,
    horizon=3,
    updates=5,
)

# The last three dimensions are the goal, which jumps every 75 steps.
_PANDA = replace(
    _SMALL,
    model=replace(SMALL_MODEL, constants=(17, 18, 19)),
    learner=SACConfig(learning_rate=1e-3, first_temperature=0.1, discount=DISCOUNTS["panda-reach"]),
    learning_starts=750,
)

_TASKS: dict[str, tuple[int, Config]] = {
    "InvertedPendulum-v5": (5000, _INVERTED),
    "InvertedDoublePendulum-v5": (10_000, _paper(20, -0.5, 1, learning_starts=500)),
    "Hopper-v5": (125_000, _paper(20, -1.0, 15)),
    "HalfCheetah-v5": (100_000, _paper(40, -3.0, 1)),
    "Walker2d-v5": (200_000, _paper(20, -3.0, 1)),
    "Ant-v5": (200_000, _paper(20, -4.0, 25, 100_000)),
    "Humanoid-v5": (
        200_000,
        _paper(20, -2.0, 25, 300_000, model=_HUMANOID, fit_every=1000, retain=5),
    ),
    "Pendulum-v1": (2000, _SMALL),
    "cartpole-swingup": (3000, replace(_SMALL, learner=SWING_UP, updates=20)),
    "pendulum-swingup": (3000, _SMALL),
    "panda-reach": (6000, _PANDA),
}

_MACURA = {
    "HalfCheetah-v5": MacuraConfig(2.0),
    "Hopper-v5": MacuraConfig(30.0, quantile=0.9),
    "Walker2d-v5": MacuraConfig(0.3),
    "Ant-v5": MacuraConfig(5.0),
    "Humanoid-v5": MacuraConfig(5.0),
}
"""ξ and ζ as the authors of MACURA tuned them for each task; for `--variant macura`."""

PRESETS: dict[str, tuple[int, Config]] = {
    env: (steps, replace(config, macura=_MACURA.get(env, config.macura)))
    for env, (steps, config) in _TASKS.items()
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (20_000, replace(_PAPER, learning_starts=1000, starts=10_000))
"""For environments without a preset; `preset` adds what the model has to learn of them."""
