"""Curves of regret against hand-computed sums, and bandits without features."""

import numpy as np
import pytest
import torch

from mbrl.tabular import UCB1, EpsilonGreedy
from mbrl.tabular.bandits import auer_epsilon, regret
from mbrl.tabular.regret import RegretCurve, featureless_regret, regret_curve


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_slope_of_a_logarithm_is_its_factor():
    at = np.unique(np.geomspace(1, 10_000, 50).round())
    curve = RegretCurve(at.tolist(), (5 + 3 * np.log(at)).tolist(), [0.0] * len(at))
    assert curve.late_slope == pytest.approx(3)


def test_pooling_two_seeds_equals_a_hand_computed_value():
    """Means are averaged; errors 3 and 4 of independent halves give 5 / 2."""
    parts = [RegretCurve([1], [m], [e]) for m, e in ((1.0, 3.0), (2.0, 4.0))]
    assert RegretCurve.pooled(parts) == RegretCurve([1], [1.5], [2.5])
    with pytest.raises(ValueError, match="at the same plays"):
        RegretCurve.pooled([parts[0], RegretCurve([2], [1.0], [0.0])])
    with pytest.raises(ValueError, match="one or more"):
        RegretCurve.pooled([])


def test_a_curve_has_means_and_errors_of_its_plays():
    lost = torch.tensor([[1.0, 2.0, 3.0], [3.0, 6.0, 9.0]])
    curve = RegretCurve.of(lost, points=2)
    assert curve == RegretCurve([1, 3], [2.0, 6.0], pytest.approx([1.0, 3.0]))  # std √2, 3√2


def test_a_curve_in_parts_continues_the_regret():
    """With ε = 1, uniform play, every play costs the mean gap, 0.15."""
    means, calls = torch.tensor([0.6, 0.5, 0.4, 0.3]), []
    curve = regret_curve(
        EpsilonGreedy(400, 4, epsilon=1.0), means, plays=250, generator=seeded(),
        callback=lambda: calls.append(None),
    )  # fmt: skip
    assert curve.plays[-1] == 250 and len(calls) == 3
    assert curve.mean[-1] == pytest.approx(250 * 0.15, rel=0.03)
    whole = regret(EpsilonGreedy(400, 4, epsilon=1.0), means, steps=80, generator=seeded())
    short = regret_curve(EpsilonGreedy(400, 4, epsilon=1.0), means, plays=80, generator=seeded())
    assert short == RegretCurve.of(whole)


def test_auers_schedule_equals_hand_computed_values():
    schedule = auer_epsilon([0.4, 0.6, 0.5, 0.3], factor=0.2)  # c K / d² = 80
    assert [schedule(t) for t in (1, 80, 160, 800)] == pytest.approx([1.0, 1.0, 0.5, 0.1])
    with pytest.raises(ValueError, match=r"must differ, got 0.5 twice"):
        auer_epsilon([0.5, 0.5], factor=0.2)


def test_without_features_arms_are_identified_by_position():
    """One arm pays 1 and one 0, without noise."""
    theta = torch.tensor([[1.0, 0.0]] * 3, dtype=torch.float64)
    arms = torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    bandit = UCB1(3, 2)
    lost = featureless_regret(
        bandit, theta, lambda generator: arms, steps=60, noise=0.0, bound=1.0, generator=seeded()
    )
    assert lost.shape == (3, 60)
    assert (lost[:, -1] == bandit.counts[:, 1]).all()  # a play of the second arm costs 1
    assert bandit.means.tolist() == [[1.0, 0.5]] * 3  # (r + 1) / 2
    shuffled = featureless_regret(
        UCB1(200, 2), theta[:1].expand(200, 2),
        lambda generator: torch.where(
            torch.rand(200, 1, 1, generator=generator) < 0.5, arms[:1], arms[:1].flip(1)
        ),
        steps=300, noise=0.0, bound=1.0, generator=seeded(),
    )  # fmt: skip
    assert shuffled[:, -1].mean() == pytest.approx(150, rel=0.03)  # uninformative: one in two
