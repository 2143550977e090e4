"""TD-MPC2 (Hansen et al. 2024): plans in the latent space of a model that it learns meanwhile.

See `mbrl.learners.tdmpc` for what is learned. No torch is imported until an agent is made, so the
command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mbrl.agents.world_config import WorldSchedule
from mbrl.learners.tdmpc_config import discount_of_episodes

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.world_planning import WorldPlanning
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(WorldSchedule):
    """TD-MPC2: plans in the latent space of a world model that is learned without a decoder."""


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> WorldPlanning:
    """A new agent.

    Raises:
        ValueError: observations that are neither a box nor indices, or images that are too small;
            actions that are not in a box; a replay buffer that does not fit into memory.
    """
    from mbrl.agents.policies import actions_of
    from mbrl.agents.world_planning import WorldPlanning
    from mbrl.distributions import Bounds
    from mbrl.encoders.images import is_image
    from mbrl.encoders.simplicial import SimplicialEncoder
    from mbrl.learners.tdmpc import TDMPC
    from mbrl.spaces import Vectors

    actions = actions_of(spec.action, "tdmpc", device, ("box",))
    assert isinstance(actions, Bounds)
    own = config.learner
    if own.discount is None:
        known = spec.discount
        own = replace(
            own, discount=discount_of_episodes(spec.episode_steps) if known is None else known
        )
    image = is_image(spec.obs)
    shape = tuple(spec.obs.shape or ()) if image else (Vectors(spec.obs).size,)
    encoder = SimplicialEncoder(
        shape,
        own.latent,
        group=own.group,
        hidden=own.encoder_hidden,
        images=config.images,
        generator=generator,
    )
    learner = TDMPC(
        encoder,
        actions,
        own,
        termination=spec.ends or spec.terminated is not None,
        generator=generator,
        device=device,
    )
    return WorldPlanning(spec, learner, config, generator=generator, device=device)
