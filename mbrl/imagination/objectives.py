"""Risk: what a candidate is worth from its particles' returns, and how far members disagree."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.particles import parse_objective
from mbrl.types import GaussianDynamics, Scaled

Objective = Callable[[Float[Tensor, "P N"]], Float[Tensor, " N"]]
"""What a candidate is worth, from its particles' returns."""


def objective(name: str) -> Objective:
    """An objective by name.

    `mean`; `worst`, the least return; `cvar:α`, the mean of the worst share α of the returns
    (Rockafellar & Uryasev 2000; the particle on the edge counts in part); `mean+std:λ` and
    `mean-std:λ`, optimism and caution (population std).

    Raises:
        ValueError: another name, or a parameter out of range.
    """
    kind, value = parse_objective(name)
    if kind == "mean":
        return lambda returns: returns.mean(0)
    if kind == "worst":
        return lambda returns: returns.amin(0)
    if kind == "cvar":
        return lambda returns: _cvar(returns, value)
    weight = value if kind == "mean+std" else -value
    return lambda returns: returns.mean(0) + weight * returns.std(0, correction=0)


def _cvar(returns: Float[Tensor, "P N"], share: float) -> Float[Tensor, " N"]:
    count = share * len(returns)
    order = torch.arange(len(returns), dtype=returns.dtype, device=returns.device)
    weight = (count - order).clamp(0, 1)
    return (returns.sort(0).values * weight.unsqueeze(-1)).sum(0) / count


def disagreement(
    model: GaussianDynamics, state: Float[Tensor, "*lead S"], action: Float[Tensor, "*lead A"]
) -> Float[Tensor, "*lead"]:
    """How far the members' means of the next state lie apart, the epistemic part alone.

    The root mean square over state dimensions of the population std across members, each
    dimension in units of `model.scale` (S,) where the model has one.
    """
    lead = state.shape[:-1]
    rows = state.reshape(-1, state.shape[-1]).expand(model.members, -1, -1)
    mean = model.predict(rows, action.reshape(-1, action.shape[-1]).expand(*rows.shape[:2], -1))
    std = mean.mean[..., : state.shape[-1]].std(0, correction=0)
    scale = model.scale if isinstance(model, Scaled) else 1.0
    return (std / scale).square().mean(-1).sqrt().view(lead)
