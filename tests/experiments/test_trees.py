"""Search trees drawn and exported."""

import json
import re

import numpy as np
import pytest
import torch
from experiments.searching import CLASSICS, NAMES, SearchConfig, searchable, searched
from matplotlib.collections import PathCollection
from PIL import Image

from envs import WORLDS
from experiments import plots
from experiments.plots.tree import Node, draw, from_json, most_visited, to_dot, to_json
from planners.mcts import UCT, Evaluation, Widening, search


def step(state, action):
    """Numbers: action 0 adds one and earns nothing, action 1 ends and earns the number / 8."""
    after = state + 1.0
    return Evaluation(after, state[:, 0] / 8 * action, 0 * after[:, 0], terminated=action == 1)


@pytest.fixture(scope="module")
def found():
    start = torch.tensor([[0.0], [3.0]])
    root = Evaluation(start, torch.zeros(2), torch.zeros(2), torch.zeros(2, 2))
    return search(
        root, step, simulations=50, generator=torch.Generator().manual_seed(0), rule=UCT(),
        max_depth=4,
    )  # fmt: skip


def test_the_most_visited_hang_together(found):
    for root in (0, 1):
        visits = found.visits[root].tolist()
        there = sum(v > 0 for v in visits)
        for count in (1, 3, 7, 1000):
            nodes = most_visited(found, root=root, nodes=count)
            assert len(nodes) == min(count, there)
            assert nodes[0].node == 0 and nodes[0].parent == nodes[0].action == -1
            seen = set()
            for node in nodes:
                assert node.node == 0 or node.parent in seen
                seen.add(node.node)
            left_out = [v for i, v in enumerate(visits) if i not in seen]
            assert min(node.visits for node in nodes) >= max(left_out, default=0)


def test_nodes_say_what_the_world_did(found):
    nodes = {node.node: node for node in most_visited(found, root=1, nodes=1000)}
    assert nodes[0].state == [3.0] and nodes[0].visits == 51
    for node in list(nodes.values())[1:]:
        above = nodes[node.parent].state[0]
        assert node.state == [above + 1] and node.sample is None
        assert node.reward == pytest.approx(above / 8 * node.action)
        assert (node.discount == 0) == (node.action == 1)  # it ends
        assert node.worth == pytest.approx(node.reward + node.discount * node.value)
    below = [node.visits for node in nodes.values() if node.parent == 0]
    assert sum(below) == 50
    assert nodes[0].worth == nodes[0].value


def test_sampled_actions_and_outcomes_come_along():
    draw = torch.Generator().manual_seed(1)
    samples = torch.tensor([[[-1.0], [0.5]]])

    def noisy(state, action):
        after = state + action + torch.randn(state.shape, generator=draw)
        return Evaluation(after, -after[:, 0].abs(), 0 * after[:, 0], actions=samples)

    root = Evaluation(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), actions=samples)
    tree = search(root, noisy, simulations=60, generator=draw, outcomes=Widening(1, 0.5))
    nodes = most_visited(tree, nodes=20)
    assert all(node.sample == samples[0, node.action].tolist() for node in nodes[1:])
    first = [node for node in nodes if node.parent == 0]
    assert len(first) > len({node.action for node in first})  # several outcomes of one action
    assert 'label="0.5"' in to_dot(nodes)
    assert from_json(to_json(nodes)) == nodes


def test_json_comes_back(found):
    nodes = most_visited(found, nodes=9)
    assert from_json(to_json(nodes)) == nodes
    assert set(json.loads(to_json(nodes))[0]) == set(Node._fields)


def test_dot_has_a_line_for_each_node_and_edge(found):
    nodes = most_visited(found, nodes=9)
    text = to_dot(nodes, actions=("on", 'the "end"'), label=lambda node: f"at {node.state[0]:g}")
    assert text.startswith("digraph tree {") and text.endswith("}\n")
    edges = re.findall(r'^  (\d+) -> (\d+) \[label="(.*)"\];$', text, re.M)
    assert {(int(a), int(b)) for a, b, _ in edges} == {(n.parent, n.node) for n in nodes[1:]}
    assert {name for *_, name in edges} == {"on", r"the \"end\""}
    labels = dict(re.findall(r'^  (\d+) \[label="(.*)"\];$', text, re.M))
    assert labels["0"] == rf"at 0\n51 visits\n{nodes[0].value:.3g}"
    assert len(labels) == 9


@pytest.mark.parametrize(
    "options, message",
    [
        ({"root": 2}, "root must lie in 0..1, got 2"),
        ({"nodes": 0}, "nodes must be at least 1, got 0"),
    ],
)
def test_bad_input_says_so(found, options, message):
    with pytest.raises(ValueError, match=message):
        most_visited(found, **options)


