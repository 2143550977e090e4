"""Finite MDPs as a model for tree search; what it steps to is tested with the study of trees."""

import numpy as np

from mbrl.tabular.tree_model import walk


def test_walks_by_hand_compiled_or_not():
    # State 0 goes to 1 for 8 by action 0, stays for 1 by action 1; state 1 goes to 2 for 4 or
    # back for 0, with chances 1/4 and 3/4, whatever is done; 2 is terminal.
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
    assert walk.py_func(*args).tolist() == [1 + 8 / 2 + 4 / 4, 8 + 8 / 4, 0]
    assert walk(*args).tolist() == walk.py_func(*args).tolist()
