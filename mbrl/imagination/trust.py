"""Rules that cut imagined trajectories off where a model is not to be trusted.

`Macura` ends a trajectory where the members' Gaussians differ too much (Frauenknecht et al. 2024,
"Trust the model where it trusts itself", arXiv 2405.19014). `Infoprop` ends it where too much
information on the state is lost, and steps to a fusion of the members' predictions (Frauenknecht et
al. 2025, "On rollouts in model-based reinforcement learning", arXiv 2501.16918).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.imagination.rollout import Halt, HaltStep
from mbrl.types import Gaussian, GaussianDynamics, Step
from mbrl.uncertainty import fused, geometric_jensen_shannon, information_lost

CHUNK = 4096
"""Rows that are measured at a time, when limits are set."""


class Macura:
    """Ends a trajectory before a step on which the members' Gaussians differ by κ or more.

    u is the mean `geometric_jensen_shannon` over pairs of members. Each burst of rollouts gives a
    limit, `factor` times a quantile of u at its first steps; κ is the mean of the limits so far.

    Args:
        factor: ξ; more lets rollouts go further.
        quantile: ζ, in [0, 1].
        reward: whether the model predicts rewards, which then count too.

    Attributes:
        kappa: κ; 0 before the first burst.
        bursts: how many there were.
    """

    def __init__(self, *, factor: float, quantile: float, reward: bool = False) -> None:
        self.factor, self.quantile, self.reward = factor, quantile, reward
        self.kappa, self.bursts = 0.0, 0

    def begin(
        self, model: GaussianDynamics, state: Float[Tensor, "N S"], action: Float[Tensor, "N A"]
    ) -> None:
        """Move κ by the first steps of a burst.

        Raises:
            ValueError: a model without spread, or numbers that are not finite.
        """
        parts = zip(state.split(CHUNK), action.split(CHUNK), strict=True)
        found = torch.cat([self.divergence(model, *part) for part in parts])
        limit = self.factor * float(_quantile(found, self.quantile))
        if not limit < float("inf"):
            raise ValueError("macura: needs a model whose predictions have a positive spread")
        self.bursts += 1
        self.kappa += (limit - self.kappa) / self.bursts

    def halt(self, model: GaussianDynamics) -> Halt:
        """The rule, as `rollout` takes it."""
        kappa = self.kappa

        def begin() -> HaltStep:
            return lambda _, state, action, rows: ~(self.divergence(model, state, action) < kappa)

        return begin

    def divergence(
        self,
        model: GaussianDynamics,
        state: Float[Tensor, "*lead S"],
        action: Float[Tensor, "*lead A"],
    ) -> Float[Tensor, "*lead"]:
        """u: how far the members' Gaussians of a step differ."""
        mean, std = predicted(model, state, action, reward=self.reward)
        return geometric_jensen_shannon(mean, std)

    def state_dict(self) -> dict[str, Any]:
        """κ and the number of bursts."""
        return {"kappa": self.kappa, "bursts": self.bursts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is not of this class.
        """
        if not (state["kappa"] >= 0 and state["bursts"] >= 0):
            raise ValueError("kappa and bursts must be >= 0")
        self.kappa, self.bursts = float(state["kappa"]), int(state["bursts"])


def predicted(
    model: GaussianDynamics,
    state: Float[Tensor, "*lead S"],
    action: Float[Tensor, "*lead A"],
    *,
    reward: bool,
) -> Gaussian:
    """Each member's prediction for each row, (E, *lead, D): of the next state, and of the reward.

    The reward is left out unless `reward`.
    """
    lead, size = state.shape[:-1], state.shape[-1]
    rows = state.reshape(-1, size).expand(model.members, -1, -1)
    moves = action.reshape(-1, action.shape[-1]).expand(*rows.shape[:2], -1)
    parts = (part[..., : size + reward] for part in model.predict(rows, moves))
    return Gaussian(*(part.reshape(model.members, *lead, -1) for part in parts))


class Infoprop:
    """A `Dynamics` whose step is the fusion of all members' predictions, given one's sample.

    Member e draws a sample, and the next state is drawn from its conditional Gaussian; see
    `mbrl.uncertainty.fused`. A learned reward is the mean of its conditional Gaussian, given the
    member's mean. A learned termination is decided by a majority of the members.

    Args:
        model: E members that predict Gaussians with a positive spread.
        reward: whether the model predicts rewards.
        termination: whether the model predicts terminations.
        unit: size of the cells that information is measured in.
        size: S; if None, the model takes one random number for each dimension of a state.
    """

    def __init__(
        self,
        model: GaussianDynamics,
        *,
        reward: bool = False,
        termination: bool = False,
        unit: float = 1e-6,
        size: int | None = None,
    ) -> None:
        self.model, self.reward, self.termination = model, reward, termination
        self.unit = unit
        self.size = model.noise_shape[0] if size is None else size

    @property
    def members(self) -> int:
        """E."""
        return self.model.members

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(2 S,): of the member's sample, and of the state given the sample."""
        return (2 * self.size,)

    def encode(self, obs: Tensor, **memory: Any) -> Tensor:
        """That of the model."""
        return self.model.encode(obs, **memory)

    def decode(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead O"]:
        """That of the model."""
        return self.model.decode(state)

    def step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        *,
        noise: Float[Tensor, "E B 2*S"] | None,
    ) -> Step:
        """One step of each member's rows; without noise, to the mean given the member's mean."""
        size = state.shape[-1]
        mean, std = self._predicted(state, action)  # (E, E, B, D): by each member, of each row
        world = fused(mean, std)
        drawn, spread = (part.diagonal(dim1=0, dim2=1).movedim(-1, 0) for part in (mean, std))
        if noise is not None:
            sampled = drawn[..., :size] + spread[..., :size] * noise[..., :size]
            drawn = torch.cat((sampled, drawn[..., size:]), -1)
        after = world.mean + world.gain * (drawn - world.mean)
        reward = after[..., size] if self.reward else after.new_zeros(after.shape[:-1])
        next_state = after[..., :size]
        if noise is not None:
            next_state = next_state + world.left[..., :size].sqrt() * noise[..., size:]
        return Step(next_state, reward, self._ended(state, action))

    def _ended(self, state: Tensor, action: Tensor) -> Tensor:
        lead = state.shape[:-1]
        if not self.termination:
            return torch.zeros(lead, dtype=torch.bool, device=state.device)
        rows = state.reshape(-1, state.shape[-1]).expand(self.members, -1, -1)
        moves = action.reshape(-1, action.shape[-1]).expand(*rows.shape[:2], -1)
        votes = self.model.step(rows, moves, noise=None).terminated
        return (votes.float().mean(0) > 0.5).view(lead)

    def lost(
        self, state: Float[Tensor, "*lead S"], action: Float[Tensor, "*lead A"]
    ) -> Float[Tensor, "*lead D"]:
        """Bits that a step loses on each dimension of the next state and of a learned reward."""
        return information_lost(fused(*self._predicted(state, action)).left, unit=self.unit)

    def _predicted(self, state: Tensor, action: Tensor) -> Gaussian:
        return predicted(self.model, state, action, reward=self.reward)


class InformationLimits:
    """Ends a trajectory before a step that loses too much information, or makes the sum too much.

    Limits hold for each dimension; the first that is exceeded ends the trajectory.

    Args:
        model: steps the trajectories, and says what a step loses.
        step: (D,) the most bits that one step may lose.
        total: (D,) the most bits that all steps so far may lose.
    """

    def __init__(
        self, model: Infoprop, step: Float[Tensor, " D"], total: Float[Tensor, " D"]
    ) -> None:
        self.model, self.step, self.total = model, step, total

    @classmethod
    def of(
        cls,
        model: Infoprop,
        state: Float[Tensor, "N S"],
        action: Float[Tensor, "N A"],
        *,
        step: float,
        total: float,
        steps: int,
    ) -> InformationLimits:
        """Limits from what the model loses on N real steps.

        Args:
            model: as above.
            state: real states.
            action: the actions that were taken.
            step: quantile of the losses that is the limit for a step, in [0, 1].
            total: quantile of the losses that `steps` steps may have each.
            steps: length of a trajectory whose steps all lose that much.

        Raises:
            ValueError: a model without spread, or numbers that are not finite.
        """
        parts = zip(state.split(CHUNK), action.split(CHUNK), strict=True)
        found = torch.cat([model.lost(*part) for part in parts])
        if not bool(found.isfinite().all()):
            raise ValueError("infoprop: needs a model whose predictions have a positive spread")
        return cls(model, _quantile(found, step), steps * _quantile(found, total))

    def halt(self) -> HaltStep:
        """The rule, a `Halt`."""
        sums: list[Tensor] = []

        def ends(_: int, state: Tensor, action: Tensor, rows: Int[Tensor, " n"] | None) -> Tensor:
            lost = self.model.lost(state, action)  # (P, n, D)
            if not sums:
                sums.append(torch.zeros_like(lost))
            so_far = sums[0]
            if rows is None:
                so_far += lost
            else:
                so_far[:, rows] += lost
                so_far = so_far[:, rows]
            return ~((lost <= self.step) & (so_far <= self.total)).all(-1)

        return ends


def _quantile(values: Float[Tensor, " N *D"], share: float) -> Float[Tensor, "*D"]:
    """Linear interpolation of the order statistics, as `numpy.quantile`, for any N."""
    ordered = values.sort(0).values
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return torch.lerp(ordered[low], ordered[high], at - low)
