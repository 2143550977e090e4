"""Tuned settings of DHMBPO by environment."""

from __future__ import annotations

from mbrl.agents.dhmbpo import Config
from mbrl.dynamics import NormedEnsembleConfig
from mbrl.learners.svg_config import SVGConfig

# As published, but for the model's minibatch (2048) and the random steps, of which few are enough.
_PUBLISHED = Config(model=NormedEnsembleConfig(learn_reward=True))

# Iterations as long as an episode, and small networks, because there is little to learn.
_PENDULUM = Config(
    learner=SVGConfig(hidden=(128, 128), discount=0.99, learning_rate=1e-3),
    model=NormedEnsembleConfig(
        members=5, hidden=(128, 128), patience=10, epochs=60, learn_reward=True
    ),
    learning_starts=200,
    fit_every=200,
    updates=200,
    critic_updates=50,
    batch=128,
    starts=128,
)

PRESETS: dict[str, tuple[int, Config]] = {
    "Pendulum-v1": (2000, _PENDULUM),
    "HalfCheetah-v5": (50_000, _PUBLISHED),
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = (20_000, Config())
"""For environments without a preset; `preset` adds what the model has to learn of them."""
