"""What a learner can tell a planner."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.imagination import rollout
from mbrl.types import DistinctWorlds, Dynamics, Policy


class Guide(NamedTuple):
    """A critic that values the state in which a plan ends, and a policy to begin plans from.

    Lowrey et al. 2019 (POLO) and Hansen et al. 2022 (TD-MPC) plan so.
    """

    value: Callable[[Float[Tensor, "*lead O"]], Float[Tensor, "*lead"]]
    """V(s) of observations."""
    policy: Policy
    """Acts on observations."""
    discount: float
    """The γ of `value`."""
    of_states: bool = False
    """Whether value and policy are of model states instead of observations."""


@torch.no_grad()
def proposals(
    guide: Guide,
    model: Dynamics,
    state: Float[Tensor, " S"],
    *,
    count: int,
    horizon: int,
    generator: Generator,
) -> Float[Tensor, "count horizon A"]:
    """Actions that the policy takes in the model, which is stepped without noise.

    The first sequence is without exploration. Where members are different worlds, the nominal one
    is stepped, else the first.
    """

    def act(state: Tensor, *, generator: Generator, explore: bool) -> Tensor:
        obs = state if guide.of_states else model.decode(state)
        drawn = guide.policy(obs, generator=generator, explore=True)
        drawn[..., 0, :] = guide.policy(obs[..., 0, :], generator=generator, explore=False)
        return drawn

    imagined = rollout(
        model,
        state.expand(count, -1),
        act,
        horizon=horizon,
        particles=model.members,
        sample=False,
        generator=generator,
    )
    nominal = model.nominal if isinstance(model, DistinctWorlds) else 0
    return imagined.action[nominal]
