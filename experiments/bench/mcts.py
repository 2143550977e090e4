"""Simulations per second of tree search."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from experiments.bench.measure import Bench, Result, median_rate, seeded
from experiments.peers import Mctx, available

if TYPE_CHECKING:
    from planners.mcts import Evaluation, Tree

MCTS_SIZES = {(1, 4): 25e3, (32, 4): 150e3, (256, 4): 250e3, (1024, 4): 250e3, (64, 18): 60e3}
"""Roots and actions -> simulations/s to reach."""


def mcts(
    bench: Bench,
    *,
    sizes: Mapping[tuple[int, int], float] = MCTS_SIZES,
    simulations: int = 50,
    width: int = 64,
    calls: int = 5,
) -> list[Result]:
    """Simulations/s of tree search by PUCT, summed over roots, against the goal and against mctx.

    Both search a net of the same form: state' = relu(state W + U[action]), heads state' V. A
    sample is the median of `calls` searches; mctx is compiled beforehand and chooses its own number
    of threads. A further row has the bytes of a node without its state, against mctx's arrays.
    """
    from planners.mcts import search  # imports numba, which nothing else here needs

    results = []
    with ExitStack() as stack:
        peer = stack.enter_context(Mctx()) if available(Mctx) else None
        for (roots, actions), wanted in sizes.items():
            root, step = _random_net(roots, actions, width)
            settings: dict[str, Any] = {"simulations": simulations, "discount": 0.99}
            look = partial(search, root, step, **settings, generator=seeded())
            request = {"roots": roots, "actions": actions, "width": width, "repeats": calls}
            count, work = roots * simulations, f"search, {roots} roots x {actions} actions"

            def ours(look: Callable[[], Any] = look, count: int = count) -> float:
                return count * median_rate(look, calls)()

            def theirs(request: dict[str, int] = request, count: int = count) -> float:
                assert peer
                asked = peer.ask(work="time", rule="puct", simulations=simulations, **request)
                return count / statistics.median(asked["seconds"])

            results += bench.compare(
                work,
                "simulations/s",
                ours,
                {"wanted": lambda wanted=wanted: wanted, "mctx": theirs if peer else None},
                wanted="≥ 1",
            )
            arrays = 4 * (5 + 6 * actions)  # of its Tree: five (B, N) and six (B, N, A)
            size = _node_bytes(look())
            results.append(Result(work, "bytes a node", [size], "mctx", [arrays], "", True))
    return results


def _random_net(
    roots: int, actions: int, width: int
) -> tuple[Evaluation, Callable[[Tensor, Tensor], Evaluation]]:
    """A root and a step of the net that the work `time` of peers/mctx.py searches."""
    from planners.mcts import Evaluation

    draw = seeded()
    own = torch.randn(width, width, generator=draw) / width**0.5
    moved = torch.randn(actions, width, generator=draw)
    heads = torch.randn(width, actions + 2, generator=draw) / width**0.5

    def step(state: Tensor, action: Tensor) -> Evaluation:
        after = torch.addmm(moved.index_select(0, action), state, own).relu_()
        out = after @ heads
        return Evaluation(after, out[:, 0], out[:, 1], out[:, 2:])

    zeros = torch.zeros(roots)
    state = torch.randn(roots, width, generator=draw)
    return Evaluation(state, zeros, zeros, torch.zeros(roots, actions)), step


def _node_bytes(tree: Tree) -> float:
    """Bytes of a node in all arrays of a tree, without its state."""
    kept = (tree.forest.nodes, tree.forest.edges)
    return sum(x.nbytes for x in kept) / tree.forest.nodes.size
