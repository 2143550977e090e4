"""What learners with an encoder of observations share.

The encoder is a part of the critic, in its `Block`: the critic's loss trains it, with the critic's
optimiser, and the critic's target has a copy of it. The policy's loss does not reach it (SAC-AE and
DrQ; Yarats et al. 2021).
"""

from __future__ import annotations

from typing import Any, cast

from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl.encoders.encoder import Encoder
from mbrl.types import Policy


def attach(critic: nn.Module, size: int, encoder: Encoder | None) -> tuple[int, ...]:
    """Make the encoder a part of a critic of states (S,); returns *O, the shape of an observation.

    Without an encoder observations are states.

    Raises:
        ValueError: an encoder of other than S features.
    """
    # None too, because asking a module for what it lacks takes longer than a small layer
    critic.register_module("encoder", encoder)
    if encoder is None:
        return (size,)
    if encoder.features != size:
        raise ValueError(f"size: the encoder gives {encoder.features} features, got {size}")
    return encoder.shape


def encode(critic: nn.Module, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead S"]:
    """The states of observations by a critic's encoder; the observations if it has none."""
    encoder = getattr(critic, "encoder", None)
    return obs if encoder is None else encoder(obs)


def policy_of(critic: nn.Module, actor: nn.Module) -> Any:
    """A `Policy` of observations from one of states; the actor itself if observations are states.

    Args:
        critic: has the encoder, if there is one.
        actor: a `Policy` of states.
    """
    plain = getattr(critic, "encoder", None) is None
    return actor if plain else EncodedPolicy(critic, cast(Policy, actor))


class EncodedPolicy:
    """A `Policy` of observations: a critic's encoder turns them into states of another policy.

    Args:
        critic: has the encoder.
        policy: of states.
    """

    def __init__(self, critic: nn.Module, policy: Policy) -> None:
        self.critic, self.policy = critic, policy

    def __call__(
        self, state: Shaped[Tensor, "*lead *O"], *, generator: Generator, explore: bool
    ) -> Shaped[Tensor, "*lead A"]:
        """Actions for observations."""
        return self.policy(encode(self.critic, state), generator=generator, explore=explore)
