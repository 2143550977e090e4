"""The fit of E networks by Adam, with a bootstrap of the data and early stopping for each member.

It is independent of the model: it takes a `Net`, a loss, and tensors of T rows.
"""

from __future__ import annotations

import copy
import heapq
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from scipy.special import stdtr
from torch import Generator, Tensor
from torch.optim.adam import adam

from mbrl.dynamics.configs import FitConfig
from mbrl.nn import Diverged, Net
from mbrl.parallel import parallel_map

STACKED_WORK = 8e6
"""Below this product of batch size and parameters per member, calls of torch cost more than their
arithmetic on the CPU, and it is faster to train all members as one stack on one core."""


class Loss(Protocol):
    """`loss(net, *rows, weights=...)`: each member's mean loss over rows (E, B, ...), shape (E,).

    `weights` (E, B) multiply the losses of rows; None is 1. With `per_row` the result is the loss
    of each row, (E, B).
    """

    def __call__(
        self, net: Net, /, *rows: Tensor, weights: Tensor | None = None, per_row: bool = False
    ) -> Tensor:
        """The losses."""
        ...


class Stop(Protocol):
    """A stopping rule: which members have a lower held-out loss than in their best pass so far.

    Attributes:
        per_row: whether the rule compares losses of held-out rows (E, H) instead of means (E,).
    """

    per_row: bool

    def __call__(self, loss: Tensor, best: Tensor) -> tuple[Bool[Tensor, " E"], Bool[Tensor, " E"]]:
        """Members whose weights to keep, and members whose patience to reset.

        `best` is the loss in each member's best pass, infinite at first.
        """
        ...


@dataclass(frozen=True)
class Improvement:
    """A loss lower by more than this fraction of the best so far (MBPO, Janner et al. 2019)."""

    share: float
    per_row = False

    def __call__(self, loss: Tensor, best: Tensor) -> tuple[Bool[Tensor, " E"], Bool[Tensor, " E"]]:
        """The same members for both."""
        better = loss < best - self.share * best.abs().nan_to_num(posinf=0)
        return better, better


@dataclass(frozen=True)
class Paired:
    """A loss that a paired t-test over held-out rows finds lower (DHMBPO, Kubo et al. 2025).

    The test is one-sided: p is the probability of a mean difference that low if the losses were
    alike. Weights are kept at p < `keep`, and patience is reset at p < `go_on`.
    """

    keep: float = 0.1
    go_on: float = 0.5
    per_row = True

    def __call__(self, loss: Tensor, best: Tensor) -> tuple[Bool[Tensor, " E"], Bool[Tensor, " E"]]:
        """Members whose loss is lower for certain, and members whose loss is lower at all."""
        first = best.isinf().any(-1)
        difference = (loss - torch.where(best.isinf(), loss, best)).double()
        rows = difference.shape[-1]
        error = difference.std(-1) / rows**0.5 if rows > 1 else difference.new_zeros(len(loss))
        # without spread the sign decides; 0 / 0 is no difference
        t = (difference.mean(-1) / error).nan_to_num(0.0).cpu()
        p = torch.as_tensor(stdtr(max(rows - 1, 1), t.numpy())).to(loss.device)
        return first | (p < self.keep), first | (p < self.go_on)


class FitDiverged(Diverged):
    """The loss or weights after a fit are not finite, or the loss is far above the initial one."""


DIVERGED = 10.0
"""A fit has diverged if its best loss exceeds the loss L of the initial weights by more than this
times max(|L|, 1)."""


class Rows(NamedTuple):
    """Data of a fit: tensors of T rows, the same tensors with H held-out rows, and factors."""

    train: Sequence[Tensor]
    held: Sequence[Tensor]
    weights: Float[Tensor, " T"] | Float[Tensor, "E T"] | None = None
    """Of the training rows' losses."""


class Fitted(NamedTuple):
    """Results of a fit; U is E for a separable net and 1 for any other."""

    score: Float[Tensor, " U"]  # best held-out loss; the last training loss if no row is held out
    loss: Float[Tensor, " U"]  # training loss in that pass
    epoch: Float[Tensor, " U"]  # number of that pass
    updates: float  # in all passes, mean over groups of members
    more: Mapping[str, float] = MappingProxyType({})  # what the net adds to a fit's metrics


