"""A policy gradient that learns from imagined rollouts of the current policy alone.

With TRPO and an ensemble it is ME-TRPO (Kurutach et al. 2018, "Model-ensemble trust-region policy
optimization", arXiv 1802.10592); `mbrl.agents.model_gradient` is the agent. No torch is imported
until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mbrl.agents.model_gradient_config import ModelGradientSchedule
from mbrl.agents.schedules import with_discount
from mbrl.learners.on_policy_configs import (
    A2CConfig,
    ActorCriticConfig,
    PPOConfig,
    ReinforceConfig,
    TRPOConfig,
)
from planners.checks import require

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.model_gradient import ModelGradient
    from mbrl.types import Spec

LEARNERS = {
    "trpo": "mbrl.learners.trpo:TRPO",
    "ppo": "mbrl.learners.ppo:PPO",
    "a2c": "mbrl.learners.a2c:A2C",
    "actor-critic": "mbrl.learners.actor_critic:ActorCritic",
    "reinforce": "mbrl.learners.reinforce:Reinforce",
}
"""The learner of each base."""


@dataclass(frozen=True)
class Config(ModelGradientSchedule):
    """A policy gradient from rollouts in a learned model only (ME-TRPO, with any such learner)."""

    base: Literal["trpo", "ppo", "a2c", "actor-critic", "reinforce"] = "trpo"
    """The learner."""
    trpo: TRPOConfig = field(default_factory=TRPOConfig)
    """Settings of trpo."""
    ppo: PPOConfig = field(default_factory=lambda: PPOConfig(batch=512))
    """Settings of ppo."""
    a2c: A2CConfig = field(default_factory=A2CConfig)
    """Settings of a2c."""
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    """Settings of actor-critic."""
    reinforce: ReinforceConfig = field(default_factory=ReinforceConfig)
    """Settings of reinforce, which needs whole episodes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.base != "reinforce" or self.horizon is None,
            "horizon: reinforce needs whole episodes, so leave it unset",
        )

    @property
    def learner(self) -> Any:
        """Settings of the learner that `base` names."""
        return getattr(self, self.base.replace("-", "_"))


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> ModelGradient:
    """An agent with the learner that `config.base` names.

    Raises:
        ValueError: observations or actions that it cannot use; whole episodes where an episode has
            no limit of steps.
    """
    from mbrl.agents.makers import imported
    from mbrl.agents.model_gradient import ModelGradient
    from mbrl.agents.policies import actions_of
    from mbrl.encoders.images import is_image
    from mbrl.spaces import Vectors

    name = f"mb-pg with {config.base}"
    if is_image(spec.obs):
        raise ValueError(f"{name}: a model of images is not learned here; want vectors or indices")
    if config.horizon is None and spec.episode_steps is None:
        raise ValueError(
            f"{name}: rollouts of whole episodes need a limit of steps, which this environment "
            f"does not have; set horizon"
        )
    actions = actions_of(spec.action, name, device, ("index", "box"))
    own = with_discount(config.learner, spec)
    learner = imported(LEARNERS[config.base])
    made = learner(Vectors(spec.obs).size, actions, own, generator=generator, device=device)
    return ModelGradient(spec, made, config, generator=generator, device=device)
