"""A model whose states are latent and that has no decoder: it predicts latent states and rewards.

TD-MPC2 (Hansen et al. 2024, "TD-MPC2: scalable, robust world models for continuous control",
arXiv 2310.16828). The networks are trained by the learner, `mbrl.learners.tdmpc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, cast

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl.distributions import Bounds, TwoHot
from mbrl.encoders.encoder import Encoder
from mbrl.encoders.simplicial import Simplices
from mbrl.nn import StackedMLP
from mbrl.nn.mish import mish
from mbrl.nn.stacked import LayerNorm
from mbrl.types import Step


class LatentNets(nn.Module):
    """The networks of latent dynamics: z' = d(z, a), the reward, and whether z' is an end.

    Layers have layer norm and Mish. Actions are scaled from their box to [-1, 1]. The reward is a
    distribution over bins of its symlog.

    Args:
        latent: Z.
        actions: the box.
        hidden: widths of the hidden layers.
        group: V, numbers in a group of a latent state (see `mbrl.nn.simnorm`).
        bins: of the reward in symlog space, (K,).
        termination: whether ends are predicted.
        generator: draws the weights.

    Raises:
        ValueError: no hidden layer; a V that does not divide Z.
    """

    bins: Tensor

    def __init__(
        self,
        latent: int,
        actions: Bounds,
        hidden: Sequence[int],
        *,
        group: int,
        bins: Float[Tensor, " K"],
        termination: bool,
        generator: Generator,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("hidden: want one layer or more")
        self.actions = actions
        sizes, width = (latent + len(actions.low), *hidden), hidden[-1]
        own = {"activation": "mish", "norm": "layer", "generator": generator}
        # the hidden layers of both, one member each: half as many operations
        self.both = StackedMLP(2, sizes, **own)
        self.norm = LayerNorm(2, width)
        self.transition = StackedMLP(1, (width, latent), generator=generator)
        self.reward = StackedMLP(1, (width, len(bins)), generator=generator)
        with torch.no_grad():
            self.reward.weights[0].zero_()
        self.simplices = Simplices(latent, group)
        self.termination = StackedMLP(1, (latent, *hidden, 1), **own) if termination else None
        self.register_buffer("bins", bins)

    def joined(
        self, state: Float[Tensor, "*lead Z"], action: Float[Tensor, "*lead A"]
    ) -> Float[Tensor, "1 B ZA"]:
        """Inputs of networks of states and actions, as rows."""
        scaled = (action - self.actions.centre) / self.actions.half
        return torch.cat((state, scaled), -1).view(1, -1, state.shape[-1] + action.shape[-1])

    def forward(
        self, joined: Float[Tensor, "1 B ZA"]
    ) -> tuple[Float[Tensor, "1 B Z"], Float[Tensor, "1 B K"]]:
        """Next latent states, and logits of the bins of rewards."""
        return self._heads(self.both(joined.expand(2, -1, -1)))

    def from_one(
        self, state: Float[Tensor, " Z"], action: Float[Tensor, "B A"]
    ) -> tuple[Float[Tensor, "1 B Z"], Float[Tensor, "1 B K"]]:
        """As `forward`, for B actions in one state."""
        if len(self.both.weights) == 1:  # the only layer has no norm
            return self(self.joined(state.expand(len(action), -1), action))
        weight, bias = self.both.weights[0], self.both.biases[0]
        scaled = (action - self.actions.centre) / self.actions.half
        common = torch.baddbmm(bias, state.expand(2, 1, -1), weight[:, : len(state)])
        first = torch.baddbmm(common, scaled.expand(2, -1, -1), weight[:, len(state) :])
        return self._heads(self.both.after_first(first))

    def _heads(
        self, out: Float[Tensor, "2 B W"]
    ) -> tuple[Float[Tensor, "1 B Z"], Float[Tensor, "1 B K"]]:
        of_state, of_reward = mish(self.norm(out)).split(1)
        return self.simplices(self.transition(of_state)), self.reward(of_reward)


class LatentModel:
    """A `Dynamics` of latent states, for planning.

    Args:
        encoder: of observations.
        nets: the networks.
    """

    members, noise_shape = 1, (0,)

    def __init__(self, encoder: nn.Module, nets: nn.Module) -> None:
        self.encoder, self.nets = cast(Encoder, encoder), cast(LatentNets, nets)

    def encode(
        self,
        obs: Shaped[Tensor, "*lead *O"],
        *,
        state: Float[Tensor, "*lead Z"] | None = None,
        action: Float[Tensor, "*lead A"] | None = None,
    ) -> Float[Tensor, "*lead Z"]:
        """Latent states of observations; the model has no memory."""
        with torch.no_grad():
            return self.encoder(obs)

    def decode(self, state: Float[Tensor, "*lead Z"]) -> NoReturn:
        """Raises NotImplementedError: there is no decoder."""
        raise NotImplementedError("a latent model without a decoder predicts no observations")

    def step(
        self,
        state: Float[Tensor, "1 B Z"],
        action: Float[Tensor, "1 B A"],
        *,
        noise: Float[Tensor, "1 B 0"] | None,
    ) -> Step:
        """The predicted step; it has no noise."""
        nets = self.nets
        if state.stride(1) == 0 and not torch.is_grad_enabled():  # one state, as where plans begin
            after, logits = nets.from_one(state[0, 0], action[0])
        else:
            after, logits = nets(nets.joined(state, action))
        reward = TwoHot(logits, nets.bins, symlog=True).mean
        if nets.termination is None:
            return Step(after, reward, torch.zeros_like(reward, dtype=torch.bool))
        return Step(after, reward, nets.termination(after).squeeze(-1) > 0)
