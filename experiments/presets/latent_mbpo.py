"""Tuned settings of learning in latent space by environment; sizes are for two cores of a CPU."""

from __future__ import annotations

from dataclasses import replace

from experiments.presets import latent_pets
from mbrl.agents.latent_mbpo import Config
from mbrl.learners.configs import SACConfig

# Each action lasts several steps of the environment, and an episode has some hundred actions.
_LEARNER = SACConfig(learning_rate=1e-3, first_temperature=0.1, discount=0.96)


def _config(steps: int, given: latent_pets.Config) -> tuple[int, Config]:
    """Settings with the model and the random steps of latent-pets."""
    return steps, Config(
        model=replace(given.model, updates=20),
        learner=_LEARNER,
        random_steps=given.random_steps,
        updates=6,
    )


PRESETS: dict[str, tuple[int, Config]] = {
    name: _config(*found) for name, found in latent_pets.PRESETS.items()
}
"""Environment steps and settings."""

OTHERS: tuple[int, Config] = _config(*latent_pets.OTHERS)
"""For environments without a preset; `preset` adds what the model has to learn of them."""
