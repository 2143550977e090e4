"""Running moments of a stream of rows, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor


class RunningMoments:
    """Mean and std of all rows so far (Chan, Golub and LeVeque 1983, for blocks of rows).

    Args:
        shape: that of a row.
        device: where the moments are.

    Attributes:
        count: number of rows.
        mean: their mean, in float64.
    """

    def __init__(self, shape: Sequence[int] = (), *, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.mean: Float64[Tensor, ...] = torch.zeros(
            tuple(shape), dtype=torch.float64, device=device
        )
        self._squares = torch.zeros_like(self.mean)

    @property
    def std(self) -> Float64[Tensor, ...]:
        """The standard deviation; 0 for values that never changed, and before the first row."""
        return (self._squares / max(self.count, 1)).sqrt()

    def update(self, rows: Float[Tensor, "N ..."]) -> None:
        """Add rows."""
        rows = rows.to(self.mean)
        count, mean = len(rows), rows.mean(0)
        if not count:
            return
        difference, total = mean - self.mean, self.count + count
        self._squares += (rows - mean).square().sum(0)
        self._squares += difference.square() * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    def scale(self, x: Float[Tensor, "*lead ..."]) -> Float[Tensor, "*lead ..."]:
        """(x - mean) / std, within ±10; values that never changed are only shifted.

        Computed in float64 where it matters: the mean of a large observation with a small spread.
        """
        std = self.std
        unit = torch.where(std > 1e-8 * self.mean.abs().clamp_min(1e-8), std, 1.0)
        return ((x.to(self.mean) - self.mean) / unit).clamp(-10.0, 10.0).to(x.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Count and moments."""
        return {"count": self.count, "mean": self.mean.clone(), "squares": self._squares.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; ValueError for rows of another shape."""
        for name, own in (("mean", self.mean), ("squares", self._squares)):
            if state[name].shape != own.shape:
                raise ValueError(f"{name}: want the shape {tuple(own.shape)}")
        self.count = state["count"]
        self.mean, self._squares = (state[name].to(self.mean) for name in ("mean", "squares"))


class ReturnScale:
    """A positive number to divide rewards by, from the discounted returns of N environments.

    The std of the running discounted sum of rewards, as in OpenAI Baselines' `VecNormalize`; with
    `greatest`, at least a fifth of the greatest sum (SimbaV2, Lee et al. 2025, section 4.3), so
    that scaled returns stay within a critic's range of ±5.

    Args:
        discount: γ.
        greatest: whether the greatest sum counts.
    """

    def __init__(self, discount: float, *, greatest: bool = False) -> None:
        self.discount, self._greatest = discount, greatest
        self.moments, self.most = RunningMoments(), 0.0
        self._sums = torch.zeros(0, dtype=torch.float64)

    @property
    def value(self) -> float:
        """The number; 1 before rewards differ."""
        scale = float(self.moments.std)
        if self._greatest:
            scale = max(scale, self.most / 5)
        return scale if scale > 1e-8 else 1.0

    def update(self, reward: Float[Tensor, " N"], ends: Tensor) -> None:
        """Add one step of N environments; `ends` (N,) bool is where an episode ended."""
        if len(self._sums) != len(reward):
            self._sums = torch.zeros(len(reward), dtype=torch.float64)
        self._sums = self._sums * self.discount + reward.double().cpu()
        self.moments.update(self._sums)
        self.most = max(self.most, float(self._sums.abs().max()))
        self._sums = self._sums.masked_fill(ends.cpu(), 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Moments and current sums."""
        return {"moments": self.moments.state_dict(), "most": self.most, "sums": self._sums.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.moments.load_state_dict(state["moments"])
        self.most, self._sums = state["most"], state["sums"]
