"""The one search loop: draw candidates, score them, refit, and remember the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from planners.base import Plan, ScoreFn
from planners.interpolation import interpolation_matrix, shift_matrix

ANSWERS = ("best", "mean")


def require(holds: bool, message: str) -> None:
    """Raise ValueError with `message` unless `holds`; NaN in a comparison does not hold."""
    if not holds:
        raise ValueError(message)


@dataclass(frozen=True, eq=False)
class Search:
    """A sampling planner over a box; an algorithm is `sample` and `refit`.

    The search runs over K knots (every step where `knots` is None), and
    `actions = clip(W @ knots)` is what gets scored. Device and dtype are those of the
    bounds, and the generator must be on the same device. Raises ValueError, on building,
    for bounds that are no box and for sizes out of range; and in `plan` for a start of other
    shapes, a generator elsewhere, or a score that does not return (N,).
    """

    low: Tensor
    """Lower bounds (A,), finite."""
    high: Tensor
    """Upper bounds (A,), finite, above `low`."""
    horizon: int
    """Planned actions H."""
    _: KW_ONLY
    population: int = 500
    """Candidates N drawn in the first iteration."""
    knots: int | None = None
    """Control knots K, at most H; None plans every step."""
    interpolation: str = "zero"
    """How knots become actions: zero, linear or cubic."""

    # What an algorithm does not offer as a field stays as it is here.
    iterations = 1
    elites = 1
    sigma = 1 / math.sqrt(12)
    answer = "best"

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bound = getattr(self, name)
            require(
                isinstance(bound, Tensor) and bound.is_floating_point() and bound.ndim == 1,
                f"{name} must be a floating-point tensor of shape (A,), got {_describe(bound)}",
            )
            require(len(bound) > 0, f"{name} must have at least one entry, got shape (0,)")
            require(bool(bound.isfinite().all()), f"{name} must be finite, got {bound.tolist()}")
        low, high = self.low, self.high
        require(
            (low.shape, low.dtype, low.device) == (high.shape, high.dtype, high.device),
            f"low and high must agree in shape, dtype and device, "
            f"got {_describe(low)} and {_describe(high)}",
        )
        require(
            bool((low < high).all()),
            f"low must be below high everywhere, got {low.tolist()} and {high.tolist()}",
        )
        for name in ("horizon", "population", "iterations"):
            value = getattr(self, name)
            require(
                isinstance(value, int) and value >= 1,
                f"{name} must be an integer of at least 1, got {value!r}",
            )
        require(
            self.knots is None or isinstance(self.knots, int),
            f"knots must be an integer in 1..horizon, or None, got {self.knots!r}",
        )
        require(
            isinstance(self.elites, int) and self.elites <= self.population,
            f"elites must be an integer of at most population = {self.population}, "
            f"got {self.elites!r}",
        )
        require(
            0 < self.sigma < math.inf,
            f"sigma must be a positive fraction of the box, got {self.sigma!r}",
        )
        require(
            self.answer in ANSWERS,
            f"answer must be one of {', '.join(ANSWERS)}, got {self.answer!r}",
        )
        _ = self.matrix

    # What an algorithm is made of.

    def sizes(self) -> Sequence[int]:
        """Fresh candidates in each iteration."""
        return [self.population] * self.iterations

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        """Draw `count` fresh knots (N, K, A) around mean and std (K, A); clipped afterwards."""
        raise NotImplementedError

    def again(self, iteration: int, mean: Tensor, elites: Tensor) -> Sequence[Tensor]:
        """Knots, each (·, K, A), to score besides the fresh ones.

        `elites` (M, K, A) are the start's in iteration 0, after that those of the iteration
        before. None by default.
        """
        return ()

    def refit(
        self, mean: Tensor, std: Tensor, knots: Tensor, scores: Tensor, best: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The next mean and std (K, A) from knots (N, K, A) and scores (N,).

        Rejected candidates have score -inf. `best` (M,) indexes the M = `elites` highest,
        best first.
        """
        raise NotImplementedError

    # The loop and what it stands on.

    @cached_property
    def matrix(self) -> Tensor:
        """The interpolation matrix W (H, K)."""
        knots = self.horizon if self.knots is None else self.knots
        return torch.as_tensor(
            interpolation_matrix(self.horizon, knots, self.interpolation),
            dtype=self.low.dtype,
            device=self.low.device,
        )

    def actions(self, knots: Tensor) -> Tensor:
        """Actions (..., H, A) of knots (..., K, A), inside the bounds."""
        # Splines overshoot, hence the clip; without interpolation there is nothing to do.
        if self.matrix.shape[0] != self.matrix.shape[1]:
            knots = self.matrix @ knots
        return knots.clamp(self.low, self.high)

    def begin(self, start: Plan | None) -> tuple[Tensor, Tensor, Tensor]:
        """The first mean, std (K, A) and elites (M, K, A): a start gives all but the std.

        Without a start the mean is the middle of the box. The std is always `sigma` times
        the width of the box, as PETS and iCEM reset it before each search.
        """
        shape = (self.matrix.shape[1], len(self.low))
        std = (self.sigma * (self.high - self.low)).expand(shape)
        if start is None:
            return ((self.low + self.high) / 2).expand(shape), std, self.low.new_empty(0, *shape)
        require(
            start.mean.shape == shape and start.elites.shape[1:] == shape,
            f"start must have mean {shape} and elites (M, {shape[0]}, {shape[1]}), "
            f"got {tuple(start.mean.shape)} and {tuple(start.elites.shape)}",
        )
        return start.mean.clamp(self.low, self.high), std, start.elites

    @torch.no_grad()
    def plan(self, score: ScoreFn, start: Plan | None, *, generator: Generator) -> Plan:
        """Search from `start`, or from the middle of the box where it is None.

        `score` is called once an iteration, and once more with N = 1 where the answer is
        the mean. Scores that are not finite lose, are counted, and never shape the search;
        if every candidate is rejected the answer is the first mean with score -inf. With
        `answer` "mean" the final mean is returned unless it is itself rejected, then the
        best candidate seen is. `elites` are the last iteration's, without rejected ones.
        Memory does not depend on the number of iterations.
        """
        if generator.device.type != self.low.device.type:
            raise ValueError(f"generator must be on {self.low.device}, got {generator.device}")
        mean, std, elites = self.begin(start)
        answer, answer_score = mean, self.low.new_tensor(-math.inf)
        elite_scores = self.low.new_empty(0)
        rejected = torch.zeros((), dtype=torch.long, device=self.low.device)
        evaluated = 0
        for iteration, count in enumerate(self.sizes()):
            knots = self.sample(mean, std, count, generator=generator)
            again = self.again(iteration, mean, elites)
            knots = torch.cat((knots, *again)) if again else knots
            knots = knots.clamp_(self.low, self.high)
            scores, bad = _checked(score, self.actions(knots))
            evaluated += len(scores)
            rejected += bad

            elite_scores, best = scores.topk(max(self.elites, 1))
            better = elite_scores[0] > answer_score
            answer = torch.where(better, knots[best[0]], answer)
            answer_score = torch.where(better, elite_scores[0], answer_score)
            best, elite_scores = best[: self.elites], elite_scores[: self.elites]
            # A rejected elite must not be tried again: the mean stands in for it.
            elites = torch.where((elite_scores > -math.inf)[:, None, None], knots[best], mean)
            mean, std = self.refit(mean, std, knots, scores, best)
            mean = mean.clamp(self.low, self.high)  # a weighted sum may round out of the box
        if self.answer == "mean":
            scores, bad = _checked(score, self.actions(mean[None]))
            evaluated += 1
            rejected += bad
            answer = torch.where(bad > 0, answer, mean)
            answer_score = torch.where(bad > 0, answer_score, scores[0])
        return Plan(
            actions=self.actions(answer),
            score=answer_score,
            mean=mean.contiguous(),
            std=std.contiguous(),
            elites=elites[: int((elite_scores > -math.inf).sum())],
            evaluated=evaluated,
            rejected=int(rejected),
        )

    def shift(self, plan: Plan, steps: int) -> Plan:
        """`plan` as seen `steps` actions later, to start the next search from.

        Actions roll and the last one is held at the tail. Knots (mean, std, elites) take
        the least-squares fit of their own rolled actions, clipped into the bounds: exact
        for K = H. The score is then unknown, NaN, and nothing counts as evaluated.
        Raises ValueError for negative `steps`.
        """
        require(
            isinstance(steps, int) and steps >= 0,
            f"steps must be a non-negative integer, got {steps!r}",
        )
        if steps == 0:
            return _unscored(plan)
        t = torch.arange(self.horizon, device=self.low.device) + steps
        rows = t.clamp_max(self.horizon - 1)
        if self.matrix.shape[0] == self.matrix.shape[1]:
            mean, std, elites = plan.mean[rows], plan.std[rows], plan.elites[:, rows]
        else:
            move = torch.as_tensor(
                shift_matrix(self.matrix.double().cpu().numpy(), steps),
                dtype=self.low.dtype,
                device=self.low.device,
            )
            mean, elites = (
                (move @ knots).clamp(self.low, self.high) for knots in (plan.mean, plan.elites)
            )
            std = (move @ plan.std).clamp_min(0)
        return _unscored(
            plan._replace(actions=plan.actions[rows], mean=mean, std=std, elites=elites)
        )


