"""Outcomes that a model returns with their probabilities."""

import numpy as np
import pytest
import torch

from planners.mcts import PUCT, UCT, Evaluation, Gumbel, search
from tests.planners.mcts.models import doubtful, world


@pytest.mark.parametrize(
    "rule", [UCT(), PUCT(dirichlet=0.0, temperature=0.0), Gumbel(scale=0.0)], ids=str
)
def test_q_and_its_epistemic_variance_are_expectations_over_an_actions_outcomes(rule):
    root, step, options, _, _ = world()
    tree = search(root, doubtful(step), simulations=300, rule=rule, **options)
    nodes, edges = tree.forest.nodes, tree.forest.edges
    for b in range(5):
        for n in np.flatnonzero(nodes["visits"][b]):
            node, own = nodes[b, n], edges[b, n]
            if node["terminal"]:
                continue
            seen, means = own["visits"], own["q"].astype(float)
            assert node["visits"] == 1 + seen.sum()
            total = node["raw"] + (seen * means).sum()
            assert node["value"] == pytest.approx(total / node["visits"], abs=1e-4)
            doubt = 0 if n == 0 else 4 + float(tree.states[b, n, 0])
            doubt += (seen * own["variance"].astype(float)).sum()
            assert node["variance"] == pytest.approx(doubt / node["visits"], abs=1e-4)
            for a in np.flatnonzero(seen):
                below = [own["child"][a]]
                while (other := nodes["sibling"][b, below[-1]]) >= 0:
                    below.append(other)
                x = nodes[b, below]
                assert len(x) == (2 if a == 0 else 3)
                assert x["chance"].sum() == pytest.approx(1)
                worth = x["chance"] * (x["reward"] + x["discount"] * x["value"])
                assert own["q"][a] == pytest.approx(worth.sum(), abs=1e-5)
                spread = (x["chance"] * x["discount"] ** 2 * x["variance"]).sum()
                assert own["variance"][a] == pytest.approx(spread, abs=1e-5)
                live = x[~x["terminal"]]
                assert (x["visits"][x["terminal"]] == 1).all() or not len(live)
                if seen[a] > 100 and len(live) > 1:
                    shares = live["visits"] / live["visits"].sum()
                    assert shares == pytest.approx(live["chance"] / live["chance"].sum(), abs=0.02)


def test_search_with_exact_outcomes_converges_to_the_optimum():
    root, step, options, values, q = world(discount=0.5)
    rule = PUCT(dirichlet=0.0, temperature=0.0)
    errors = []
    for simulations in (100, 10_000):
        tree = search(root, step, simulations=simulations, rule=rule, **options)
        chosen = tree.children_values().gather(1, tree.action[:, None])[:, 0]
        errors.append((chosen - values).abs().max())
    assert (tree.action == q.argmax(1)).all()
    assert errors[0] < 0.1
    assert errors[1] < errors[0] * 100 ** (-1 / 3)


def test_a_search_continues_from_the_outcome_that_occurred():
    root, step, options, _, _ = world()
    rule = PUCT(dirichlet=0.0, temperature=0.0)
    tree = search(root, step, simulations=200, rule=rule, **options)
    came = []
    for b in range(5):
        child = int(tree.children[b, 0, tree.action[b]])
        came.append(int(tree.siblings[b, child]))  # not the first
    state = tree.states[torch.arange(5), came]
    kept = tree.after(tree.action, state)
    for b in range(5):
        assert kept.visits[b, 0] == tree.visits[b, came[b]]
        assert kept.values[b, 0] == tree.values[b, came[b]]
        assert torch.equal(kept.states[b, 0], state[b])
        assert kept.visits[b, 0] == 1 + kept.children_visits()[b].sum()
    here = Evaluation(state, root.reward, root.value, torch.zeros(5, 3))
    more = search(here, step, simulations=50, rule=rule, start=kept, **options)
    assert torch.equal(more.visits[:, 0], kept.visits[:, 0] + 50)
