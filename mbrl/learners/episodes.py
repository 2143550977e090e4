"""Rollouts cut into episodes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.types import Transition


def one_column(batch: Transition) -> Transition:
    """Columns (T, N) one after another (N · T,); the last row of each ends an episode."""
    truncated = batch.truncated.clone()
    truncated[-1] |= ~batch.terminated[-1]
    batch = batch._replace(truncated=truncated)
    if batch.reward.ndim == 1:
        return batch
    return Transition._make(column.transpose(0, 1).flatten(0, 1) for column in batch)


def episodes(ends: Bool[Tensor, " T"]) -> Int[Tensor, " T"]:
    """The number of the episode of each row, from 0."""
    return ends.long().cumsum(0) - ends.long()


def step_of(episode: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
    """The number of each row within its episode, from 0."""
    rows = torch.arange(len(episode), device=episode.device)
    first = torch.full((int(episode[-1]) + 1,), len(episode), device=episode.device)
    first = first.scatter_reduce(0, episode, rows, "amin")
    return rows - first[episode]


def in_columns(
    batch: Transition, behaviour: Float[Tensor, " T *N"]
) -> tuple[Transition, Float[Tensor, "L K"], Bool[Tensor, "L K"]]:
    """Each of K episodes in a column, filled up with zeros, and where there are steps."""
    if batch.reward.ndim > 1:
        behaviour = behaviour.transpose(0, 1).flatten()
    batch = one_column(batch)
    episode = episodes(batch.terminated | batch.truncated)
    step = step_of(episode)
    size = int(step.max()) + 1, int(episode[-1]) + 1

    def column(value: Tensor) -> Tensor:
        filled = value.new_zeros((*size, *value.shape[1:]))
        filled[step, episode] = value
        return filled

    there = torch.ones_like(batch.terminated)
    return Transition._make(map(column, batch)), column(behaviour), column(there)