def fit(
    net: Net,
    loss: Loss,
    rows: Sequence[Tensor],
    held: Sequence[Tensor],
    config: FitConfig,
    *,
    weights: Float[Tensor, " T"] | Float[Tensor, "E T"] | None = None,
    decay: Mapping[Tensor, float] | None = None,
    stop: Stop | None = None,
    generator: Generator,
) -> Fitted:
    """Fit the parameters of `net` that require a gradient; each member keeps its best weights.

    The objective is the mean loss over rows plus `net.penalty()`. Members of a separable net are
    independent: each has its own resample, order of rows, optimiser and stopping time. On the CPU
    large members train in pairs on single-threaded workers; small members, and those on an
    accelerator, train as one stack. A net that is not separable trains as a whole, with one
    stopping time for the mean over its E samples. The result does not depend on the number of
    threads.

    Args:
        net: read at the start; its parameters are written at the end.
        loss: see `Loss`.
        rows: tensors of T rows to train on.
        held: the same tensors with H held-out rows; if H is 0, all passes are run and the last
            weights are kept.
        config: see `FitConfig`.
        weights: factors of the rows' losses, for all members or for each. Their mean should be 1,
            because a common factor changes the learning rate.
        decay: weight decay of these parameters; 0 for others.
        stop: the stopping rule; that of `config.stop` if not given.
        generator: on the CPU; draws resamples, order and weight samples.

    Raises:
        FitDiverged: the loss or the weights of a member are not finite, or its best loss is far
            above that of its initial weights; `net` is left as it was.
    """
    members, parameters = net.members, list(net.parameters())
    size = members
    if net.separable:
        work = config.batch * sum(parameter[0].numel() for parameter in parameters)
        if parameters[0].device.type == "cpu" and work >= STACKED_WORK:
            size = 2
    groups = [slice(e, min(e + size, members)) for e in range(0, members, size)]
    seeds = torch.randint(2**62, (len(groups),), generator=generator).tolist()
    if stop is None:
        stop = Paired() if config.stop == "paired" else Improvement(config.improvement)
    if weights is None and config.row_weights == "exponential":
        draws = torch.empty(members, len(rows[0])).exponential_(generator=generator)
        weights = draws.to(rows[0])
    fits = [
        _Fit(net, group, loss, rows, held, config, weights, decay or {}, stop,
             torch.Generator().manual_seed(seed))
        for group, seed in zip(groups, seeds, strict=True)
    ]  # fmt: skip
    _run(fits)
    whole = "a loss or weights that are not finite", _Fit.not_finite
    worse = "a loss that is far above that of their initial weights", _Fit.diverged
    for what, test in (whole, worse):
        diverged = [e for fit in fits for e in fit.members_of(test(fit))]
        if diverged:
            who = f"members {diverged} of {members} have" if net.separable else "the net has"
            raise FitDiverged(f"{who} {what} (learning_rate {config.learning_rate:g})")
    for part in fits:
        part.finish()
    net.resample(generator=generator)
    return Fitted(
        torch.cat([part.best for part in fits]),
        torch.cat([part.loss for part in fits]),
        torch.cat([part.best_epoch for part in fits]),
        sum(part.updates for part in fits) / len(fits),
    )