def refit_to_elites(
    mean: Tensor, std: Tensor, knots: Tensor, scores: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Gaussian of the accepted elites, (M, K, A) with scores (M,), smoothed into the old one.

    New mean = momentum · old + (1 - momentum) · elite mean, and likewise the variance (biased,
    as in PETS). Elites with score -inf are left out; with none left nothing changes.
    """
    accepted = (scores > -math.inf).to(knots.dtype)[:, None, None]
    count = accepted.sum()
    elite_mean = (accepted * knots).sum(0) / count.clamp_min(1)
    elite_var = (accepted * (knots - elite_mean) ** 2).sum(0) / count.clamp_min(1)
    keep = torch.where(count > 0, momentum, 1.0).to(mean.dtype)
    return (
        keep * mean + (1 - keep) * elite_mean,
        (keep * std**2 + (1 - keep) * elite_var).sqrt(),
    )


def require_refit(elites: int, momentum: float) -> None:
    """Raise ValueError unless `refit_to_elites` can run: elites >= 1, momentum in [0, 1)."""
    require(elites >= 1, f"elites must be at least 1, got {elites!r}")
    require(0 <= momentum < 1, f"momentum must lie in [0, 1), got {momentum!r}")


def _checked(score: ScoreFn, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (N,) with -inf for what is not finite, and how many that were, ()."""
    scores = score(actions)
    if not (
        isinstance(scores, Tensor)
        and scores.is_floating_point()
        and scores.shape == actions.shape[:1]
    ):
        raise ValueError(
            f"score must return a floating-point tensor of shape ({len(actions)},) for actions "
            f"{tuple(actions.shape)}, got {_describe(scores)}"
        )
    bad = ~scores.isfinite()
    return scores.masked_fill(bad, -math.inf), bad.sum()


def _unscored(plan: Plan) -> Plan:
    return plan._replace(score=torch.full_like(plan.score, math.nan), evaluated=0, rejected=0)


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype} on {value.device}"
    return type(value).__name__
