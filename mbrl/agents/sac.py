"""Soft actor-critic and its family; see `mbrl.learners.sac`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mbrl.agents.schedules import OffPolicySchedule, with_discount
from mbrl.encoders.configs import ImageConfig
from mbrl.learners.configs import SACConfig

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.off_policy import OffPolicy
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(OffPolicySchedule):
    """Soft actor-critic: off-policy, with a stochastic policy whose entropy is rewarded."""

    learner: SACConfig = field(default_factory=SACConfig)
    """Settings of policy and critics."""
    images: ImageConfig = field(default_factory=ImageConfig)
    """The encoder of observations that are images: uint8, of three dimensions."""


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


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> OffPolicy:
    """An agent with a `SAC`, or with a `DiscreteSAC` where actions are indices.

    Raises:
        ValueError: actions that are neither in a bounded box nor indices; observations that are
            neither a box nor indices.
    """
    from gymnasium.spaces import Box, Discrete

    from mbrl.agents.off_policy import OffPolicy, states_of
    from mbrl.distributions import Bounds
    from mbrl.learners.sac import SAC, DiscreteSAC
    from mbrl.spaces import bounds

    own = with_discount(config.learner, spec, 0.99)
    assert own.discount is not None
    size, encoder = states_of(spec, config.images, generator=generator)
    if isinstance(spec.action, Discrete):
        choices = int(spec.action.n)
        learner = DiscreteSAC(
            size, choices, own, encoder=encoder, generator=generator, device=device
        )
    elif isinstance(spec.action, Box):
        box = Bounds(*bounds(spec.action, device=device))
        learner = SAC(size, box, own, encoder=encoder, generator=generator)
    else:
        raise ValueError(f"sac needs a bounded box of actions or indices, not {spec.action}")
    return OffPolicy(
        spec,
        learner,
        config,
        images=None if encoder is None else config.images,
        discount=own.discount,
        generator=generator,
        device=device,
    )
