"""Search trees to look at: a picture, JSON for other programs, and the dot text of Graphviz."""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.plots.style import COLOURS, GREY, HALO, INK, note, panels

if TYPE_CHECKING:
    from planners.mcts import Tree


class Node(NamedTuple):
    """A node of one tree, in plain values."""

    node: int
    """Its place in the tree; 0 is the root."""
    parent: int
    """-1 for the root."""
    action: int
    """From the parent; -1 for the root."""
    sample: list[float] | None
    """(A,), what that action is, where actions are a sample; None for the root."""
    visits: int
    value: float
    """What it is worth, by the search's `backup`."""
    reward: float
    """Of the step into it."""
    discount: float
    """Of its value in its parent's; 0 where it is terminal."""
    state: list[float]
    """(S,)."""

    @property
    def worth(self) -> float:
        """The reward into it and its discounted value: what it adds to Q of its action."""
        return self.reward + self.discount * self.value if self.parent >= 0 else self.value


def most_visited(tree: Tree, *, root: int = 0, nodes: int = 40) -> list[Node]:
    """The most visited nodes of the tree from root `root`, parents before children.

    From the root on the most visited of all whose parents are there come next.

    Raises:
        ValueError: a root that is not there, less than one node.
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


def to_json(nodes: Sequence[Node]) -> str:
    """A list of objects with the fields of `Node`; raises ValueError for NaN."""
    return json.dumps([node._asdict() for node in nodes], indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> list[Node]:
    """What `to_json` wrote."""
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


def draw(
    nodes: Sequence[Node],
    *,
    actions: Sequence[str] | None = None,
    label: Callable[[Node], str] | None = None,
    chosen: int | None = None,
    inside: str | None = None,
    title: str = "What the search looked at",
) -> Figure:
    """A picture of the tree from its root down.

    Size is by visits. Colour is by what a node adds to Q of its action: the reward into it and its
    discounted value. A square is terminal.

    Args:
        nodes: parents before children; more than about 60 are hard to read.
        actions: names of the actions, for the edges; their numbers if None.
        label: what stands in a node; its visits if None.
        chosen: the root's action whose edges are orange.
        inside: what `label` says, in words, for the line under the title.
        title: above all.

    Raises:
        ValueError: no nodes, a node without its parent, values that are not finite.
    """
    if not nodes:
        raise ValueError("nodes: is empty; want at least one node")
    place = {node.node: i for i, node in enumerate(nodes)}
    if any(node.parent >= 0 and node.parent not in place for node in nodes):
        raise ValueError("nodes: want the parent of every node among them")
    worth = np.array([node.worth for node in nodes])
    if not np.isfinite(worth).all():
        raise ValueError("nodes: have NaN or infinite values; want finite ones")
    x, y = _layout(nodes, place)
    levels = float(1 - y.min())
    size = (
        float(np.clip(1.6 + 0.62 * (x.max() + 1), 5.4, 16)),
        1.7 + levels * float(np.clip(12 / levels, 0.62, 0.95)),
    )
    figure, (ax,) = panels(title, 1, 1, size)
    ax.axis("off")
    visits = np.array([node.visits for node in nodes])
    share = np.sqrt(visits / visits.max())
    names = [action_name(node, actions) for node in nodes]
    inch = (size[0] - 1.6) / (np.ptp(x) + 1.4)  # about, of a leaf's place
    far = _name_places(x, y, [place.get(node.parent, 0) for node in nodes], names, inch)
    texts = [f"{node.visits}" if label is None else label(node) for node in nodes]
    tall = any("\n" in text for text in texts)
    area = (330 if tall else 170) + 700 * share
    for i, node in enumerate(nodes[1:], 1):
        j = place[node.parent]
        taken = node.parent == nodes[0].node and node.action == chosen
        ax.plot(
            x[[j, i]], y[[j, i]], color=COLOURS[1] if taken else GREY,
            lw=0.7 + 4 * share[i], alpha=0.8 if taken else 0.55, zorder=1,
        )  # fmt: skip
        at = far[i] * np.array([x[i], y[i]]) + (1 - far[i]) * np.array([x[j], y[j]])
        ax.text(
            at[0], at[1], names[i], ha="center", va="center", fontsize=8.5, color=INK,
            path_effects=HALO, zorder=2,
        )  # fmt: skip
    ends = np.array([node.discount == 0 and node.parent >= 0 for node in nodes])
    dots = None
    for marker, these in (("o", ~ends), ("s", ends)):
        if these.any():
            dots = ax.scatter(
                x[these], y[these], area[these], worth[these], marker=marker, cmap="viridis",
                vmin=worth.min(), vmax=worth.max(), edgecolors=INK, lw=0.8, zorder=3,
            )  # fmt: skip
    assert dots is not None
    for i, text in enumerate(texts):
        dark = (worth[i] - worth.min()) < 0.6 * (np.ptp(worth) or 1)
        ax.text(
            x[i], y[i], text, ha="center", va="center", fontsize=6.5 if tall else 8,
            color="white" if dark else INK, zorder=4,
        )  # fmt: skip
    ax.set(xlim=(x.min() - 0.7, x.max() + 0.7), ylim=(y.min() - 0.6, 0.6))
    bar = figure.colorbar(dots, ax=ax, shrink=0.7, aspect=26, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=9, labelcolor=GREY)
    bar.set_label("reward and discounted value", fontsize=9.5, color=INK)
    shown = inside or ("visits" if label is None else "labels")
    said = "" if chosen is None else "; orange is chosen"
    text = f"the {len(nodes)} most visited nodes, {shown} inside; a square is terminal{said}"
    note(ax, text)
    return figure


def action_name(node: Node, actions: Sequence[str] | None = None) -> str:
    """What leads to a node, for labels."""
    if actions is not None:
        return actions[node.action]
    if node.sample is not None:
        return sample_name(node.sample)
    return str(node.action)


def sample_name(sample: Sequence[float]) -> str:
    """A sampled action (A,), for labels."""
    return ", ".join(f"{x:.2g}" for x in sample)


def _quoted(*rows: Any) -> str:
    """Dot's quoted string, a line each."""
    safe = (str(row).replace("\\", "\\\\").replace('"', '\\"') for row in rows)
    return '"' + "\\n".join(safe) + '"'


def _layout(nodes: Sequence[Node], place: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Leaves one apart and every parent over the middle of its children; y is minus the depth."""
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


def _name_places(
    x: np.ndarray, y: np.ndarray, above: Sequence[int], names: Sequence[str], inch: float
) -> np.ndarray:
    """How far down its edge each name is: nearer to the child, where edges of one parent are
    apart, and higher and lower by turns where names beside one another would still meet."""
    far = np.full(len(x), 0.6)
    middle = 0.6 * x + 0.4 * x[np.array(above)]
    for depth in np.unique(y):
        row = sorted(np.flatnonzero(y == depth).tolist(), key=lambda i: middle[i])
        for left, right in pairwise(row):
            width = 0.04 * (len(names[left]) + len(names[right])) + 0.06  # half of each, and a gap
            if inch * (middle[right] - middle[left]) < width:
                far[right] = 0.5 if far[left] > 0.6 else 0.74
    return far
