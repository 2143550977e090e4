"""Returns of agents that see frames beside published ones, and how long they take."""

from __future__ import annotations

from typing import Any

from experiments.studies.agent_returns import Published, Row, agent_returns
from experiments.studies.lab import Lab, Report
from mbrl.encoders.configs import AutoencoderConfig, ImageConfig
from mbrl.training.run_config import changed

CART_POLE, REACHER = "dmc-cartpole-swingup-pixels", "dmc-reacher-easy-pixels"

ROWS = (
    *(Row(algo, CART_POLE, 12_500, 8) for algo in ("sac", "sac-ae", "latent-pets")),
    *(Row(algo, REACHER, 25_000, 4) for algo in ("sac", "sac-ae")),
)
"""100,000 frames each, with the repeats of actions of PlaNet."""

PUBLISHED: dict[str, tuple[Published, ...]] = {
    CART_POLE: (
        Published("DrQ", 12_500, 759.0),
        Published("CURL", 12_500, 582.0),
        Published("PlaNet", 12_500, 563.0),
        Published("Dreamer", 12_500, 326.0),
    ),
    REACHER: (
        Published("DrQ", 25_000, 601.0),
        Published("CURL", 25_000, 538.0),
        Published("PlaNet", 25_000, 82.0),
        Published("Dreamer", 25_000, 314.0),
    ),
}
"""Means over seeds at 100,000 frames: of CURL, PlaNet and Dreamer as CURL's authors give them
(Srinivas et al. 2020, arXiv 2004.04136), and of DrQ (Yarats et al. 2021, arXiv 2004.13649). CURL
and DrQ see frames of 84 x 84, PlaNet and Dreamer of 64 x 64."""

FAST = tuple(Row(algo, "pendulum-swingup-pixels-16", 300) for algo in ("sac", "sac-ae"))


def pixel_returns(lab: Lab) -> Report:
    """Learning curves of agents that see frames, returns of their policies, and their time."""
    title = "Returns of agents that see frames"
    return agent_returns(lab, FAST if lab.fast else ROWS, PUBLISHED, title=title, small=small)


def small(agent: Any) -> Any:
    """The settings with small networks and few updates."""
    images = ImageConfig(channels=2, features=4, shift=1)
    agent = changed(agent, batch=8, learning_starts=150, images=images)
    if hasattr(agent, "autoencoder"):
        codes = AutoencoderConfig(latent=4, channels=2, layers=2)
        agent = changed(agent, autoencoder=codes)
    return agent
