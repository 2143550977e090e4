"""Search trees as plain nodes, in JSON and Graphviz's dot, and their layout in a figure."""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from planners.mcts import Tree


class Node(NamedTuple):
    """A node of one tree, in Python values."""

    node: int
    """Its index in the tree; 0 is the root."""
    parent: int
    """Index of the parent; -1 for the root."""
    action: int
    """The parent's action that leads to it; -1 for the root."""
    sample: list[float] | None
    """That action (A,) if actions are sampled; None for the root and for index actions."""
    visits: int
    value: float
    """Its value, by the search's `backup`."""
    reward: float
    """The reward of the step into it."""
    discount: float
    """Factor of its value in the parent's value; 0 if it is terminal."""
    state: list[float]
    """The model's state, S numbers."""

    @property
    def worth(self) -> float:
        """Reward of the step into it plus its discounted value; for the root, its value."""
        return self.reward + self.discount * self.value if self.parent >= 0 else self.value


def most_visited(tree: Tree, *, root: int = 0, nodes: int = 40) -> list[Node]:
    """The most visited nodes of the tree of root `root`, parents before children.

    The list begins with the root; then the most visited node whose parent is in the list is added,
    until there are `nodes` nodes.

    Raises:
        ValueError: a root out of range, or fewer than one node.
    """
    roots = len(tree.visits)
    if not 0 <= root < roots:
        raise ValueError(f"root must lie in 0..{roots - 1}, got {root!r}")
    if nodes < 1:
        raise ValueError(f"nodes must be at least 1, got {nodes!r}")
    visits, parents = tree.visits[root].tolist(), tree.parents[root].tolist()
    below: dict[int, list[int]] = defaultdict(list)
    for node, above in enumerate(parents):
        if visits[node]:
            below[above].append(node)
    found, front = [], [(-visits[0], 0)]
    while front and len(found) < nodes:
        _, node = heapq.heappop(front)
        for child in below[node]:
            heapq.heappush(front, (-visits[child], child))
        parent, action = parents[node], int(tree.moves[root, node])
        inner, sample = parent >= 0, None
        if inner and tree.actions is not None:
            sample = tree.actions[root, parent, action].tolist()
        found.append(
            Node(
                node,
                parent,
                action if inner else -1,
                sample,
                visits[node],
                float(tree.values[root, node]),
                float(tree.rewards[root, node]),
                float(tree.discounts[root, node]),
                tree.states[root, node].tolist(),
            )
        )
    return found


def layout(nodes: Sequence[Node]) -> tuple[np.ndarray, np.ndarray]:
    """Positions x and y, each (nodes,), at which to draw nodes, given parents before children.

    The distance of neighbouring leaves is 1, each parent is above the middle of its children, and
    y is minus the depth.

    Raises:
        ValueError: no nodes, or a node without its parent.
    """
    if not nodes:
        raise ValueError("nodes: is empty; want at least one node")
    place = {node.node: i for i, node in enumerate(nodes)}
    if any(node.parent >= 0 and node.parent not in place for node in nodes):
        raise ValueError("nodes: want the parent of every node among them")
    below: list[list[int]] = [[] for _ in nodes]
    depth = np.zeros(len(nodes))
    for i, node in enumerate(nodes[1:], 1):
        below[place[node.parent]].append(i)
        depth[i] = depth[place[node.parent]] + 1
    x, free, stack = np.zeros(len(nodes)), 0, [0]
    while stack:  # left to right; a leaf takes the next free place
        i = stack.pop()
        if not below[i]:
            x[i] = free
            free += 1
        stack += sorted(below[i], key=lambda c: (-nodes[c].action, -nodes[c].node))
    for i in reversed(range(len(nodes))):
        if below[i]:
            x[i] = (min(x[below[i]]) + max(x[below[i]])) / 2
    return x, -depth


def to_json(nodes: Sequence[Node]) -> str:
    """A list of objects with the fields of `Node`; raises ValueError for NaN."""
    return json.dumps([node._asdict() for node in nodes], indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> list[Node]:
    """The nodes in a text that `to_json` returned."""
    return [Node(**fields) for fields in json.loads(text)]


def to_dot(
    nodes: Sequence[Node],
    *,
    actions: Sequence[str] | None = None,
    label: Callable[[Node], str] | None = None,
) -> str:
    """A digraph for Graphviz: nodes with visits and value, edges with actions.

    Args:
        nodes: parents before children.
        actions: names of the actions; their numbers if None.
        label: a first line for each node.
    """
    lines = ["digraph tree {", "  node [shape=box, style=rounded];"]
    for node in nodes:
        rows = [] if label is None else [label(node)]
        rows += [f"{node.visits} visits", f"{node.worth:.3g}"]
        lines.append(f"  {node.node} [label={_quoted(*rows)}];")
        if node.parent >= 0:
            name = action_name(node, actions)
            lines.append(f"  {node.parent} -> {node.node} [label={_quoted(name)}];")
    return "\n".join([*lines, "}"]) + "\n"


def action_name(node: Node, actions: Sequence[str] | None = None) -> str:
    """The name of the action that leads to a node, for labels."""
    if actions is not None:
        return actions[node.action]
    if node.sample is not None:
        return sample_name(node.sample)
    return str(node.action)


def sample_name(sample: Sequence[float]) -> str:
    """A sampled action (A,), for labels."""
    return ", ".join(f"{x:.2g}" for x in sample)


def _quoted(*rows: Any) -> str:
    """A quoted string of dot, with one line for each row."""
    safe = (str(row).replace("\\", "\\\\").replace('"', '\\"') for row in rows)
    return '"' + "\\n".join(safe) + '"'
