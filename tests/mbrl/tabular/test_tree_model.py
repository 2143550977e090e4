"""Finite MDPs as a model for tree search; its steps are tested with the study of trees."""

import numpy as np
import pytest
import torch

from envs.worlds import chain, frozen_lake
from mbrl.tabular.tree_model import ScaledTreeModel, rollout_returns
from planners.mcts import UCT


def test_returns_of_walks_equal_hand_computed_values_compiled_or_not():
    # State 0 goes to 1 for 8 by action 0, stays for 1 by action 1; state 1 goes to 2 for 4 or
    # back for 0, with probabilities 1/4 and 3/4, for any action; 2 is terminal.
    targets = np.array([[1, 0], [0, 0], [2, 0], [2, 0], [0, 0], [0, 0]])
    upto = np.array([[np.inf, np.inf]] * 2 + [[0.25, np.inf]] * 2 + [[np.inf, np.inf]] * 2)
    pays = np.array([[8.0, 0], [1, 0], [4, 0], [4, 0], [0, 0], [0, 0]])
    end = np.array([False, False, True])
    draws = np.array(
        [
            [[0.9, 0.5], [0.1, 0.5], [0.3, 0.2], [0.0, 0.0]],  # stays, goes, ends: 1, 8, 4
            [[0.1, 0.5], [0.8, 0.25], [0.4, 0.9], [0.7, 0.3]],  # goes, back, goes, back
            [[0.1, 0.5]] * 4,
        ]
    )
    args = np.array([0, 0, 2]), draws, 2, 0.5, end, targets, upto, pays
    assert rollout_returns.py_func(*args).tolist() == [1 + 8 / 2 + 4 / 4, 8 + 8 / 4, 0]
    assert rollout_returns(*args).tolist() == rollout_returns.py_func(*args).tolist()


def test_errors_and_losses_on_the_chain_equal_hand_computed_values():
    """Forward is best everywhere: V* is 10 γ^k / (1 - γ); back pays 2 and leads to 0."""
    world = chain(slip=0.0, discount=0.8)
    model = ScaledTreeModel([world], rng=np.random.default_rng(0))
    random = world.evaluate(world.uniform_policy)
    unit, start = 10 / 0.2 - random.min(), np.array([1, 4])
    best = np.array([50 * 0.8**3, 50.0])
    assert model.values[start] * unit == pytest.approx(best)
    share, gap = model.stakes(start)
    assert share.tolist() == [0.5, 0.5]
    assert gap * unit == pytest.approx(best - (2 + 0.8 * 50 * 0.8**4))
    tree = model.search(
        start, UCT(), simulations=2000, least=1e-3, generator=torch.Generator().manual_seed(0),
        merge=True, backup="max",
    )  # fmt: skip
    found = model.errors(tree, start)
    assert found.optimal.tolist() == [True, True] and found.chosen.max() < 1e-3
    q = tree.children_values().numpy()[[0, 1], tree.action.numpy()]
    assert found.chosen == pytest.approx(np.abs(q - best / unit))
    assert found.mean == pytest.approx(np.abs(tree.value.numpy() - best / unit))


def test_a_search_without_a_depth_needs_a_discount_below_one():
    model = ScaledTreeModel([frozen_lake(discount=1.0)], rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.0"):
        model.search(np.array([0]), UCT(), simulations=1, generator=torch.Generator())
