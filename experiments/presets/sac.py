"""Tuned settings of soft actor-critic by environment."""

from __future__ import annotations

from dataclasses import replace

from experiments.presets import DISCOUNTS
from mbrl.agents.sac import VARIANTS, Config
from mbrl.encoders.configs import ImageConfig
from mbrl.learners.configs import SACConfig

_PENDULUM = Config(learning_starts=100, learner=SACConfig(learning_rate=1e-3))

# Random actions for longer, because a half-cheetah that learns from few starts stays on its back.
_MUJOCO = Config(learning_starts=5000)

# The robots' rewards are mostly in [0, 1] and small at first; a temperature of 1 would hide them.
_SMALL = Config(learner=SACConfig(learning_rate=1e-3, first_temperature=0.1))
_CROSSQ = VARIANTS["crossq-512"](_SMALL)  # its batch norm scales observations too

# An update takes some 0.1 s of one core with frames of 64 x 64; DrQ's sizes take ten times that.
_FRAMES = Config(
    learner=SACConfig(learning_rate=1e-3, first_temperature=0.1, polyak=0.01, actor_every=2),
    batch=128,
    n_step=3,
    images=ImageConfig(channels=16),
)

_ROBOTS: dict[str, tuple[int, Config]] = {
    "panda-reach": (30_000, _CROSSQ),
    "panda-push": (100_000, _CROSSQ),
    "panda-pick": (200_000, _CROSSQ),
    "cartpole-swingup": (15_000, _SMALL),
    "cartpole-servo": (30_000, replace(_SMALL, scale_reward=True)),  # costs of 20 a step
    "acrobot-swingup": (50_000, replace(_SMALL, normalise_obs=True)),  # rates reach 8 rad/s
    "quadruped-walk": (100_000, _CROSSQ),
    "half-cheetah": (100_000, replace(_CROSSQ, learning_starts=5000)),
    "walker-run": (100_000, _CROSSQ),
}

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (20_000, _PENDULUM),
    "HalfCheetah-v5": (100_000, _MUJOCO),
    "Hopper-v5": (100_000, _MUJOCO),
    "Walker2d-v5": (100_000, _MUJOCO),
    "Ant-v5": (200_000, _MUJOCO),
    "Humanoid-v5": (200_000, _MUJOCO),
    # 100,000 frames with --env-repeat 8 and 4, as PlaNet and DrQ count them
    "dmc-cartpole-swingup-pixels": (12_500, _FRAMES),
    "dmc-reacher-easy-pixels": (25_000, _FRAMES),
    **{
        env: (steps, replace(config, learner=replace(config.learner, discount=DISCOUNTS[env])))
        for env, (steps, config) in _ROBOTS.items()
    },
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (100_000, Config())
"""For environments without a preset."""