def test_the_picture_is_a_tree(found, tmp_path):
    nodes = most_visited(found, root=1, nodes=9)
    figure = draw(nodes, actions=("on", "end"))
    assert Image.open(plots.save(figure, tmp_path / "tree.png")).format == "PNG"
    ax = figure.axes[0]
    dots = [c for c in ax.collections if isinstance(c, PathCollection)]
    placed = {tuple(x): (s, v) for c in dots for x, s, v in zip(*_drawn(c), strict=True)}
    assert len(placed) == 9  # none upon another
    by_size = sorted(size for size, _ in placed.values())
    assert len(set(by_size)) == len({node.visits for node in nodes})
    assert sorted(v for _, v in placed.values()) == pytest.approx(sorted(n.worth for n in nodes))
    assert placed[max(placed, key=lambda at: at[1])][0] == by_size[-1]  # the root, on top
    depths = sorted(-y for _, y in placed)
    assert depths[0] == 0 and max(np.diff(depths)) == 1
    assert len(ax.lines) == 8
    words = [text.get_text() for text in ax.texts]
    assert words.count("on") + words.count("end") == 8
    assert str(nodes[0].visits) in words


def _drawn(dots: PathCollection):
    values = dots.get_array()
    assert values is not None
    return np.round(np.asarray(dots.get_offsets()), 6), dots.get_sizes(), values


def test_a_picture_of_nothing_or_of_orphans_says_so(found):
    with pytest.raises(ValueError, match="nodes: is empty"):
        draw([])
    with pytest.raises(ValueError, match="want the parent of every node"):
        draw(most_visited(found, nodes=9)[1:])
    with pytest.raises(ValueError, match="nodes: have NaN"):
        draw([most_visited(found, nodes=1)[0]._replace(value=np.nan)])


def test_a_root_alone_is_a_picture(found, tmp_path):
    assert plots.save(draw(most_visited(found, nodes=1)), tmp_path / "one.png").exists()


def node(number, parent, action, visits, value, reward, *state, discount=0.9):
    return Node(number, parent, action, None, visits, value, reward, discount, list(state))


def test_the_chosen_action_is_orange_and_names_do_not_meet():
    actions = [f"go {k}" for k in range(30)]
    tree = [node(0, -1, -1, 100, 0.0, 0.0, 0.0)]
    tree += [node(k + 1, 0, k, 3, k / 30, 0.0, 1.0) for k in range(30)]
    figure = draw(tree, actions=actions, chosen=4)
    ax = figure.axes[0]
    assert [line.get_color() for line in ax.lines].count(plots.COLOURS[1]) == 1
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text().startswith("go")]
    assert len(boxes) == 30
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_every_world_has_a_name_for_each_action():
    assert set(NAMES) == {*WORLDS, *CLASSICS} <= set(searchable())
    for name, build in WORLDS.items():
        assert len(NAMES[name]) == build().actions, name


@pytest.mark.parametrize("rule", ["uct", "puct", "gumbel"])
def test_a_search_by_each_rule_says_what_it_did_and_does_it_again(rule):
    config = SearchConfig("dyna-maze", rule, simulations=40, steps=2, rollouts=2, depth=20)
    found = searched(config)
    assert [c.action for c in found.choices] == ["up", "right", "down", "left"]
    assert sum(c.visits for c in found.choices) == 40
    assert sum(c.chosen for c in found.choices) == 1
    assert found.optimum == pytest.approx(max(c.optimum for c in found.choices if c.optimum))
    again = searched(config)
    assert (again.choices, again.nodes) == (found.choices, found.nodes)


def test_continuous_actions_are_sampled_and_the_state_is_the_simulators_own():
    config = SearchConfig("cartpole-swingup", simulations=12, samples=3, rollouts=1, depth=2)
    found = searched(config)
    assert len(found.choices) == 3 and found.optimum is None
    assert all(-1 <= float(choice.action) <= 1 for choice in found.choices)
    assert found.nodes[0].visits == 13 and all(node.sample for node in found.nodes[1:])


def test_an_action_of_many_numbers_has_a_number_for_a_name():
    """Seven joints: the table says what they do, an edge has no room for it."""
    found = searched(SearchConfig("panda-reach", simulations=4, samples=2, rollouts=1, depth=1))
    assert found.names == ("#0", "#1")
    assert all(
        re.fullmatch(rf"#{k}: -?[\d.e-]+(, -?[\d.e-]+){{6}}", choice.action)
        for k, choice in enumerate(found.choices)
    )


def test_a_pole_is_kept_up_for_a_while():
    found = searched(SearchConfig("CartPole-v1", simulations=10, steps=25, rollouts=1, depth=12))
    assert abs(found.nodes[0].state[2]) < 0.2 and len(found.nodes[0].state) == 4


def test_a_twin_visited_more_often_than_its_parent_comes_after_it():
    """Two states, each a step from the other: the first node of each has all the visits."""

    def step(state, action):
        return Evaluation(1 - state, 1 + state[:, 0], torch.zeros(1))

    zero = torch.zeros(1)
    root = Evaluation(torch.zeros(1, 1), zero, zero, torch.zeros(1, 1))
    draw = torch.Generator().manual_seed(0)
    tree = search(root, step, simulations=20, generator=draw, discount=0.5, merge=True)
    nodes = most_visited(tree, nodes=10)
    assert [x.node for x in nodes] == [0, 1, 2]
    assert [x.parent for x in nodes] == [-1, 0, 1]
