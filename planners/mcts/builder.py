"""The trees of a search while it runs, between the model and the compiled code."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from planners.checks import check_memory
from planners.mcts.kernel import ACTION, ERRORS, Reply, make_simulate, set_roots
from planners.mcts.types import EDGE, NODE, Evaluation, Settings, Tree, as_bytes, empty_trees


class TreeBuilder:
    """The trees of one search, and the memory that the model and the compiled code share.

    The compiled code reads the model's results as arrays that share the tensors' memory, and writes
    its arguments into tensors: with a small network, conversions would take most of the time. On
    another device both are copied.

    Args:
        root: evaluation of the roots of B trees.
        actions: K.
        settings: settings of the search.
        discount: γ, if the model returns none.
        simulations: number of simulations of each root.
        start: trees to continue.

    Raises:
        ValueError: here or in `update`, an evaluation with wrong shapes or numbers.

    Attributes:
        trees: the trees built so far.
    """

    def __init__(
        self,
        root: Evaluation,
        actions: int,
        settings: Settings,
        *,
        discount: float,
        simulations: int,
        start: Tree | None,
    ) -> None:
        self._device, self._settings = root.state.device, settings
        self._last, self._done = simulations, 0
        self._added = max(settings.outcomes, 1)
        self._base = 1 if start is None else start.forest.nodes.shape[1]
        nodes = self._base + simulations * self._added
        state, samples = root.state, root.actions
        reply = _reply(
            root, _defaults(state, samples, actions, discount), state, samples, "the root's"
        )
        table = 2 * nodes if settings.merge else 0
        each = NODE.itemsize + EDGE.itemsize * actions + state[0].nbytes
        each += 0 if samples is None else samples[0].nbytes
        size = len(state) * (nodes * each + 4 * table)
        check_memory(f"simulations {simulations}: the tree", size)
        self.trees = empty_trees(state, samples, nodes=nodes, count=actions, table=table)
        forest = self.trees.forest
        if start is not None:
            for known, room in zip(start.forest, forest, strict=True):
                room[:, : known.shape[1]] = known
        wrong, b = set_roots(*forest, *reply)
        if wrong:
            raise ValueError(f"root, tree {b}: the model gave {ERRORS[wrong]}")

        leaf = np.zeros((4, len(state)), np.int64)
        here, chosen = _room_for(state), torch.from_numpy(leaf[ACTION])
        moves = np.empty((len(state), 0), np.uint8)
        if samples is not None:
            chosen = _room_for(samples[:, 0])
            moves = as_bytes(chosen)
        self._leaf, self._query = (leaf, as_bytes(here), moves), (here, chosen)
        deepest = min(simulations + self._base, settings.max_depth)
        self._path = np.empty((len(state), deepest + 1), np.int32)
        if settings.outcomes:
            state = _repeated(state, settings.outcomes)
            samples = None if samples is None else _repeated(samples, settings.outcomes)
        self._like = state, samples
        self._defaults = _defaults(state, samples, actions, discount)

    @property
    def root_priors(self) -> np.ndarray:
        """A copy of the roots' priors (B, K), -1 for invalid actions."""
        return self.trees.forest.edges["prior"][:, 0].copy()

    def select(self, rule: Any, priors: np.ndarray, parameters: tuple) -> tuple[Tensor, Tensor]:
        """Select the first leaves.

        Args:
            rule: its `select` chooses actions in all simulations.
            priors: priors of the roots (B, K), with the rule's noise.
            parameters: parameters of the rule.

        Returns:
            State (B, S) and action (B,) or (B, A) of a leaf of each tree, for the model.
        """
        self.trees.forest.edges["prior"][:, 0] = priors
        self._simulate = make_simulate(rule.select)
        self._options = tuple(self._settings), parameters
        return self._run(self._defaults)

    def update(self, found: Evaluation) -> tuple[Tensor, Tensor]:
        """Expand the leaves by the model's evaluation, back up, and select the next leaves."""
        self._done += 1
        return self._run(_reply(found, self._defaults, *self._like, "a step's"))

    def _run(self, reply: Reply) -> tuple[Tensor, Tensor]:
        forest = self.trees.forest
        if self._settings.outcomes:  # (B, C, ...) to (B C, ...)
            reply = Reply(*(x.reshape(len(x) * x.shape[1], *x.shape[2:]) for x in reply))
        wrong, b = self._simulate(
            *forest,
            *reply,
            self._options,
            *self._leaf,
            self._path,
            self._base + (self._done - 1) * self._added,
            self._done,
            self._last,
        )
        if wrong:
            raise ValueError(f"simulation {self._done}, tree {b}: the model gave {ERRORS[wrong]}")
        if self._done == self._last and self._settings.merge:
            nodes = forest.nodes
            for name in ("value", "variance"):
                nodes[name] = np.take_along_axis(nodes[name], nodes["transposition"], 1)
        here, chosen = self._query
        if self._device.type == "cpu":
            return here, chosen
        return here.to(self._device), chosen.to(self._device)


def _repeated(x: Tensor, outcomes: int) -> Tensor:
    """(B, ...) as (B, C, ...)."""
    return x[:, None].expand(-1, outcomes, *x.shape[1:])


def _room_for(x: Tensor) -> Tensor:
    """Zeros of the shape and type of x, on the CPU."""
    return torch.zeros(x.shape, dtype=x.dtype)


def _defaults(state: Tensor, samples: Tensor | None, actions: int, discount: float) -> Reply:
    """Defaults of the fields that a model leaves out, for states (B, S) or (B, C, S)."""
    each = state.shape[:-1]
    zero, moves = np.zeros(each, np.float32), np.empty((*each, actions, 0), np.uint8)
    if samples is not None:
        moves = as_bytes(_room_for(samples))
    return Reply(
        state=as_bytes(_room_for(state)),
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


def _reply(
    found: Evaluation, defaults: Reply, state: Tensor, samples: Tensor | None, whose: str
) -> Reply:
    """An evaluation as arrays; states and actions must be like `state` and `samples`."""
    moves = defaults.actions
    if samples is not None:
        if found.actions is None:
            raise ValueError("the root's actions are a sample, so a step must give actions too")
        moves = _bytes_like(found.actions, samples, whose, "actions")
    return Reply(
        _bytes_like(found.state, state, whose, "state"),
        moves,
        _array(found.reward, defaults.reward, whose, "reward"),
        _array(found.discount, defaults.discount, whose, "discount"),
        _array(found.value, defaults.value, whose, "value"),
        _array(found.variance, defaults.variance, whose, "variance"),
        _array(found.chance, defaults.chance, whose, "chance"),
        _array(found.logits, defaults.logits, whose, "logits"),
        _array(found.terminated, defaults.terminated, whose, "terminated"),
        _array(found.invalid, defaults.invalid, whose, "invalid"),
    )


def _bytes_like(given: Tensor, like: Tensor, whose: str, name: str) -> np.ndarray:
    if given.shape != like.shape:
        raise ValueError(f"{whose} {name} must be {tuple(like.shape)}, got {tuple(given.shape)}")
    if not (given.is_cpu and given.dtype == like.dtype and given.is_contiguous()):
        given = given.to("cpu", like.dtype).contiguous()
    return as_bytes(given)


def _array(given: Tensor | None, default: np.ndarray, whose: str, name: str) -> np.ndarray:
    if given is None:
        return default
    array = given.numpy(force=not given.is_cpu or given.requires_grad)  # force costs time
    if array.shape != default.shape:
        raise ValueError(f"{whose} {name} must be {default.shape}, got {array.shape}")
    return np.ascontiguousarray(array, default.dtype)
