"""Gradient ascent on a score that can be differentiated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from planners.base import Plan, ScoreFn
from planners.checks import PositiveFloat, PositiveInt, Rounds
from planners.noise import coloured_noise
from planners.search import Search, checked


@dataclass(frozen=True, eq=False, kw_only=True)
class GradientAscent(Search):
    """Adam (Kingma and Ba 2015) on the knots of several plans in parallel, projected onto the box.

    The first plan starts from the start's mean, the others from normal draws around it;
    `score` is called with gradients enabled. The step size decreases linearly to zero over the
    iterations, so choose few enough to finish before a deadline. The mean is the best plan found.
    A rejected plan has no gradient: it is moved half-way to the best plan. Raises ValueError,
    in `plan`, for a score that gives no gradient.
    """

    population: PositiveInt = 4
    """N, the number of plans improved in parallel."""
    iterations: Rounds = 50
    """Number of gradient steps."""
    sigma: PositiveFloat = 0.25
    """Standard deviation of the first draws as a fraction of the box's width."""
    rate: PositiveFloat = 0.05
    """First step as a fraction of the box's width."""

    def algorithm(self, start: Plan | None) -> _Ascent:
        """A new ascent for one search."""
        return _Ascent(self)


class _Ascent:
    def __init__(self, planner: GradientAscent) -> None:
        self.planner = planner
        self.points: Tensor | None = None
        self.best_score: Tensor | None = None
        self.steps = 0
        self.all_rejected = False

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        if self.points is None:
            noise = coloured_noise(mean, count, 0.0, generator=generator)
            noise[0] = 0.0
            self.points = noise.mul_(std).add_(mean)
            self.first = torch.zeros_like(self.points)
            self.second = torch.zeros_like(self.points)
        elif self.all_rejected and self.best_score is not None:
            self.points = (self.points + mean) / 2
        self.all_rejected = True  # unless `refit` is called, which sets this to False
        return self.points

    def evaluate(self, score: ScoreFn, knots: Tensor) -> Tensor:
        with torch.enable_grad():
            knots = knots.detach().requires_grad_()
            scores = checked(score, self.planner.actions(knots))
            if not scores.requires_grad:
                raise ValueError(
                    "score gives no gradient; make it differentiable (no torch.no_grad, no "
                    "numpy inside), or take a planner that samples"
                )
            total = scores.where(scores > -math.inf, 0.0).sum()
            (gradient,) = torch.autograd.grad(total, knots, materialize_grads=True)
        # In units of the box, so that steps are fractions of its width.
        width = self.planner.high - self.planner.low
        self.gradient = gradient.mul_(width).nan_to_num_(0.0, 0.0, 0.0)
        return scores.detach()

    def refit(
        self, mean: Tensor, std: Tensor, knots: Tensor, scores: Tensor, elites: Tensor
    ) -> tuple[Tensor, Tensor]:
        planner, decay, decay_second = self.planner, 0.9, 0.999
        self.all_rejected = False
        left = 1 - self.steps / planner.iterations
        self.steps += 1
        self.first.lerp_(self.gradient, 1 - decay)
        self.second.lerp_(self.gradient.square(), 1 - decay_second)
        slope = self.first / (1 - decay**self.steps)
        scale = (self.second / (1 - decay_second**self.steps)).sqrt_()
        step = slope / scale.clamp_min_(torch.finfo(scale.dtype).tiny)
        moved = knots + planner.rate * left * (planner.high - planner.low) * step
        accepted = (scores > -math.inf)[:, None, None]
        best, top = elites[0], scores.max()
        if self.best_score is not None:
            best = torch.where(top > self.best_score, best, mean)
            top = torch.maximum(top, self.best_score)
        self.best_score = top
        self.points = torch.where(accepted, moved, (knots + best) / 2)
        return best, std
