"""The walk through the trees of a search on the CPU: compiled, the model asked in between.

What a model says reaches the compiled code as arrays that share its memory, and what it is asked
lies in memory that the compiled code writes: on small nets such words are most of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from planners.mcts import kernel as tree

if TYPE_CHECKING:
    from planners.mcts.search import Evaluation

Like = tuple[Tensor, Tensor | None]
"""States and, where they are a sample, actions, in the form that all must have."""


class CompiledWalk:
    """Trees in numpy and one simulation after another in them; see `planners.mcts.search`.

    Args:
        root: of B trees.
        actions: K.
        settings: of the search.
        discount: γ, where the model says nothing else.
        simulations: of each root.
        start: trees to go on with.

    Attributes:
        grown: the trees.
        states, actions: (B, N, S) and, where they are a sample, (B, N, K, A): the forest's memory.
    """

    def __init__(
        self,
        root: Evaluation,
        actions: int,
        settings: tree.Settings,
        *,
        discount: float,
        simulations: int,
        start: tree.Forest | None,
    ) -> None:
        self._device, self._exact = root.state.device, settings.exact
        self._settings, self._last = tuple(settings), simulations
        self._born = max(settings.exact, 1)
        self._base = 1 if start is None else start.nodes.shape[1]
        count = self._base + simulations * self._born
        like: Like = root.state, root.actions
        said = _heard(root, _granted(like, actions, discount), like, "the root's")
        self.grown, self.states, self.actions = blank(
            *like, count, actions, 2 * count if settings.merge else 0
        )
        if start is not None:
            for known, room in zip(start, self.grown, strict=True):
                room[:, : known.shape[1]] = known
        wrong, b = tree.plant(*self.grown, *said)
        tree.complain(wrong, f"root, tree {b}")
        if self._exact:
            state, samples = like
            samples = None if samples is None else _each(samples, self._exact)
            like = _each(state, self._exact), samples
        self._like, self._blank = like, _granted(like, actions, discount)

        roots = len(root.state)
        ends, moves = np.zeros((4, roots), np.int64), np.empty((roots, 0), np.uint8)
        here, chosen = _alike(root.state), torch.from_numpy(ends[1])
        if root.actions is not None:
            chosen = _alike(root.actions[:, 0])
            moves = _bytes(chosen)
        self._front, self._asked = (ends, _bytes(here), moves), (here, chosen)
        deepest = min(simulations + self._base, settings.max_depth)
        self._path = np.empty((roots, deepest + 1), np.int32)

    @property
    def priors(self) -> np.ndarray:
        """Of the roots (B, K), -1 for what cannot be done: a copy."""
        return self.grown.edges["prior"][:, 0].copy()

    def begin(self, priors: np.ndarray, scores: np.ndarray, considered: np.ndarray) -> None:
        """Set the roots' priors (B, K) with noise in them, and for Gumbel their scores (B, K) and
        how often an action must have been visited to be looked into (simulations + 1, B)."""
        self.grown.edges["prior"][:, 0] = priors
        self._scores, self._considered = scores, considered

    def advance(self, found: Evaluation | None, turn: int) -> tuple[Tensor, Tensor]:
        """Take in what the model said, None at turn 0, and walk to what to ask it next: a state
        and an action of each tree. Raises ValueError for an answer that makes no sense."""
        reply = self._blank
        if found is not None:
            reply = _heard(found, reply, self._like, "a step's")
        if self._exact:
            reply = _flat(reply)
        wrong, b = tree.advance(
            *self.grown,
            *reply,
            self._settings,
            *self._front,
            self._path,
            self._scores,
            self._considered,
            self._base + (turn - 1) * self._born,
            turn,
            self._last,
        )
        if wrong:
            tree.complain(wrong, f"simulation {turn}, tree {b}")
        if turn == self._last and self.grown.table.size:
            nodes = self.grown.nodes
            nodes["value"] = np.take_along_axis(nodes["value"], nodes["twin"], 1)
        here, chosen = self._asked
        if self._device.type == "cpu":
            return here, chosen
        return here.to(self._device), chosen.to(self._device)

    def counts(self) -> np.ndarray:
        """Visits (B, K) of the roots' actions."""
        return self.grown.edges["visits"][:, 0]

    def completed(self) -> np.ndarray:
        """Completed and scaled values (B, K) of the roots, for Gumbel."""
        return tree.completed(*self.grown, self._settings)


