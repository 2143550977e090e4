"""The search loop of sampling planners: draw candidates, score them, refit, keep the best."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
from annotated_types import Interval
from torch import Generator, Tensor

from planners.base import Plan, ScoreFn
from planners.checks import PositiveFloat, PositiveInt, check_fields, check_memory, require
from planners.interpolation import interpolation_matrix, shift_matrix

Answer = Literal["best", "mean"]
"""What a search returns: the best candidate seen, or its final mean."""

DrawnAnswer = Literal["best", "mean", "draw"]
"""As `Answer`, or one of the last round's elites, drawn by `Search.draw`."""


@dataclass(frozen=True, eq=False)
class Search:
    """A sampling planner over a box; a subclass defines `sample` and `refit`.

    The search runs over K knots (every step where `knots` is None), and
    `actions = clip(W @ knots)` is scored. Device and dtype are those of the
    bounds, and the generator must be on the same device. Raises ValueError, on building,
    for bounds that are not finite with low < high and for sizes out of range; and in `plan` for a
    start of other shapes, a generator on another device, or a score that does not return (N,).
    """

    low: Tensor
    """Lower bounds (A,), finite."""
    high: Tensor
    """Upper bounds (A,), finite, above `low`."""
    horizon: PositiveInt
    """H, the number of actions in a plan."""
    _: KW_ONLY
    population: PositiveInt = 500
    """N, the number of candidates drawn in the first iteration."""
    knots: PositiveInt | None = None
    """K, the number of control knots, at most H; None plans every step."""
    interpolation: Literal["zero", "linear", "cubic"] = "zero"
    """How knots become actions: zero, linear or cubic."""

    # Defaults of settings that some subclasses offer as fields.
    maximises = "score"
    iterations = 1
    elites = 1
    sigma = 1 / math.sqrt(12)
    answer = "best"
    keeps_mean = False
    """Whether a search that is given plans to begin from, such as a policy's, keeps the mean of its
    start instead of beginning from the best of all. They are the elites of its start either way."""
    carries_best = False
    """Whether a plan's `elites` are the best candidate of all rounds instead of the elites of the
    last round. If the next search scores it again, it cannot return a lower score."""

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
        require(
            bool((high - low).isfinite().all()),
            f"low and high must be less than {torch.finfo(low.dtype).max:.3g} apart, "
            f"got {low.tolist()} and {high.tolist()}",
        )
        check_fields(self)
        require(
            self.elites <= self.population,
            f"elites must be an integer of at most population = {self.population}, "
            f"got {self.elites}",
        )
        knots = self.horizon if self.knots is None else self.knots
        number, actions = self.low.element_size(), len(low)
        # at least the matrix, in float64 and in the bounds' type; noise, knots and actions
        matrix, drawn = (8 + number) * self.horizon * knots, number * self.population * actions
        check_memory(
            f"population {self.population}, horizon {self.horizon}: the search",
            matrix + drawn * (2 * knots + self.horizon),
        )
        _ = self.matrix

    # The parts that a subclass defines.

    def algorithm(self, start: Plan | None) -> Algorithm:
        """The object that samples, evaluates and refits in one search, which begins from `start`.

        The planner itself, or a new object if a round depends on more data of earlier rounds than
        mean and std.
        """
        return self

    def sizes(self) -> Sequence[int]:
        """Number of candidates drawn in each iteration."""
        return [self.population] * self.iterations

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        """Draw N = `count` knots (N, K, A) by mean and std (K, A); they are clipped afterwards."""
        raise NotImplementedError

    def evaluate(self, score: ScoreFn, knots: Tensor) -> Tensor:
        """Scores (N,) of knots (N, K, A); -inf replaces scores that are not finite."""
        return checked(score, self.actions(knots))

    def again(self, iteration: int, mean: Tensor, elites: Tensor) -> Sequence[Tensor]:
        """Knots, each (·, K, A), to score in addition to the drawn ones; by default there are none.

        `elites` (M, K, A) are those of the start in iteration 0, then those of the previous
        iteration.
        """
        return ()

    def refit(
        self, mean: Tensor, std: Tensor, knots: Tensor, scores: Tensor, elites: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The next mean and std (K, A) from knots (N, K, A) and scores (N,).

        Rejected candidates have score -inf. `elites` (M, K, A) are the highest, best first,
        without rejected ones. Not called if every candidate is rejected. By default the mean
        becomes the best candidate and the std stays.
        """
        return elites[0], std

    def draw(
        self, elites: Tensor, scores: Tensor, *, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """The answer "draw": knots (K, A) and score, of the last elites (M, K, A) and scores (M,).

        By default the best.
        """
        return elites[0], scores[0]

    # The search loop and its parts.

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
        if self.matrix.shape[0] == self.matrix.shape[1]:
            return knots.clamp(self.low, self.high)
        spread, low, high = self._spread
        # Clipped, because splines overshoot their knots.
        flat = torch.mm(knots.reshape(-1, spread.shape[0]), spread).clamp_(low, high)
        return flat.view(*knots.shape[:-2], self.horizon, self.low.shape[0])

    def begin(self, start: Plan | None) -> tuple[Tensor, Tensor, Tensor]:
        """The first mean, std (K, A) and elites (M, K, A); mean and elites are those of the start.

        Without a start the mean is the middle of the box. The std is always `sigma` times
        the width of the box, as PETS and iCEM reset it before each search.
        """
        middle, std = self._prior
        shape = middle.shape
        if start is None:
            return middle, std, middle.new_empty(0, *shape)
        if start.mean.shape != shape or start.elites.shape[1:] != shape:
            raise ValueError(
                f"start must have mean {tuple(shape)} and elites (M, {shape[0]}, {shape[1]}), "
                f"got {tuple(start.mean.shape)} and {tuple(start.elites.shape)}"
            )
        return start.mean.clamp(self.low, self.high), std, start.elites

    @torch.no_grad()
    def plan(
        self,
        score: ScoreFn,
        start: Plan | None,
        *,
        generator: Generator,
        deadline: float | None = None,
    ) -> Plan:
        """Search from `start`, or from the middle of the box where it is None.

        `score` is called once per iteration, and once more with N = 1 if the answer is the mean.
        Candidates whose score is not finite are rejected: they are counted and do not enter the
        refit; if every candidate is rejected the answer is the first mean with score -inf. With
        `answer` "mean" the final mean is returned, or if it is itself rejected the best candidate
        seen. `elites` are the last iteration's, without rejected ones, or the best candidate alone
        (`carries_best`). With "draw" the answer is one of the last iteration's elites, or the best
        candidate seen if it has none. Memory does not depend on the number of iterations.

        With a `deadline`, a time of `time.perf_counter`, the search stops before an iteration that
        would end too late if it took as long as the slowest one of this call. If the final mean is
        still to be scored, that counts as one more iteration; if there is no time for it, the best
        candidate is returned. The first iteration always runs.
        """
        if generator.device.type != self.low.device.type:
            raise ValueError(f"generator must be on {self.low.device}, got {generator.device}")
        clock = None if deadline is None else Clock(deadline)
        last = 1 if self.answer == "mean" else 0
        mean, std, elites = self.begin(start)
        algorithm = self.algorithm(start)
        answer, answer_score, highest = mean, None, -math.inf
        elite_scores = mean.new_empty(0)
        evaluated = rejected = rounds = 0
        for iteration, count in enumerate(self.sizes()):
            knots = algorithm.sample(mean, std, count, generator=generator)
            again = self.again(iteration, mean, elites)
            knots = torch.cat((knots, *again)) if again else knots
            knots = knots.clamp_(self.low, self.high)
            scores = algorithm.evaluate(score, knots)
            scored = scores.shape[0]  # `len` of a tensor is slow
            evaluated += scored
            rounds += 1

            elite_scores, best = scores.topk(max(self.elites, 1))
            # Reading these numbers waits for the device once per round, but makes masks
            # unnecessary below.
            top, lowest = float(elite_scores[0]), float(scores.min())
            bad = int(scores.isneginf().sum()) if lowest == -math.inf else 0
            rejected += bad
            if bad < scored:
                found = knots.index_select(0, best[: scored - bad] if bad else best)
                if top > highest or answer_score is None:
                    answer, answer_score, highest = found[0], elite_scores[0], top
                elites = found if self.elites else found[:0]
                mean, std = algorithm.refit(mean, std, knots, scores, elites)
                mean = mean.clamp(self.low, self.high)  # a weighted sum may round out of the box
            else:
                elites = elites[:0]
            if clock is not None and not clock.tick(1 + last):
                break
        if self.carries_best and answer_score is not None:
            elites = answer[None]
        if self.answer == "draw" and len(elites):
            answer, answer_score = self.draw(
                elites, elite_scores[: len(elites)], generator=generator
            )
        if last and (clock is None or clock.fits(1)):
            scores = checked(score, self.actions(mean[None]))
            evaluated += 1
            if scores[0] > -math.inf:
                answer, answer_score = mean, scores[0]
            else:
                rejected += 1
        if answer_score is None:
            answer_score = self.low.new_tensor(-math.inf)
        return Plan(
            actions=self.actions(answer),
            score=answer_score,
            mean=mean,
            std=std.clone(),
            elites=elites,
            evaluated=evaluated,
            rejected=rejected,
            rounds=rounds,
        )

    def shift(self, plan: Plan, steps: int) -> Plan:
        """`plan` without its first `steps` actions, as the start of the next search.

        The last action is repeated at the end. Knots (mean, std,
        elites) take the least-squares fit of their own rolled actions, clipped into the bounds:
        exact for K = H. The score is then unknown, NaN, and nothing counts as evaluated. Raises
        ValueError for negative `steps`.
        """
        require(
            isinstance(steps, int) and steps >= 0,
            f"steps must be a non-negative integer, got {steps!r}",
        )
        actions, _, mean, std, elites = plan[:5]
        if steps > 0:
            rows, move = self._move(min(steps, self.horizon))
            actions = actions.index_select(0, rows)
            if move is None:
                mean, std = mean.index_select(0, rows), std.index_select(0, rows)
                elites = elites.index_select(1, rows)
            else:
                knots = torch.cat((mean[None], std[None], elites))
                knots = torch.mm(knots.view(knots.shape[0], -1), move).view_as(knots)
                mean, std, elites = knots[0], knots[1].clamp_min_(0), knots[2:]
                mean, elites = (x.clamp_(self.low, self.high) for x in (mean, elites))
        return Plan(actions, self._unknown, mean, std, elites, evaluated=0, rejected=0)

    # Computed once and cached for later searches.

    @cached_property
    def _prior(self) -> tuple[Tensor, Tensor]:
        """The middle of the box and the first std, (K, A)."""
        shape = (self.matrix.shape[1], len(self.low))
        middle, std = (self.low + self.high) / 2, self.sigma * (self.high - self.low)
        return middle.expand(shape).contiguous(), std.expand(shape).contiguous()

    @cached_property
    def _spread(self) -> tuple[Tensor, Tensor, Tensor]:
        """W on flat knots, (K · A, H · A), and the bounds of flat actions, (H · A,)."""
        matrix = _on_flat_knots(self.matrix.double().cpu().numpy(), self.low)
        return matrix, self.low.repeat(self.horizon), self.high.repeat(self.horizon)

    @cached_property
    def _unknown(self) -> Tensor:
        return self.low.new_full((), math.nan)

    @cached_property
    def _moves(self) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {}

    def _move(self, steps: int) -> tuple[Tensor, Tensor | None]:
        """The rows of actions that roll `steps` on, and the shift of flat knots if K < H."""
        if steps not in self._moves:
            rows = torch.arange(self.horizon, device=self.low.device) + steps
            matrix = self.matrix.double().cpu().numpy()
            plain = matrix.shape[0] == matrix.shape[1]
            move = None if plain else _on_flat_knots(shift_matrix(matrix, steps), self.low)
            self._moves[steps] = rows.clamp_max(self.horizon - 1), move
        return self._moves[steps]


class Algorithm(Protocol):
    """The part of a search that differs between planners; see `Search`."""

    def sample(self, mean: Tensor, std: Tensor, count: int, *, generator: Generator) -> Tensor:
        """Draw knots."""
        ...

    def evaluate(self, score: ScoreFn, knots: Tensor) -> Tensor:
        """Scores of the drawn knots and of those scored again."""
        ...

    def refit(
        self, mean: Tensor, std: Tensor, knots: Tensor, scores: Tensor, elites: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The next mean and std."""
        ...


class Clock:
    """Estimates whether further rounds of a search fit before its deadline."""

    def __init__(self, deadline: float) -> None:
        self.deadline, self.slowest, self.now = deadline, 0.0, time.perf_counter()

    def tick(self, rounds: int) -> bool:
        """Record the end of a round; return whether `rounds` more fit before the deadline."""
        now = time.perf_counter()
        self.slowest, self.now = max(self.slowest, now - self.now), now
        return self.fits(rounds)

    def fits(self, rounds: int) -> bool:
        """Whether `rounds` more fit before the deadline, each as slow as the slowest so far."""
        return self.now + rounds * self.slowest <= self.deadline


@dataclass(frozen=True, eq=False, kw_only=True)
class EliteSearch(Search):
    """A search that refits a Gaussian to the best candidates of each iteration, the elites."""

    elites: PositiveInt = 10
    """M, the number of candidates that the Gaussian is refitted to."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Weight of the old mean and variance in the new ones, in [0, 1)."""
    sigma: PositiveFloat = 0.25
    """First standard deviation as a fraction of the box's width."""

    def refit(
        self, mean: Tensor, std: Tensor, knots: Tensor, scores: Tensor, elites: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The Gaussian of the elites, smoothed."""
        return refit_to_elites(mean, std, elites, self.momentum)


def refit_to_elites(
    mean: Tensor, std: Tensor, elites: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Gaussian of the elites (M, K, A), M >= 1, smoothed into the old one.

    New mean = momentum · old + (1 - momentum) · elite mean, and likewise the variance (biased,
    as in PETS).
    """
    elite_var, elite_mean = torch.var_mean(elites, 0, correction=0)
    variance = std.square().lerp_(elite_var, 1 - momentum)
    return mean.lerp(elite_mean, 1 - momentum), variance.sqrt_()


def checked(score: ScoreFn, actions: Tensor) -> Tensor:
    """Scores (N,) of actions (N, H, A); -inf replaces scores that are not finite.

    Raises ValueError for scores of another shape or type.
    """
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
    return scores.nan_to_num(-math.inf, -math.inf, -math.inf)


def _on_flat_knots(matrix: np.ndarray, like: Tensor) -> Tensor:
    """`matrix` (R, K) as (K · A, R · A), so that flat knots (N, K · A) take one plain product.

    A batched product of small matrices takes far longer, although it does A times less work.
    """
    whole = np.kron(matrix, np.eye(len(like))).T
    return torch.as_tensor(whole, dtype=like.dtype, device=like.device).contiguous()


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype} on {value.device}"
    return type(value).__name__
