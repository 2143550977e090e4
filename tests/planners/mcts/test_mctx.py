"""Trees equal those of mctx, node for node."""

import numpy as np
import pytest
import torch

from experiments.peers import Mctx, available
from planners.mcts import PUCT, Gumbel, search
from tests.planners.mcts import golden_mctx as golden
from tests.planners.mcts.models import seeded, table_model


def rule_of(case):
    """A rule with mctx's settings."""
    if case["rule"] == "puct":
        return PUCT(
            init=case.get("pb_c_init", 1.25),
            base=case.get("pb_c_base", 19652.0),
            dirichlet=case["dirichlet_fraction"],
            temperature=0.0,
        )
    return Gumbel(considered=case.get("max_num_considered_actions", 16))


def ours(name):
    case, table = golden.CASES[name], golden.problem(name)
    noise = table.get("noise", np.zeros((golden.ROOTS, golden.ACTIONS)).tolist())
    root, step = table_model(table)
    return search(
        root,
        step,
        simulations=golden.SIMULATIONS,
        generator=seeded(),
        rule=rule_of(case),
        discount=0.9,
        max_depth=case.get("max_depth"),
        noise=torch.tensor(noise),
    )


@pytest.fixture(scope="module")
def stored():
    return np.load(golden.FILE, allow_pickle=False)


@pytest.mark.parametrize("name", golden.CASES)
def test_the_tree_equals_that_of_mctx(name, stored):
    tree = ours(name)
    want = {k: stored[f"{name}/{k}"] for k in (*golden_keys(), "action", "policy")}
    made = tree.visits.numpy() > 0  # mctx also adds nodes below terminal ones
    assert (want["node_visits"][made] == tree.visits.numpy()[made]).all()
    assert "ends" in golden.CASES[name] or made.all() or "three deep" in name
    ended = (tree.discounts.numpy() == 0) & (tree.parents.numpy() >= 0)
    live = made & ~ended
    assert want["node_values"][live] == pytest.approx(tree.values.numpy()[live], abs=2e-5)
    assert (want["parents"][made] == tree.parents.numpy()[made]).all()
    inner = made & (tree.parents.numpy() >= 0)
    assert (want["action_from_parent"][inner] == tree.moves.numpy()[inner]).all()
    assert (want["children_index"][live] == tree.children.numpy()[live]).all()
    assert want["action"].tolist() == tree.action.tolist()
    assert want["policy"] == pytest.approx(tree.policy.numpy(), abs=1e-5)


def golden_keys():
    return ("node_visits", "node_values", "parents", "action_from_parent", "children_index")


@pytest.mark.skipif(not available(Mctx), reason="mctx is not installed: make peers")
def test_the_stored_trees_equal_those_of_mctx(stored):
    with Mctx() as peer:
        for name in golden.CASES:
            for key, value in golden.ask(peer, name).items():
                assert value == pytest.approx(stored[f"{name}/{key}"], abs=1e-6), (name, key)