def blank(
    state: Tensor, samples: Tensor | None, count: int, actions: int, table: int = 0
) -> tuple[tree.Forest, Tensor, Tensor | None]:
    """Trees without a node, with room for `count`, from roots (B, S) and (B, K, A).

    With the states (B, N, S) and the actions (B, N, K, A), if they are a sample, in it.
    """
    roots = len(state)
    nodes = np.zeros((roots, count), tree.NODE)
    nodes["parent"] = nodes["sibling"] = -1
    edges = np.zeros((roots, count, actions), tree.EDGE)
    edges["child"] = -1
    bounds = np.tile((np.inf, -np.inf), (roots, 1))
    states = torch.zeros(roots, count, *state.shape[1:], dtype=state.dtype)
    kept, moves = None, np.empty((roots, count, actions, 0), np.uint8)
    if samples is not None:
        kept = torch.zeros(roots, count, *samples.shape[1:], dtype=samples.dtype)
        moves = _bytes(kept)
    places = np.full((roots, table), -1, np.int32)
    return tree.Forest(nodes, edges, bounds, _bytes(states), moves, places), states, kept


def _bytes(x: Tensor) -> np.ndarray:
    """The memory of a tensor (..., S) on the CPU."""
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy().view(np.uint8)


def _each(x: Tensor, outcomes: int) -> Tensor:
    """(B, ...) as (B, C, ...)."""
    return x[:, None].expand(-1, outcomes, *x.shape[1:])


def _alike(x: Tensor) -> Tensor:
    """Room for as much, on the CPU."""
    return torch.zeros(x.shape, dtype=x.dtype)


def _granted(like: Like, actions: int, discount: float) -> tree.Reply:
    """What is taken for granted where a model says nothing, for states (B, S) or (B, C, S)."""
    state, samples = like
    each = state.shape[:-1]
    zero, moves = np.zeros(each, np.float32), np.empty((*each, actions, 0), np.uint8)
    if samples is not None:
        moves = _bytes(_alike(samples))
    return tree.Reply(
        state=_bytes(_alike(state)),
        actions=moves,
        reward=zero,
        discount=np.full(each, discount, np.float32),
        value=zero,
        variance=zero,
        chance=zero,
        logits=np.zeros((*each, actions), np.float32),
        terminated=np.zeros(each, np.bool_),
        invalid=np.zeros((*each, actions), np.bool_),
    )


def _flat(reply: tree.Reply) -> tree.Reply:
    """(B, C, ...) as (B C, ...)."""
    return tree.Reply(*(x.reshape(len(x) * x.shape[1], *x.shape[2:]) for x in reply))


def _heard(found: Evaluation, blank: tree.Reply, like: Like, whose: str) -> tree.Reply:
    """A model's answer as the compiled walk takes it."""
    state, samples = like
    moves = blank.actions
    if samples is not None:
        if found.actions is None:
            raise ValueError("the root's actions are a sample, so a step must give actions too")
        moves = _rows(found.actions, samples, whose, "actions")
    return tree.Reply(
        _rows(found.state, state, whose, "state"),
        moves,
        _array(found.reward, blank.reward, whose, "reward"),
        _array(found.discount, blank.discount, whose, "discount"),
        _array(found.value, blank.value, whose, "value"),
        _array(found.variance, blank.variance, whose, "variance"),
        _array(found.chance, blank.chance, whose, "chance"),
        _array(found.logits, blank.logits, whose, "logits"),
        _array(found.terminated, blank.terminated, whose, "terminated"),
        _array(found.invalid, blank.invalid, whose, "invalid"),
    )


def _rows(given: Tensor, like: Tensor, whose: str, name: str) -> np.ndarray:
    """Bytes of what must look like another."""
    if given.shape != like.shape:
        raise ValueError(f"{whose} {name} must be {tuple(like.shape)}, got {tuple(given.shape)}")
    if not (given.is_cpu and given.dtype == like.dtype and given.is_contiguous()):
        given = given.to("cpu", like.dtype).contiguous()
    return _bytes(given)


def _array(given: Tensor | None, blank: np.ndarray, whose: str, name: str) -> np.ndarray:
    if given is None:
        return blank
    array = given.numpy(force=not given.is_cpu or given.requires_grad)  # force costs time
    if array.shape != blank.shape:
        raise ValueError(f"{whose} {name} must be {blank.shape}, got {array.shape}")
    return np.ascontiguousarray(array, blank.dtype)
