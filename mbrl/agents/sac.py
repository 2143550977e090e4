"""Soft actor-critic and its family; see `mbrl.learners.sac`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mbrl.agents.makers import off_policy
from mbrl.agents.schedules import OffPolicySchedule
from mbrl.learners.configs import SACConfig


@dataclass(frozen=True)
class Config(OffPolicySchedule):
    """Soft actor-critic: off-policy, with a stochastic policy whose entropy is rewarded."""

    learner: SACConfig = field(default_factory=SACConfig)
    """Settings of policy and critics."""


def _of(config: Config, schedule: dict[str, Any] | None = None, **learner: Any) -> Config:
    return replace(config, **(schedule or {}), learner=replace(config.learner, **learner))


def _crossq(config: Config, width: int, norm: str) -> Config:
    return _of(
        config,
        critic_hidden=(width, width),
        norm=norm,
        policy_norm=norm,
        target=False,
        learning_rate=1e-3,
        beta1=0.5,
        actor_every=3,
    )


_XQC_STD = 1 / (math.e * math.sqrt(2 * math.pi))
"""The std whose Gaussian has the entropy of XQC's target, -1/2 nats for each dimension."""

_SCALED: dict[str, Any] = {
    "joint": True,
    "unit_weights": True,
    "atoms": 101,
    "value_range": (-5.0, 5.0),
    "first_temperature": 0.01,
}
"""What XQC and FlashSAC share."""

VARIANTS: Mapping[str, Callable[[Config], Config]] = {
    "redq": lambda config: _of(
        config, {"updates": 20}, critics=10, subset=2, mean_of_critics=True, actor_every=20
    ),
    "droq": lambda config: _of(
        config, {"updates": 20}, norm="layer", dropout=0.01, mean_of_critics=True, actor_every=20
    ),
    "crossq": lambda config: _crossq(config, 2048, "renorm-after"),
    "crossq-512": lambda config: _crossq(config, 512, "batch-after"),
    "xqc": lambda config: _of(
        config,
        {"updates": 2, "scale_reward": True},
        hidden=(256, 256, 256, 256),
        critic_hidden=(512, 512, 512, 512),
        norm="batch",
        policy_norm="batch",
        target_std=_XQC_STD,
        learning_rate=3e-4,
        last_learning_rate=3e-5,
        actor_every=3,
        **_SCALED,
    ),
    "flashsac": lambda config: _of(
        config,
        {"batch": 512, "scale_reward": True, "hold_noise": 16},
        body="blocks",
        hidden=(128, 128),
        critic_hidden=(256, 256),
        smooth_std=True,
        target_std=0.15,
        polyak=0.01,
        learning_rate=3e-4,
        last_learning_rate=1.5e-4,
        decay="cosine",
        actor_every=2,
        **_SCALED,
    ),
    "ensemble": lambda config: _of(
        config,
        {"normalise_obs": True},
        critic_hidden=(256, 256, 256),
        activation="silu",
        critics=5,
        subset=2,
        norm="layer",
    ),
}
"""Settings of published variants: REDQ (Chen et al. 2021), DroQ (Hiraoka et al. 2022), CrossQ
(Bhatt et al. 2024), the same with narrower critics and plain batch norm, which are quick on a CPU,
XQC (Palenicek et al. 2025), FlashSAC (2026, arXiv 2604.04539), and an ensemble of normalised
critics for one update a step, as the SAC that DHMBPO's authors compare with.

The numbers are those of the authors' code. Where FlashSAC's differs between simulators, they are
those for one environment at a time; 512 transitions in a batch are from its CPU benchmarks."""


make = off_policy(
    "sac", Config, {"box": "mbrl.learners.sac:SAC", "index": "mbrl.learners.sac:DiscreteSAC"}
)
