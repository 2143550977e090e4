"""The fit of an ensemble: passes of Adam over bootstrapped data, with early stopping per member."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from mbrl.nn import stacked_mlp
from mbrl.parallel import parallel_map

if TYPE_CHECKING:
    from mbrl.dynamics.ensemble import Ensemble


class Fit:
    """The fit of some members, a pass over the data at a time, writing into the ensemble.

    Large nets on the CPU train two by two, side by side on single-threaded workers, so that few
    dispatches keep two cores busy; small ones and those on an accelerator train as one stack.

    Args:
        model: the ensemble, read at the start and written by `finish`.
        members: which of its members, e of them.
        rows: normalised inputs (T, I) and targets (T, D), and ends (T,), to train on.
        held: the same to score on; with none of them the training loss is the score.
        generator: draws resamples and order.

    Attributes:
        best: (e,) each member's best score so far.
        loss: (e,) its training loss in the pass of that score.
        best_epoch: (e,) that pass.
        updates: steps of Adam so far.
    """

    def __init__(
        self,
        model: Ensemble,
        members: slice,
        rows: tuple[Tensor, ...],
        held: tuple[Tensor, ...],
        generator: Generator,
    ) -> None:
        self.model, self.members, self.generator = model, members, generator
        self.rows, self.held = rows, held
        config, stacked = model.config, model.stacked()
        self.shapes = [p[members].shape for p in stacked]
        self.flat = torch.cat([p.detach()[members].flatten() for p in stacked])
        self.grad = torch.zeros_like(self.flat)
        self.leaves = [part.requires_grad_() for part in self._parts(self.flat)]
        for leaf, grad in zip(self.leaves, self._parts(self.grad), strict=True):
            leaf.grad = grad
        layers = len(model.net.weights)
        decay = config.weight_decay
        decays = [*decay] if isinstance(decay, tuple) else [decay] * layers
        self.decay = torch.zeros_like(self.flat)
        for part, wd in zip(self._parts(self.decay), decays, strict=False):
            part.fill_(wd)
        self.weights, self.biases = self.leaves[:layers], self.leaves[layers : 2 * layers]
        self.high, self.low = self.leaves[2 * layers :]
        flat = nn.Parameter(self.flat)
        flat.grad = self.grad
        self.optimiser = torch.optim.Adam([flat], lr=config.learning_rate, fused=True)
        count, size = len(rows[0]), len(self.high)
        if config.bootstrap:
            self.index = torch.randint(count, (size, count), generator=generator)
        else:
            self.index = torch.arange(count).expand(size, count)
        self.index = self.index.to(self.flat.device)
        self.best = self.flat.new_full((size,), torch.inf)
        self.loss = self.flat.new_zeros(size)
        self.since = torch.zeros_like(self.loss)
        self.kept = self.flat.clone()
        self.best_epoch = torch.zeros_like(self.loss)
        self.epoch = self.updates = 0

    def _parts(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat tensor in the shapes of the ensemble's parameters."""
        parts = flat.split([shape.numel() for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def run_epoch(self) -> bool:
        """One pass over the data; False when no member is left to improve."""
        config = self.model.config
        size, count = self.index.shape
        total = torch.zeros_like(self.loss)
        order = torch.rand(size, count, generator=self.generator).argsort(-1)
        index = self.index.gather(1, order.to(self.index.device))
        for batch in index.split(config.batch, 1):
            total += self._update(*(rows[batch] for rows in self.rows)) * batch.shape[1]
        self.epoch += 1
        with torch.no_grad():
            score = self._held_out() if len(self.held[0]) else total / count
            needed = self.best - config.improvement * self.best.abs().nan_to_num(posinf=0)
            better = (score < needed) if len(self.held[0]) else torch.ones_like(needed) > 0
            better &= self.since < config.patience  # who has stopped stays stopped
            self.since = torch.where(better, 0, self.since + 1)
            self.best = torch.where(better, score, self.best)
            self.loss = torch.where(better, total / count, self.loss)
            for leaf, kept in zip(self.leaves, self._parts(self.kept), strict=True):
                torch.where(better.view(-1, 1, 1), leaf, kept, out=kept)
            self.best_epoch = torch.where(better, self.epoch, self.best_epoch)
        return self.epoch < config.epochs and bool((self.since < config.patience).any())

    @torch.no_grad()
    def finish(self) -> None:
        """Write each member's best weights into the ensemble."""
        for parameter, part in zip(self.model.stacked(), self._parts(self.kept), strict=True):
            parameter[self.members] = part

    def _update(self, inputs: Tensor, targets: Tensor, ends: Tensor) -> Tensor:
        config = self.model.config
        out = stacked_mlp(inputs, self.weights, self.biases, config.activation)
        loss = self.model.loss(out, targets, ends, self.high, self.low)
        bounds = config.bound_weight * (self.high.sum() - self.low.sum())
        torch.mul(self.flat.detach(), self.decay, out=self.grad)
        (loss.sum() + bounds).backward()
        self.optimiser.step()
        self.updates += 1
        return loss.detach()

    def _held_out(self) -> Tensor:
        size = self.index.shape[0]
        inputs, targets, ends = (rows.expand(size, *rows.shape) for rows in self.held)
        out = stacked_mlp(inputs, self.weights, self.biases, self.model.config.activation)
        return self.model.loss(out, targets, ends, self.high, self.low)


def run(fits: Sequence[Fit]) -> None:
    """Run all fits to their end; a free worker takes the one that is furthest behind."""
    waiting = [(0, place) for place in range(len(fits))]
    lock = threading.Lock()

    def work(_: int) -> None:
        while True:
            with lock:
                if not waiting:
                    return
                epoch, place = heapq.heappop(waiting)
            if fits[place].run_epoch():
                with lock:
                    heapq.heappush(waiting, (epoch + 1, place))

    with torch.enable_grad():
        parallel_map(work, range(min(len(fits), torch.get_num_threads())))
