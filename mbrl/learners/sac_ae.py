"""SAC whose encoder also learns by a loss of its own (SAC+AE; Yarats et al. 2019).

The critics' loss and that of the representation train one encoder, each with an optimiser of its
own, which has all of the critics' parameters and those of a decoder if there is one. The policy's
loss does not reach it. The targets' encoder follows faster than their critics (arXiv 1910.01741).
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl.encoders.encoder import Encoder
from mbrl.encoders.representation import Learned
from mbrl.learners.configs import SACAEConfig
from mbrl.learners.encoding import encode
from mbrl.learners.off_policy import Factor
from mbrl.learners.sac import SAC
from mbrl.nn import Block
from mbrl.parallel import single_thread
from mbrl.types import Transition


class Trunk(Encoder):
    """Codes as states of a learner: layer norm, then tanh, so that they lie within ±1.

    Args:
        learned: gives the codes.
    """

    def __init__(self, learned: Learned) -> None:
        super().__init__(learned.shape, learned.features)
        self.learned = learned
        self.norm = nn.LayerNorm(learned.features)

    def forward(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead Z"]:
        """The states."""
        return self.norm(self.learned(obs)).tanh()


class SACAE(SAC):
    """`SAC` of observations whose encoder is a `Trunk`.

    An observation is encoded once for the critics' step and the policy's, as in DrQ-v2.

    Args:
        size, actions, config, encoder, generator, device: as `SAC`; the encoder must be given.

    Raises:
        ValueError: as `SAC`; settings without target networks or with `joint`.
    """

    PARTS = (*SAC.PARTS, "representation")

    config: SACAEConfig

    def _build(self, encoder: Encoder | None, generator: Generator) -> tuple[int, ...]:
        if self.config.joint or not self.config.target:
            raise ValueError("joint, target: sac-ae needs target networks, not joint")
        shape = super()._build(encoder, generator)
        self.representation: Block = self.critic.another(
            learning_rate=self.config.representation_learning_rate
        )
        # the encoder is what was added to the critics last
        encoders = sum(p.numel() for p in cast(Encoder, encoder).parameters())
        self._heads = len(self.critic.value) - encoders
        self._state = torch.empty(0)
        return shape

    @property
    def learned(self) -> Learned:
        """The encoder of codes."""
        return cast(Trunk, self.critic.module.encoder).learned

    def restart(self) -> None:
        """Make the targets equal to the critics, after the encoder was loaded or trained alone."""
        assert self.target is not None
        self.target.follow(1.0)

    def pretrain(self, batch: Transition, *, generator: Generator) -> dict[str, Tensor]:
        """As `represent`, before policy and critics learn: the targets' encoder follows here."""
        said = self.represent(batch, generator=generator)
        self._follow_encoder()
        return said

    @single_thread()
    def represent(self, batch: Transition, *, generator: Generator) -> dict[str, Tensor]:
        """One step of the encoder, and of a decoder, by the loss of the representation alone."""
        assert self.target is not None
        slow = cast(Trunk, self.target.module.encoder).learned
        loss, said = self.learned.batch_loss(batch, slow=slow, generator=generator)
        self.representation.minimise(loss)
        named = {f"representation_{name}": value for name, value in said.items()}
        return {"representation_loss": loss.detach(), **named}

    def _learn(
        self, batch: Transition, weights: Tensor | None, discount: Factor, generator: Generator
    ) -> dict[str, Tensor]:
        metrics = super()._learn(batch, weights, discount, generator)
        if self._due(self.config.represent_every):
            metrics |= self.represent(batch, generator=generator)
        return metrics

    def _critic_state(self, obs: Tensor) -> Tensor:
        state = encode(self.critic.module, obs)
        self._state = state.detach()
        return state

    def _actor_state(self, obs: Tensor) -> Tensor:
        return self._state

    def _follow(self) -> None:
        assert self.target is not None
        self.target.follow(self.config.polyak, slice(None, self._heads))
        self._follow_encoder()

    def _follow_encoder(self) -> None:
        assert self.target is not None
        self.target.follow(self.config.encoder_polyak, slice(self._heads, None))