class _Fit:
    """The fit of a group of members, or of the whole net if it is not separable."""

    def __init__(
        self,
        net: Net,
        members: slice,
        loss: Loss,
        rows: Sequence[Tensor],
        held: Sequence[Tensor],
        config: FitConfig,
        weights: Tensor | None,
        decay: Mapping[Tensor, float],
        stop: Stop,
        generator: Generator,
    ) -> None:
        self.members, self.separable, self.evaluate = members, net.separable, loss
        self.rows, self.held, self.config = rows, held, config
        self.stop, self.generator = stop, generator
        self.trained = [p for p in net.parameters() if p.requires_grad]
        parts = [self._of(p) for p in self.trained]
        self.shapes = [part.shape for part in parts]
        # one flat tensor, so that an update of Adam is one call over contiguous memory
        self.flat = torch.cat([part.flatten() for part in parts])
        self.grad, self.mean, self.square = (torch.zeros_like(self.flat) for _ in range(3))
        self.steps = torch.zeros((), device=self.flat.device)
        self.leaves = [leaf.requires_grad_() for leaf in self._split(self.flat)]
        for leaf, grad in zip(self.leaves, self._split(self.grad), strict=True):
            leaf.grad = grad
        self.decay = torch.zeros_like(self.flat)
        for parameter, part in zip(self.trained, self._split(self.decay), strict=True):
            part.fill_(decay.get(parameter, 0.0))
        self.net = self._copy(net)
        count, units = len(rows[0]), members.stop - members.start if net.separable else 1
        if config.bootstrap:
            self.index = torch.randint(count, (units, count), generator=generator)
        else:
            self.index = torch.arange(count).expand(units, count)
        self.index = self.index.to(self.flat.device)
        self.weights = weights
        if weights is not None:
            self.weights = weights.expand(net.members, -1)[self.members]
        self.best = self.flat.new_full((units,), torch.inf)
        self.best_rows = self.flat.new_full((units, len(held[0])), torch.inf)
        self.loss = self.flat.new_zeros(units)
        self.since = torch.zeros_like(self.loss)
        self.kept, self.first = self.flat.clone(), self.flat.clone()
        self.average = self.flat.clone() if config.average else None
        self.best_epoch = torch.zeros_like(self.loss)
        self.epoch = self.updates = 0

    def _of(self, value: Tensor) -> Tensor:
        return value.detach()[self.members] if self.separable else value.detach()

    def _split(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat tensor in the shapes of the parameters."""
        parts = flat.split([shape.numel() for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def _copy(self, net: Net) -> Net:
        """A copy of the net with these members only, whose trained parameters are `leaves`."""
        others = [*net.parameters(), *net.buffers()]
        memo = {id(value): self._of(value).clone() for value in others}
        memo |= {id(p): leaf for p, leaf in zip(self.trained, self.leaves, strict=True)}
        return copy.deepcopy(net, memo)

    def run_epoch(self) -> bool:
        """One pass over the data; False if it was the last, because every member has stopped."""
        config = self.config
        units, count = self.index.shape
        total = torch.zeros_like(self.loss)
        order = torch.rand(units, count, generator=self.generator).argsort(-1)
        index = self.index.gather(1, order.to(self.index.device))
        self.net.train()
        for batch in index.split(config.batch, 1)[: config.batches_per_epoch]:
            total += self._update(batch) * batch.shape[1]
        if config.batches_per_epoch is not None:
            count = min(count, config.batches_per_epoch * config.batch)
        self.epoch += 1
        self.net.eval()
        with torch.no_grad(), self._averaged():
            better = renewed = torch.ones_like(total) > 0
            score = total / count
            if len(self.held[0]):
                score, better, renewed = self._held_out()
            # a member that has stopped stays stopped
            better = better & (self.since < config.patience)
            renewed = renewed & (self.since < config.patience)
            self.since = torch.where(renewed, 0, self.since + 1)
            self.best = torch.where(better, score, self.best)
            self.loss = torch.where(better, total / count, self.loss)
            for leaf, kept in zip(self.leaves, self._split(self.kept), strict=True):
                torch.where(self._broadcast(better, leaf), leaf, kept, out=kept)
            self.best_epoch = torch.where(better, self.epoch, self.best_epoch)
        return self.epoch < config.epochs and bool((self.since < config.patience).any())

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within it the net has the averaged weights, if there is an average."""
        if self.average is None:
            yield
            return
        last = self.flat.clone()
        self.flat.copy_(self.average)
        yield
        self.flat.copy_(last)

    def _held_out(self) -> tuple[Tensor, Tensor, Tensor]:
        """Held-out losses, members that improved and members whose patience is reset, each (U,)."""
        held = [part.expand(self.net.members, *part.shape) for part in self.held]
        if not self.stop.per_row:
            score = self._units(self.evaluate(self.net, *held))
            return score, *self.stop(score, self.best)
        losses = self._units(self.evaluate(self.net, *held, per_row=True))
        better, renewed = self.stop(losses, self.best_rows)
        stopped = self.since >= self.config.patience
        keep = (better & ~stopped).unsqueeze(-1)
        self.best_rows = torch.where(keep, losses, self.best_rows)
        return losses.mean(-1), better, renewed

    def _units(self, losses: Tensor) -> Tensor:
        """Losses (U, ...) of the parts fitted separately, from those of members (E, ...)."""
        return losses if self.separable else losses.mean(0, keepdim=True)

    def _broadcast(self, mask: Tensor, leaf: Tensor) -> Tensor:
        """A mask of units (U,) that broadcasts over a parameter."""
        return mask.view(-1, *[1] * (leaf.ndim - 1)) if self.separable else mask.view(())

    def not_finite(self) -> Tensor:
        """(U,) bool: the best loss or weights are not finite."""
        whole = self.best.isfinite()
        for kept in self._split(self.kept):
            finite = kept.isfinite()
            whole = whole & (
                finite.view(len(finite), -1).all(1) if self.separable else finite.all()
            )
        return ~whole

    @torch.no_grad()
    def diverged(self) -> Tensor:
        """(U,) bool: the best loss is far above that of the initial weights."""
        if not (self.best >= DIVERGED - 1).any():  # a lower loss has not diverged
            return torch.zeros_like(self.best, dtype=torch.bool)
        parts = (
            self.held if len(self.held[0]) else [part[: self.config.batch] for part in self.rows]
        )
        rows = [part.expand(self.net.members, *part.shape) for part in parts]
        self.flat.copy_(self.first)
        first = self._units(self.evaluate(self.net, *rows))
        return self.best > first + DIVERGED * first.abs().clamp(min=1)

    def members_of(self, units: Tensor) -> list[int]:
        """Indices of the members that a mask (U,) selects."""
        return [self.members.start + e for e in units.nonzero().flatten().tolist()]

    def finish(self) -> None:
        """Write each member's best weights into the net."""
        for parameter, part in zip(self.trained, self._split(self.kept), strict=True):
            self._of(parameter).copy_(part)

    def _update(self, batch: Tensor) -> Tensor:
        net, config, weights = self.net, self.config, self.weights
        units, size = batch.shape
        index = batch.flatten()
        rows = [
            part.index_select(0, index).view(units, size, *part.shape[1:]) for part in self.rows
        ]
        if not self.separable:
            rows = [part.expand(net.members, *part.shape[1:]) for part in rows]
        if weights is not None:
            weights = weights.gather(1, batch.expand(net.members, -1))
        net.resample(generator=self.generator)
        losses = self._units(self.evaluate(net, *rows, weights=weights))
        total, penalty = losses.sum(), net.penalty()
        if penalty is not None:
            total = total + (penalty.sum() if penalty.ndim else penalty)
        if config.optimiser == "adamw":
            self.grad.zero_()
        else:
            torch.mul(self.flat, self.decay, out=self.grad)
        total.backward()
        if config.optimiser == "adamw":
            self.flat.sub_(self.flat * self.decay, alpha=config.learning_rate)
        self._adam()
        self.updates += 1
        if self.average is not None:
            # a lower decay at first, so that the initial weights are soon forgotten
            self.average.lerp_(
                self.flat, 1 - min(config.average, self.updates / (self.updates + 9))
            )
        return losses.detach()

    def _adam(self) -> None:
        """A step of Adam, by the function that `torch.optim.Adam` calls: its overhead is lower."""
        adam(
            [self.flat],
            [self.grad],
            [self.mean],
            [self.square],
            [],
            [self.steps],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.config.learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def _run(fits: Sequence[_Fit]) -> None:
    """Run all fits; a free worker takes the fit with the fewest passes so far."""
    waiting = [(0, index) for index in range(len(fits))]
    lock = threading.Lock()

    def work(_: int) -> None:
        while True:
            with lock:
                if not waiting:
                    return
                epoch, index = heapq.heappop(waiting)
            if fits[index].run_epoch():
                with lock:
                    heapq.heappush(waiting, (epoch + 1, index))

    with torch.enable_grad():
        parallel_map(work, range(min(len(fits), torch.get_num_threads())))
