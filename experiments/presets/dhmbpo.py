"""Tuned settings of DHMBPO by environment.

Where it says so, numbers of steps are those of actions, each taken for two steps (`--env-repeat
2`).
"""

from __future__ import annotations

from dataclasses import replace

from experiments.presets import DISCOUNTS
from mbrl.agents.dhmbpo import Config
from mbrl.dynamics import NormedEnsembleConfig
from mbrl.learners.svg_config import SVGConfig

# As published, but for the fit of the model: minibatches of 256 instead of 2048, whose noise an
# average of the weights takes out, and a fifth of the patience. The first fits need all passes:
# with a sixth of them the error of a half-cheetah's model is 1.5 times as large, and the policy
# exploits it.
_MODEL = NormedEnsembleConfig(patience=10, average=0.99, learn_reward=True)
_PUBLISHED = Config(model=_MODEL)

# Smaller networks and batches for tasks of few dimensions, with an iteration in each episode; the
# range of returns follows fast, because there are few updates. Fits are so short that an average of
# their weights lags behind.
_SMALL_MODEL = replace(_MODEL, average=0.0, members=5, hidden=(128, 128), epochs=40)
_SMALL = Config(
    learner=SVGConfig(hidden=(128, 128), discount=0.99, learning_rate=1e-3, range_rate=0.01),
    model=_SMALL_MODEL,
    learning_starts=200,
    fit_every=200,
    updates=200,
    critic_updates=50,
    batch=128,
    starts=128,
)

# Rewards are small at first; a temperature of 1 would hide them.
_CART_POLE = replace(
    _SMALL,
    learner=replace(_SMALL.learner, discount=DISCOUNTS["cartpole-swingup"], first_temperature=0.1),
    fit_every=150,
    updates=450,
    critic_updates=150,
)

# The last three dimensions are the goal, which jumps every 75 steps. The reward is a peak of 5 cm
# about it, which a model of few steps does not learn; the known one has a gradient everywhere.
_PANDA = replace(
    _SMALL,
    model=replace(_SMALL_MODEL, hidden=(200, 200), constants=(17, 18, 19), learn_reward=False),
    learner=replace(_SMALL.learner, discount=DISCOUNTS["panda-reach"], first_temperature=0.1),
    learning_starts=750,
    fit_every=300,
    updates=600,
)

# An iteration in each episode of 500 actions, as published for the Control Suite.
_SUITE = replace(_PUBLISHED, learning_starts=2500, fit_every=500, updates=500, critic_updates=125)

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (2000, _SMALL),
    "cartpole-swingup": (3000, _CART_POLE),
    "panda-reach": (3000, _PANDA),
    "InvertedPendulum-v5": (5000, replace(_SMALL, learning_starts=500)),
    "HalfCheetah-v5": (30_000, _PUBLISHED),
    "Hopper-v5": (30_000, _PUBLISHED),
    "dmc-cartpole-swingup": (10_000, _SUITE),  # --env-repeat 2
    "dmc-ball-in-cup-catch": (10_000, _SUITE),  # --env-repeat 2
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (20_000, _PUBLISHED)
"""For environments without a preset; `preset` adds the termination where it is to be learned."""
