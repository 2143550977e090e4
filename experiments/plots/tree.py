"""Pictures of search trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from experiments.plots.style import COLOURS, GREY, HALO, INK, note, panels
from planners.mcts.export import Node, action_name, layout


def draw(
    nodes: Sequence[Node],
    *,
    actions: Sequence[str] | None = None,
    label: Callable[[Node], str] | None = None,
    chosen: int | None = None,
    inside: str | None = None,
    title: str = "The search tree",
) -> Figure:
    """A picture of the tree from its root down.

    A node's size shows its visits. Its colour shows the reward on the way to it plus its discounted
    value, which is its part in the Q of the action. Squares are terminal.

    Args:
        nodes: parents before children; more than about 60 are hard to read.
        actions: names of the actions, for the edges; their numbers if None.
        label: gives the text in a node; the number of visits if None.
        chosen: the root's action that is chosen, whose edges are orange.
        inside: words for what `label` gives, for the line under the title.
        title: of the whole figure.

    Raises:
        ValueError: no nodes, a node without its parent, values that are not finite.
    """
    x, y = layout(nodes)
    place = {node.node: i for i, node in enumerate(nodes)}
    worth = np.array([node.worth for node in nodes])
    if not np.isfinite(worth).all():
        raise ValueError("nodes: have NaN or infinite values; want finite ones")
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
    inch = (size[0] - 1.6) / (np.ptp(x) + 1.4)  # width for a leaf, approximately
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


def _name_places(
    x: np.ndarray, y: np.ndarray, above: Sequence[int], names: Sequence[str], inch: float
) -> np.ndarray:
    """How far down its edge (0 to 1) each name is written, (nodes,).

    Names are nearer to the child, where the edges of one parent are apart; neighbours that would
    still overlap alternate between a higher and a lower place.
    """
    far = np.full(len(x), 0.6)
    middle = 0.6 * x + 0.4 * x[np.array(above)]
    for depth in np.unique(y):
        row = sorted(np.flatnonzero(y == depth).tolist(), key=lambda i: middle[i])
        for left, right in pairwise(row):
            width = 0.04 * (len(names[left]) + len(names[right])) + 0.06  # half of each, and a gap
            if inch * (middle[right] - middle[left]) < width:
                far[right] = 0.5 if far[left] > 0.6 else 0.74
    return far
