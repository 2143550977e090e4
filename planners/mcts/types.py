"""Arguments and results of a search, and the arrays that store its trees.

Letters: B roots, S state, K actions of a node (all of them, or a sample), A action size, N nodes,
C outcomes of an action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Interval
from jaxtyping import Bool, Float, Int
from torch import Tensor

from planners.checks import PositiveFloat, check_fields


class Evaluation(NamedTuple):
    """The result of one step of a model from each of B nodes.

    If the model returns C outcomes of each step, all shapes begin with (B, C).
    """

    state: Float[Tensor, "B S"]
    reward: Float[Tensor, " B"]
    value: Float[Tensor, " B"]  # value of the state; ignored if that is terminal
    logits: Float[Tensor, "B K"] | None = None  # logits of the prior; None for a uniform prior
    terminated: Bool[Tensor, " B"] | None = None  # None if no state is terminal
    discount: Float[Tensor, " B"] | None = None  # used instead of γ; -1 if the opponent moves next
    variance: Float[Tensor, " B"] | None = None  # epistemic variance of the value, over members
    invalid: Bool[Tensor, "B K"] | None = None  # actions that cannot be taken in the state
    actions: Float[Tensor, "B K A"] | None = None  # the K actions, if they are sampled
    chance: Float[Tensor, "B C"] | None = None  # probability of each outcome; 0 for padding


StepFn = Callable[[Tensor, Tensor], Evaluation]
"""`step(state (B, S), action (B,) or (B, A)) -> Evaluation`; actions are indices unless they are
sampled. The next simulation overwrites both arguments: clone them to keep them."""


@dataclass(frozen=True)
class Widening:
    """Progressive widening: at most ceil(c · n^alpha) children, and at least one, after n visits.

    Couëtoux et al. 2011, "Continuous upper confidence trees". Raises ValueError unless c > 0 and
    alpha in (0, 1).
    """

    c: PositiveFloat = 1.0
    alpha: Annotated[float, Interval(gt=0, lt=1)] = 0.5

    def __post_init__(self) -> None:
        check_fields(self)


class Settings(NamedTuple):
    """Options of a search other than the rule, for compiled code."""

    max_depth: int
    outcomes: int = 0  # number C that the model returns with probabilities; 0: it draws one
    merge: bool = False  # nodes with equal states are transpositions
    max_backup: bool = False  # whether a node's value is that of its best action or a mean
    widening_c: float = 0.0  # widening of actions, see `Widening`; 0: all are available
    widening_alpha: float = 0.5
    drawing_c: float = 0.0  # widening of drawn outcomes; 0: only one is drawn
    drawing_alpha: float = 0.5


NODE = np.dtype(
    [
        ("visits", "i4"),  # 1 when it is added, and 1 for each later simulation through it
        ("parent", "i4"),  # -1 for the root
        ("move", "i4"),  # action from the parent
        ("sibling", "i4"),  # next outcome of the same action, or -1
        ("transposition", "i4"),  # first node of the same state, the only one with children
        ("simulation", "i4"),  # the last one that selected an action here
        ("value", "f4"),
        ("raw", "f4"),  # the model's value
        ("reward", "f4"),  # reward of the step into the node
        ("discount", "f4"),  # factor of its value in the parent's; 0 if terminal
        ("variance", "f4"),  # epistemic variance of the value; a mean over visits
        ("chance", "f4"),  # probability of this outcome; 0 if it was drawn
        ("terminal", "?"),
    ],
    align=True,
)
"""One node. Its fields are adjacent in memory, because memory access limits the speed of a
search."""

EDGE = np.dtype(
    [
        ("child", "i4"),  # first outcome, or -1
        ("visits", "i4"),
        ("q", "f4"),  # mean of reward + discount · value over the outcomes; 0 if untried
        ("variance", "f4"),  # mean of discount² · epistemic variance over the outcomes
        ("prior", "f4"),  # probability; -1 for invalid actions
    ],
    align=True,
)
"""One action of a node. Its outcomes are nodes, linked by `sibling`."""


class Forest(NamedTuple):
    """B trees with room for N nodes of K actions each; node 0 is the root.

    A node with 0 visits does not exist. States and actions are kept as bytes.
    """

    nodes: np.ndarray  # (B, N) of NODE
    edges: np.ndarray  # (B, N, K) of EDGE
    bounds: np.ndarray  # (B, 2), least and greatest q of the tree
    states: np.ndarray  # (B, N, S) uint8
    actions: np.ndarray  # (B, N, K, A) uint8; A = 0 where actions are indices
    table: np.ndarray  # (B, H) int32, nodes by a hash of their state, or -1; H = 0 without merge


class Trees(NamedTuple):
    """A forest, and its states and sampled actions as tensors that share its memory."""

    forest: Forest
    states: Float[Tensor, "B N S"]
    actions: Float[Tensor, "B N K A"] | None


def empty_trees(
    state: Float[Tensor, "B S"],
    actions: Float[Tensor, "B K A"] | None,
    *,
    nodes: int,
    count: int,
    table: int = 0,
) -> Trees:
    """Trees without nodes.

    Args:
        state, actions: states and actions of the roots, which give shapes and types.
        nodes: N.
        count: K.
        table: H.
    """
    roots = len(state)
    made = np.zeros((roots, nodes), NODE)
    made["parent"] = made["sibling"] = -1
    edges = np.zeros((roots, nodes, count), EDGE)
    edges["child"] = -1
    bounds = np.tile((np.inf, -np.inf), (roots, 1))
    states = torch.zeros(roots, nodes, *state.shape[1:], dtype=state.dtype)
    samples, moves = None, np.empty((roots, nodes, count, 0), np.uint8)
    if actions is not None:
        samples = torch.zeros(roots, nodes, *actions.shape[1:], dtype=actions.dtype)
        moves = as_bytes(samples)
    places = np.full((roots, table), -1, np.int32)
    return Trees(Forest(made, edges, bounds, as_bytes(states), moves, places), states, samples)


def as_bytes(x: Tensor) -> np.ndarray:
    """The memory of a tensor (..., S) on the CPU as uint8 (..., bytes)."""
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy().view(np.uint8)


@dataclass(frozen=True, eq=False)
class Tree:
    """The result of a search: B trees, and the action and policy at their roots.

    Properties of nodes are (B, N), those of their actions (B, N, K). Node 0 is the root, and a node
    with 0 visits does not exist. All tensors are on the CPU, except `action` and `policy`, which
    are on the device of the roots.
    """

    action: Int[Tensor, " B"]
    """Index of the chosen action among the root's K."""
    policy: Float[Tensor, "B K"]
    """Shares of the root's visits; for Gumbel the improved policy."""
    forest: Forest
    """All arrays; `NODE` and `EDGE` list the fields."""
    states: Float[Tensor, "B N S"]
    actions: Float[Tensor, "B N K A"] | None
    """The K actions of each node, if they are sampled."""

    def _nodes(self, name: str) -> Tensor:
        return torch.from_numpy(self.forest.nodes[name])

    def _edges(self, name: str) -> Tensor:
        return torch.from_numpy(self.forest.edges[name])

    @property
    def value(self) -> Float[Tensor, " B"]:
        """Values of the roots."""
        return self.values[:, 0]

    @property
    def visits(self) -> Int[Tensor, "B N"]:
        """1 when a node is added, and 1 for each later simulation through it."""
        return self._nodes("visits")

    @property
    def values(self) -> Float[Tensor, "B N"]:
        """Values after the search's `backup`."""
        return self._nodes("value")

    @property
    def raw_values(self) -> Float[Tensor, "B N"]:
        """The model's values."""
        return self._nodes("raw")

    @property
    def rewards(self) -> Float[Tensor, "B N"]:
        """Reward of the step into each node."""
        return self._nodes("reward")

    @property
    def discounts(self) -> Float[Tensor, "B N"]:
        """Factor of each node's value in its parent's; 0 for terminal nodes."""
        return self._nodes("discount")

    @property
    def parents(self) -> Int[Tensor, "B N"]:
        """Parent of each node; -1 for the root."""
        return self._nodes("parent")

    @property
    def moves(self) -> Int[Tensor, "B N"]:
        """Action from the parent."""
        return self._nodes("move")

    @property
    def children(self) -> Int[Tensor, "B N K"]:
        """First outcome of each action; -1 if untried."""
        return self._edges("child")

    @property
    def siblings(self) -> Int[Tensor, "B N"]:
        """The next outcome of the same action; -1 for none."""
        return self._nodes("sibling")

    @property
    def transpositions(self) -> Int[Tensor, "B N"]:
        """The first node with the same state if the search merges them, else the node itself."""
        return self._nodes("transposition")

    @property
    def priors(self) -> Float[Tensor, "B N K"]:
        """Probabilities, the root's with the rule's noise; -1 for invalid actions."""
        return self._edges("prior")

    @property
    def chances(self) -> Float[Tensor, "B N"]:
        """Probability of the node among the outcomes of its action; 0 if it was drawn."""
        return self._nodes("chance")

    @property
    def variances(self) -> Float[Tensor, "B N"]:
        """Epistemic variance of the value, a mean over the node's visits."""
        return self._nodes("variance")

    def children_visits(self) -> Int[Tensor, "B K"]:
        """Visits of the root's actions."""
        return self._edges("visits")[:, 0]

    def children_values(self) -> Float[Tensor, "B K"]:
        """Q of the root's actions; 0 if untried."""
        return self._edges("q")[:, 0]

    def after(self, action: Int[Tensor, " B"], state: Float[Tensor, "B S"] | None = None) -> Tree:
        """The subtree below an action of each root, as the `start` of a search after a real step.

        Where an action has several outcomes, the subtree is that of the outcome nearest to `state`,
        or else of the most visited one. An untried action leaves an empty tree.

        Raises:
            ValueError: for a tree with transpositions, whose nodes belong to several subtrees.
        """
        old = self.forest
        if old.table.size:
            raise ValueError("a tree with transpositions has no subtrees to continue from")
        top = self._outcome(action.cpu().numpy(), state)
        inside = np.zeros(old.nodes.shape, np.bool_)
        inside[top >= 0, top[top >= 0]] = True
        parent, exists = old.nodes["parent"], old.nodes["visits"] > 0
        while True:
            below = np.take_along_axis(inside, parent.clip(0), 1) & (parent >= 0) & exists
            if not (below & ~inside).any():
                break
            inside |= below
        place = np.where(inside, inside.cumsum(1) - 1, -1)  # parents come before their children
        samples = None if self.actions is None else self.actions[:, 0]
        new, states, actions = empty_trees(
            self.states[:, 0], samples, nodes=int(place.max(initial=0)) + 1,
            count=old.edges.shape[2],
        )  # fmt: skip
        b, node = inside.nonzero()
        at = place[b, node]
        for whole, part in zip(old, new, strict=True):
            if whole is not old.bounds and whole is not old.table:
                part[b, at] = whole[b, node]
        nodes, edges = new.nodes, new.edges
        nodes["transposition"][b, at] = at
        nodes["simulation"] = nodes["move"][:, 0] = 0
        nodes["parent"][b, at] = np.where(at > 0, place[b, parent[b, node]], -1)
        sibling = old.nodes["sibling"][b, node]
        nodes["sibling"][b, at] = np.where((at > 0) & (sibling >= 0), place[b, sibling], -1)
        child = old.edges["child"][b, node]
        edges["child"][b, at] = np.where(child >= 0, place[b[:, None], child], -1)
        tried = edges["visits"] > 0
        new.bounds[:, 0] = edges["q"].min((1, 2), initial=np.inf, where=tried)
        new.bounds[:, 1] = edges["q"].max((1, 2), initial=-np.inf, where=tried)
        return Tree(
            torch.zeros_like(self.action), torch.zeros_like(self.policy), new, states, actions
        )

    def _outcome(self, action: np.ndarray, state: Tensor | None) -> np.ndarray:
        """The node (B,) that an action of each root led to; -1 if untried."""
        nodes, top = self.forest.nodes, np.full(len(action), -1)
        for b in range(len(action)):
            child, found = int(self.forest.edges["child"][b, 0, action[b]]), []
            while child >= 0:
                found.append(child)
                child = int(nodes["sibling"][b, child])
            if found and state is not None:
                apart = (self.states[b, found] - state[b].to(self.states)).square().sum(-1)
                top[b] = found[int(apart.argmin())]
            elif found:
                top[b] = max(found, key=lambda node, b=b: nodes["visits"][b, node])
        return top
