"""Models counted from samples have the error of the mean of as many draws."""

import numpy as np
import pytest

from envs.tabular import FiniteMDP
from envs.worlds import frozen_lake
from mbrl.tabular.counted import counted_errors, counted_models


def test_a_counted_model_has_the_error_of_a_mean_of_its_draws():
    """A state leads with probability ½ to one that pays 1, else to the end: V = γ · share."""
    rows = np.zeros((3, 1, 3))
    rows[0, 0, 1:] = 0.5
    rows[1, 0, 2] = 1.0
    coin = FiniteMDP(rows, np.array([[0.0], [1.0], [0.0]]), 0.8, 0, [2])
    best = np.array([0.4, 1.0, 0.0])
    n = 2000  # half of the draws are for the other state
    found = [
        counted_errors(coin, best, [n, 100 * n], rng=np.random.default_rng(seed))
        for seed in range(60)
    ]
    want = 0.8 * 0.5 / np.sqrt([n / 2, 50 * n])  # γ σ / √visits
    assert np.sqrt(np.square(found).mean(0)) == pytest.approx(want, rel=0.25)


def test_counted_models_grow_and_contain_the_drawn_rewards():
    lake = frozen_lake()
    few, many = counted_models(lake, [10, 200_000], rng=np.random.default_rng(0))
    known = lake.rewards[~lake.terminal]
    assert few.rewards.max() <= known.max()
    assert many.rewards[0][~lake.terminal] == pytest.approx(known)
    kernel = many.mdp(0.9).transitions.toarray()
    assert np.abs(kernel - lake.transitions.toarray()).max() < 0.03
    with pytest.raises(ValueError, match=r"rising, got \[10, 10\]"):
        next(counted_models(lake, [10, 10], rng=np.random.default_rng(0)))
