"""Deep Q-learning and its family, for actions that are indices; see `mbrl.learners.dqn`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mbrl.agents.makers import off_policy
from mbrl.agents.schedules import OffPolicySchedule
from mbrl.encoders.configs import NATURE, ImageConfig
from mbrl.learners.value_configs import DQNConfig


@dataclass(frozen=True)
class Config(OffPolicySchedule):
    """Deep Q-learning: double, dueling, C51 and QR-DQN are settings of it."""

    learner: DQNConfig = field(default_factory=DQNConfig)
    """Settings of the network, its target and exploration."""
    images: ImageConfig = NATURE
    """The encoder of observations that are images: uint8, of three dimensions."""


def _of(config: Config, schedule: dict[str, Any] | None = None, **learner: Any) -> Config:
    return replace(config, **(schedule or {}), learner=replace(config.learner, **learner))


VARIANTS: Mapping[str, Callable[[Config], Config]] = {
    "double": lambda config: _of(config, double=True),
    "dueling": lambda config: _of(config, double=True, dueling=True),
    "prioritised": lambda config: _of(config, {"priority": 0.6}, double=True),
    "c51": lambda config: _of(config, atoms=51),
    "qr-dqn": lambda config: _of(config, quantiles=25),
    "rainbow": lambda config: _of(
        config, {"n_step": 3, "priority": 0.6}, double=True, dueling=True, atoms=51
    ),
}
"""Settings of published variants: double DQN (van Hasselt et al. 2016), dueling networks (Wang et
al. 2016), prioritised replay (Schaul et al. 2016), C51 (Bellemare et al. 2017), QR-DQN (Dabney et
al. 2018) and Rainbow (Hessel et al. 2018) without its noisy layers."""


make = off_policy("dqn", Config, {"index": "mbrl.learners.dqn:DQN"})
