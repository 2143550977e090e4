"""Soft actor-critic and its family; see `mbrl.learners.sac`."""

from __future__ import annotations

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


def _crossq(config: Config, width: int) -> Config:
    return _of(
        config,
        critic_hidden=(width, width),
        norm="batch-after",
        policy_norm="batch-after",
        target=False,
        learning_rate=1e-3,
        beta1=0.5,
        actor_every=3,
    )


VARIANTS: Mapping[str, Callable[[Config], Config]] = {
    "redq": lambda config: _of(
        config, {"updates": 20}, critics=10, subset=2, mean_of_critics=True, actor_every=20
    ),
    "droq": lambda config: _of(
        config, {"updates": 20}, norm="layer", dropout=0.01, mean_of_critics=True, actor_every=20
    ),
    "crossq": lambda config: _crossq(config, 2048),
    "crossq-512": lambda config: _crossq(config, 512),
    "xqc": lambda config: _of(
        config,
        {"updates": 2, "scale_reward": True},
        critic_hidden=(512, 512, 512, 512),
        norm="batch",
        unit_weights=True,
        atoms=101,
        value_range=(-5.0, 5.0),
        first_temperature=0.01,
        actor_every=3,
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
(Bhatt et al. 2024), the same with narrower critics, which are quick on a CPU, XQC (Palenicek et al.
2025), and an ensemble of normalised critics for one update a step, as the SAC that DHMBPO's authors
compare with."""


make = off_policy(
    "sac", Config, {"box": "mbrl.learners.sac:SAC", "index": "mbrl.learners.sac:DiscreteSAC"}
)
