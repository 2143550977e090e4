"""Backups through transpositions, and backups of the best action."""

import numpy as np
import pytest
import torch

from planners.mcts import PUCT, UCT, Evaluation, Gumbel, Widening, search
from tests.planners.mcts import golden_mctx as golden
from tests.planners.mcts.models import doubtful, seeded, table_model, world


@pytest.mark.parametrize(
    "rule", [UCT(), PUCT(dirichlet=0.0, temperature=0.0), Gumbel(scale=0.0)], ids=str
)
def test_nodes_of_one_state_share_their_children(rule):
    root, step, options, _, _ = world()
    tree = search(root, doubtful(step), simulations=400, rule=rule, merge=True, **options)
    nodes, edges = tree.forest.nodes, tree.forest.edges
    for b in range(5):
        firsts = {}
        for n in np.flatnonzero(nodes["visits"][b]):
            state, node, own = float(tree.states[b, n, 0]), nodes[b, n], edges[b, n]
            if node["terminal"]:
                assert node["transposition"] == n
                continue
            assert node["transposition"] == firsts.setdefault(state, n)
            if node["transposition"] != n:
                assert (own["visits"] == 0).all() and (own["child"] == -1).all()
                for name in ("value", "variance"):
                    assert node[name] == nodes[name][b, node["transposition"]]
                continue
            seen, means = own["visits"], own["q"].astype(float)
            total = node["raw"] + (seen * means).sum()
            assert node["visits"] == 1 + seen.sum()
            assert node["value"] == pytest.approx(total / node["visits"], abs=1e-3)
            doubt = 0 if n == 0 else 4 + state
            doubt += (seen * own["variance"].astype(float)).sum()
            assert node["variance"] == pytest.approx(doubt / node["visits"], abs=1e-3)
        assert len(firsts) == 5


def test_with_transpositions_search_converges_in_a_world_with_cycles():
    root, step, options, values, q = world(discount=0.9)
    rule = PUCT(dirichlet=0.0, temperature=0.0)

    def error(simulations, merge):
        tree = search(root, step, simulations=simulations, rule=rule, merge=merge, **options)
        chosen = tree.children_values().gather(1, tree.action[:, None])[:, 0]
        assert not merge or simulations < 1000 or (tree.action == q.argmax(1)).all()
        return (chosen - values).abs().max() / values.abs().max()

    late = error(10_000, True)
    assert late < 0.05
    assert late < error(100, True) / 5
    assert late < error(10_000, False) / 3


def test_without_equal_states_there_are_no_transpositions():
    """Each state is the path that leads to it."""

    def step(state, action):
        after = 3 * state + 1 + action[:, None]
        value = torch.sin(after[:, 0])
        return Evaluation(after, torch.cos(after[:, 0]), value)

    start = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    zero = torch.zeros(2)
    root = Evaluation(start, zero, zero, torch.zeros(2, 3))
    options = {"simulations": 25, "rule": UCT(), "discount": 0.9}
    plain = search(root, step, generator=seeded(), **options)
    merged = search(root, step, generator=seeded(), merge=True, **options)
    assert torch.equal(plain.visits, merged.visits)
    assert torch.equal(plain.parents, merged.parents)
    assert torch.allclose(plain.values, merged.values, atol=1e-5)


def test_transpositions_in_a_cycle_equal_hand_computed_values():
    """One action, in a cycle of two states that pay 1 and 2; γ is 1/2, and leaves have value 0.

    0 -> 1 pays 1, 1 -> 0 pays 2. Simulation 1 adds 1 with value 0: q(0) = 1. Simulation 2 adds a
    transposition of 0 with V(0) = (0 + 1) / 2: q(1) = 2 + .25, V(1) = 2.25 / 2, q(0) =
    1 + 1.125 / 2 = 1.5625, V(0) = 2 q(0) / 3. Simulation 3 closes the cycle: q(1) = 2 + V(0) / 2.
    """

    def step(state, action):
        return Evaluation(1 - state, 1 + state[:, 0], torch.zeros(1))

    zero = torch.zeros(1)
    root = Evaluation(torch.zeros(1, 1), zero, zero, torch.zeros(1, 1))
    tree = search(
        root, step, simulations=3, generator=seeded(), rule=UCT(), discount=0.5, merge=True
    )
    assert tree.transpositions[0].tolist() == [0, 1, 0, 0]
    assert tree.parents[0].tolist() == [-1, 0, 1, -1]
    q0 = 2 * 1.5625 / 3
    q1 = 2 + q0 / 2
    v1 = 2 * q1 / 3
    assert tree.forest.edges["q"][0, 1, 0] == pytest.approx(q1)
    assert tree.values[0, 1] == pytest.approx(v1)
    assert tree.children_values()[0, 0] == pytest.approx(1 + v1 / 2)
    assert tree.values[0, 0] == pytest.approx(3 * (1 + v1 / 2) / 4)
    assert tree.visits[0].tolist() == [4, 3, 2, 0]
    with pytest.raises(ValueError, match="a tree with transpositions has no subtrees"):
        tree.after(tree.action)


def test_a_start_and_drawn_outcomes_are_refused_with_merge():
    root, step, options, _, _ = world()
    with pytest.raises(ValueError, match="merge cannot be combined with a start or with drawn"):
        search(root, step, simulations=5, merge=True, **options | {"outcomes": Widening()})


@pytest.mark.parametrize(
    "rule", [UCT(), PUCT(dirichlet=0.0, temperature=0.0), Gumbel(scale=0.0)], ids=str
)
def test_max_backup_gives_a_node_the_value_of_its_best_action(rule):
    root, step = table_model(golden.problem("puct"))
    tree = search(
        root, step, simulations=60, generator=seeded(), rule=rule, discount=0.9, backup="max"
    )
    edges = tree.forest.edges
    best = np.where(edges["visits"] > 0, edges["q"], -np.inf).max(-1)
    inner = np.isfinite(best)
    assert inner.sum() > 30
    np.testing.assert_array_equal(tree.values.numpy()[inner], best[inner])
    leaves = ~inner & (tree.visits.numpy() > 0)
    np.testing.assert_array_equal(tree.values.numpy()[leaves], tree.raw_values.numpy()[leaves])
    below = tree.children[0, 0].clamp_min(0)
    q = tree.rewards[0, below] + tree.discounts[0, below] * tree.values[0, below]
    tried = tree.children[0, 0] >= 0
    assert torch.allclose(q[tried], tree.children_values()[0][tried])


def test_max_backups_through_merged_states_are_exact():
    """Dynamic programming along the simulations gives V* in float32, in a world with cycles."""
    root, step, options, values, q = world(discount=0.9)
    options |= {"rule": UCT(5.0), "merge": True, "backup": "max"}
    tree = search(root, step, simulations=600, **options)
    assert torch.allclose(tree.children_values(), q, rtol=1e-4)
    assert torch.allclose(tree.value, values, rtol=1e-4)
    assert (tree.action == q.argmax(1)).all()
    with pytest.raises(ValueError, match="backup must be 'mean' or 'max', got 'min'"):
        search(root, step, simulations=5, **options | {"backup": "min"})
