"""Search trees as plain nodes, JSON and dot."""

import json
import re

import numpy as np
import pytest
import torch

from planners.mcts import UCT, Evaluation, Widening, search
from planners.mcts.export import Node, from_json, layout, most_visited, to_dot, to_json


def step(state, action):
    """States are numbers: action 0 adds one for no reward, action 1 ends with the number / 8."""
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


def test_the_most_visited_nodes_are_connected(found):
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


def test_nodes_have_the_reward_and_discount_of_their_step(found):
    nodes = {node.node: node for node in most_visited(found, root=1, nodes=1000)}
    assert nodes[0].state == [3.0] and nodes[0].visits == 51
    for node in list(nodes.values())[1:]:
        above = nodes[node.parent].state[0]
        assert node.state == [above + 1] and node.sample is None
        assert node.reward == pytest.approx(above / 8 * node.action)
        assert (node.discount == 0) == (node.action == 1)  # it is terminal
        assert node.worth == pytest.approx(node.reward + node.discount * node.value)
    below = [node.visits for node in nodes.values() if node.parent == 0]
    assert sum(below) == 50
    assert nodes[0].worth == nodes[0].value


def test_sampled_actions_and_outcomes_are_exported():
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


def test_nodes_are_read_back_from_json(found):
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
def test_bad_input_is_refused_by_name(found, options, message):
    with pytest.raises(ValueError, match=message):
        most_visited(found, **options)


def test_nodes_come_after_their_parents_even_if_visited_more():
    """Two states that lead to each other: the first node of each has all visits."""

    def step(state, action):
        return Evaluation(1 - state, 1 + state[:, 0], torch.zeros(1))

    zero = torch.zeros(1)
    root = Evaluation(torch.zeros(1, 1), zero, zero, torch.zeros(1, 1))
    draw = torch.Generator().manual_seed(0)
    tree = search(root, step, simulations=20, generator=draw, discount=0.5, merge=True)
    nodes = most_visited(tree, nodes=10)
    assert [x.node for x in nodes] == [0, 1, 2]
    assert [x.parent for x in nodes] == [-1, 0, 1]


def test_a_layout_puts_parents_above_the_middle_of_their_children():
    def node(name, parent, action):
        return Node(name, parent, action, None, 1, 0.0, 0.0, 1.0, [])

    # The root's action 1 leads to node 5, whose actions 0 and 2 lead to leaves.
    tree = [node(0, -1, -1), node(5, 0, 1), node(7, 5, 2), node(2, 0, 0), node(9, 5, 0)]
    x, y = layout(tree)
    np.testing.assert_array_equal(x, [0.75, 1.5, 2, 0, 1])
    np.testing.assert_array_equal(y, [0, -1, -2, -1, -2])
    with pytest.raises(ValueError, match="is empty"):
        layout([])
    with pytest.raises(ValueError, match="the parent of every node"):
        layout([node(0, -1, -1), node(3, 2, 0)])
