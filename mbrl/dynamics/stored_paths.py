"""A latent model in which closeness to a goal is the number of steps of a path of stored ones.

The distance between codes is a poor measure of what a goal is away: the nearest codes may lie
behind a wall. Paths of stored transitions go around it, as in "search on the replay buffer"
(Eysenbach et al. 2019, arXiv 1906.05253); that a path may go on from any stored transition near the
end of the last is kernel-based reinforcement learning (Ormoneit and Sen 2002) with k neighbours.
"""

from __future__ import annotations

import math
from typing import NoReturn

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from mbrl.dynamics.wrapped import Wrapped
from mbrl.types import Dynamics, Step

NEAR = 2.0
"""Lengths of a step within which the distance of codes counts."""


class StoredPaths(Wrapped):
    """A `Dynamics` of codes that are stored, with the fewest steps to a goal as cost.

    A step is that of the model, moved to the nearest stored code, so that no plan leads where
    nothing is known, such as into a wall. Its reward is minus the number of steps from there to the
    goal by stored transitions: each begins at one of the k stored codes nearest to the end of the
    one before. Nothing terminates.

    Args:
        model: of one member, such as a `LocallyLinear`. Its rewards are not used.
        codes: z of T transitions.
        after: z' of the same.
        neighbours: k. More join more transitions, and make paths seem shorter than they are.
        around: number of stored codes over which steps are averaged. One alone may begin a
            transition that leads away from the goal.

    Attributes:
        unit: length of a step, the median of |z' - z| over transitions that move.
        goal: (Z,); NaN before `set_goal`.

    Raises:
        ValueError: wrong shapes, numbers that are not finite, a model of several members, fewer
            transitions than neighbours, or transitions of which none moves.
    """

    def __init__(
        self,
        model: Dynamics,
        codes: Float[Tensor, "T Z"],
        after: Float[Tensor, "T Z"],
        *,
        neighbours: int = 4,
        around: int = 8,
    ) -> None:
        super().__init__(model)
        if model.members != 1:
            raise ValueError(f"model: want one member, got {model.members}")
        if codes.ndim != 2 or codes.shape != after.shape:
            raise ValueError(
                f"codes, after: want the same shape (T, Z), got {tuple(codes.shape)} and "
                f"{tuple(after.shape)}"
            )
        for name, number in (("neighbours", neighbours), ("around", around)):
            if not 1 <= number <= len(codes):
                raise ValueError(f"{name}: want 1 to T = {len(codes)}, got {number}")
        if not bool(codes.isfinite().all() and after.isfinite().all()):
            raise ValueError("codes, after: hold a number that is not finite")
        moved = (after - codes).norm(dim=-1)
        if not bool((moved > 0).any()):
            raise ValueError("codes, after: no transition moves")
        self.unit = float(moved[moved > 0].median())
        self.codes, self.after, self.neighbours = codes, after, neighbours
        self._next = _nearest(after, codes, neighbours).cpu().numpy()
        self._around = _nearest(codes, codes, around)
        self.goal = torch.full_like(codes[0], math.nan)
        self._aimed = False  # whether there is a goal, without asking the device
        self._places, self._steps = codes, codes.new_zeros(len(codes))

    def decode(self, state: Tensor) -> NoReturn:
        """Raises NotImplementedError: rewards are of codes, so nothing is decoded."""
        raise NotImplementedError("decode: paths of stored codes have rewards of their own")

    def set_goal(self, code: Float[Tensor, " Z"]) -> None:
        """Count the steps to a code from all stored ones.

        Paths end with a stored transition that ends within the length of a step of the code or, if
        there is none, with the one that comes nearest.

        Raises:
            ValueError: a code of another shape, or not finite.
        """
        if code.shape != self.goal.shape or not bool(code.isfinite().all()):
            raise ValueError(
                f"goal: want a finite code of shape {tuple(self.goal.shape)}, got "
                f"{tuple(code.shape)}"
            )
        count = len(self.codes)
        rest = ((self.after - code).norm(dim=-1) / self.unit).cpu().numpy()
        ends = np.flatnonzero(rest <= max(1.0, rest.min()))
        # Nodes are the transitions and the goal, to which the rest of the way counts in part.
        sources = np.repeat(np.arange(count), self.neighbours)
        weights = np.concatenate((np.ones(len(sources)), 1 + rest[ends]))
        begins = np.concatenate((sources, ends))
        into = np.concatenate((self._next.ravel(), np.full(len(ends), count)))
        graph = coo_array((weights, (into, begins)), shape=(count + 1, count + 1))
        steps = dijkstra(graph.tocsr(), indices=count)[:count]
        steps[np.isinf(steps)] = steps[np.isfinite(steps)].max() + 1
        values = torch.as_tensor(steps).to(self.codes)
        self.goal, self._aimed = code.detach().clone(), True
        self._places = torch.cat((self.codes, code[None]))
        self._steps = torch.cat((values[self._around].mean(-1), values.new_zeros(1)))

    def steps(self, code: Float[Tensor, "*lead Z"]) -> Float[Tensor, "*lead"]:
        """Steps to the goal from the stored codes nearest to these; near it, the distance in steps.

        Codes from which no path is known count one step more than the farthest.

        Raises:
            ValueError: no goal is set.
        """
        return self._valued(code.reshape(-1, code.shape[-1]))[0].view(code.shape[:-1])

    def step(
        self,
        state: Float[Tensor, "1 B Z"],
        action: Float[Tensor, "1 B A"],
        *,
        noise: Float[Tensor, "1 B *noise_shape"] | None,
    ) -> Step:
        """A step to a stored code; the reward is minus its steps to the goal.

        Raises:
            ValueError: as the model's; no goal is set.
        """
        after = self.model.step(state, action, noise=noise).state
        steps, nearest = self._valued(after[0])
        return Step(nearest[None], -steps[None], torch.zeros_like(steps[None], dtype=torch.bool))

    def _valued(self, rows: Float[Tensor, "B Z"]) -> tuple[Tensor, Tensor]:
        """Steps to the goal, and the nearest places; NaN for rows with a number not finite."""
        if not self._aimed:
            raise ValueError("goal: none is set, so there is no reward; call set_goal first")
        away = torch.cdist(rows, self._places)
        nearest = away.argmin(-1)
        direct = away[:, -1] / self.unit
        steps = torch.where(direct < NEAR, direct, self._steps[nearest])
        known = rows.isfinite().all(-1)
        places = self._places[nearest].where(known[:, None], math.nan)
        return steps.where(known, math.nan), places


def _nearest(rows: Float[Tensor, "B Z"], places: Float[Tensor, "T Z"], count: int) -> Tensor:
    """Indices (B, count) of the nearest places."""
    return torch.cat(
        [torch.cdist(some, places).topk(count, largest=False).indices for some in rows.split(1000)]
    )
