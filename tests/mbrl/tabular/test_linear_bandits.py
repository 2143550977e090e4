"""Linear bandits: ridge regression, posteriors and confidence ellipsoids, and their regret."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mbrl.tabular import UCB1, LinearThompson, LinUCB
from mbrl.tabular.bandits import regret
from mbrl.tabular.linear_bandits import linear_regret


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear_data(runs=3, size=4, plays=30):
    rng = np.random.default_rng(0)
    return rng.standard_normal((plays, runs, size)), rng.standard_normal((plays, runs))


def test_linucb_estimates_equal_ridge_regression():
    x, r = linear_data()
    bandit = LinUCB(3, 4, ridge=0.5, noise=2.0, delta=0.1, norm=3.0)
    for row, reward in zip(x, r, strict=True):
        bandit.observe(torch.tensor(row), torch.tensor(reward))
    offered = np.random.default_rng(1).standard_normal((3, 5, 4))
    index = bandit.index(torch.tensor(offered), generator=seeded())
    for i in range(3):
        # ridge regression as least squares with √λ rows of zeros below
        rows = np.concatenate((x[:, i], math.sqrt(0.5) * np.eye(4)))
        theta = np.linalg.lstsq(rows, np.concatenate((r[:, i], np.zeros(4))))[0]
        np.testing.assert_allclose(bandit.estimate[i], theta, rtol=1e-9)
        gram = rows.T @ rows
        np.testing.assert_allclose(bandit.covariance[i], np.linalg.inv(gram), rtol=1e-9)
        ratio = math.sqrt(np.linalg.det(gram)) / math.sqrt(0.5**4)
        radius = 2 * math.sqrt(2 * math.log(ratio / 0.1)) + math.sqrt(0.5) * 3
        assert bandit.radius[i].item() == pytest.approx(radius)
        width = [math.sqrt(a @ np.linalg.solve(gram, a)) for a in offered[i]]
        np.testing.assert_allclose(index[i], offered[i] @ theta + radius * np.array(width))
    assert (LinUCB(3, 4, alpha=1.5).radius == 1.5).all()


def test_linear_thompson_draws_from_the_posterior():
    """Mean and covariance of Bayesian regression with prior Normal(0, noise² / λ)."""
    x, r = linear_data(runs=1, size=2, plays=5)
    bandit = LinearThompson(20_000, 2, ridge=0.5, noise=2.0)
    for row, reward in zip(x, r, strict=True):
        bandit.observe(torch.tensor(row).expand(20_000, 2), torch.tensor(reward).expand(20_000))
    draws = bandit.draw(generator=seeded()).numpy()
    precision = np.eye(2) * 0.5 / 4 + x[:, 0].T @ x[:, 0] / 4
    mean = np.linalg.solve(precision, x[:, 0].T @ r[:, 0] / 4)
    exact = stats.multivariate_normal(mean, np.linalg.inv(precision))
    white = (draws - mean) @ np.linalg.cholesky(precision)
    for column in (*white.T, white.sum(1) / math.sqrt(2)):
        assert stats.kstest(column, stats.norm.cdf).pvalue > 1e-3
    assert np.cov(draws.T) == pytest.approx(exact.cov, rel=0.05)


def arms_on_a_sphere(runs, arms, size):
    def features(generator):
        x = torch.randn(runs, arms, size, generator=generator)
        return x / x.norm(dim=-1, keepdim=True)

    return features


def held(said, runs=400, steps=300, noise=0.5, delta=0.1):
    """Share of the runs whose ellipsoid, for the noise `said`, contains θ at all steps."""
    generator = seeded()
    theta = torch.randn(runs, 3, generator=generator).double()
    theta /= theta.norm(dim=1, keepdim=True)
    features = arms_on_a_sphere(runs, 5, 3)
    bandit = LinUCB(runs, 3, noise=said, delta=delta)
    inside = torch.ones(runs, dtype=torch.bool)
    for _ in range(steps):
        offered = features(generator)
        arm = bandit.choose(offered, generator=generator)
        x = offered[torch.arange(runs), arm].double()
        draws = torch.randn(runs, generator=generator)
        bandit.observe(x, (x * theta).sum(1) + noise * draws)
        off = theta - bandit.estimate
        distance = (off * torch.linalg.solve(bandit.covariance, off)).sum(1).sqrt()
        inside &= distance <= bandit.radius
    return inside.double().mean()


def test_confidence_ellipsoids_contain_the_parameters_at_all_times():
    assert held(said=0.5) >= 0.9
    assert held(said=0.1) < 0.8  # not if the noise is five times as large as assumed


def test_using_features_lowers_the_regret():
    """Fifty arms with three features: UCB1 must try all arms, linear bandits need not."""
    table = torch.randn(50, 3, generator=seeded(3)).double()
    table /= table.norm(dim=1, keepdim=True)
    theta = torch.tensor([0.5, -0.3, 0.4]).double()
    means = 0.5 + table @ theta / 2
    fixed = table.expand(50, 50, 3)
    lost = {
        kind.__name__: linear_regret(
            kind(50, 3, noise=0.5), theta / 2, lambda _: fixed, steps=400, generator=seeded()
        )[:, -1].mean()
        for kind in (LinUCB, LinearThompson)
    }
    blind = regret(UCB1(50, 50), means, steps=400, generator=seeded())[:, -1].mean()
    assert lost["LinearThompson"] < lost["LinUCB"] < 0.7 * blind


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinUCB(1, 0), "features must be an integer of at least 1, got 0"),
        (lambda: LinUCB(1, 2, delta=1.0), r"delta must lie in \(0, 1\), got 1.0"),
        (lambda: LinUCB(1, 2, ridge=0.0), "ridge must be positive and finite, got 0.0"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_observations_are_refused_by_name():
    bandit = LinUCB(2, 3)
    with pytest.raises(ValueError, match=r"features must be finite, \(R, K, F\) with R = 2"):
        bandit.choose(torch.zeros(2, 5, 4), generator=seeded())
    with pytest.raises(ValueError, match=r"features must be finite, \(R, F\) = \(2, 3\)"):
        bandit.observe(torch.full((2, 3), math.nan), torch.zeros(2))
    with pytest.raises(ValueError, match=r"theta must be \(F,\) = \(3,\)"):
        linear_regret(
            bandit, torch.zeros(2), arms_on_a_sphere(2, 4, 3), steps=1, generator=seeded()
        )
