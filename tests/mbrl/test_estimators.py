"""Against exact expectations: of finite distributions, in closed form, and within intervals."""

import itertools
import math

import pytest
import torch
from scipy import integrate, stats

from mbrl.estimators import (
    categorical_entropy,
    categorical_kl,
    check_support,
    effective_sample_size,
    gaussian_entropy,
    gaussian_kl,
    importance_sampling,
    importance_variance,
    monte_carlo_entropy,
    monte_carlo_kl,
    optimal_baseline,
    pathwise_gradient,
    per_decision_importance_sampling,
    score_function_gradient,
)

NAN = math.nan
X = torch.tensor([-1.0, 1.0], dtype=torch.float64)
P = torch.tensor([0.2, 0.8], dtype=torch.float64)
Q = torch.tensor([0.5, 0.5], dtype=torch.float64)
Z = 4.0
"""Half width of intervals, in standard errors: a right estimate is outside once in 16,000 draws."""


def normal(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


def log_normal(x, mean=0.0, std=1.0):
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))


# Importance sampling.


def test_the_two_point_case():
    """x = -1 and 1 once each, as often as q = (.5, .5) draws them: E_p x = 0.6."""
    assert importance_sampling(X, P.log(), Q.log()).item() == pytest.approx(0.6)
    assert importance_sampling(X, P.log(), Q.log(), normalised=True).item() == pytest.approx(0.6)


def test_the_two_point_case_from_samples():
    g = torch.Generator().manual_seed(0)
    k = torch.randint(2, (100_000,), generator=g)
    error = Z * importance_variance(X, P, Q).sqrt().item() / math.sqrt(100_000)
    for normalised in (False, True):
        found = importance_sampling(X[k], P[k].log(), Q[k].log(), normalised=normalised)
        assert found.item() == pytest.approx(0.6, abs=error)
    assert error < 0.02


def test_self_normalised_weights_by_hand():
    log_p, log_q = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).double().log()
    value = torch.tensor([[1.0, 10.0], [5.0, 50.0]]).double()
    both = (log_p.unsqueeze(-1).expand(2, 2), log_q.unsqueeze(-1).expand(2, 2))
    found = importance_sampling(value, *both, normalised=True)
    assert found.tolist() == pytest.approx([0.75 * 1 + 0.25 * 5, 20])
    plain = importance_sampling(value, *both)
    assert plain.tolist() == pytest.approx([(3 * 1 + 1 * 5) / 2, 40])
    scaled = importance_sampling(value, both[0] + 700, both[1] - 700, normalised=True)
    assert scaled.tolist() == pytest.approx(found.tolist())  # constants cancel, without overflow


def test_the_variance_identity():
    """Var_q[f p/q] = E_p[f² p/q] - (E_p f)², by hand and against its definition."""
    assert importance_variance(X, P, Q).item() == pytest.approx(0.2 * 0.4 + 0.8 * 1.6 - 0.36)
    for seed in range(5):
        value = normal(6, seed=seed)
        p, q = normal(6, seed=seed + 10).softmax(0), normal(6, seed=seed + 20).softmax(0)
        weighted = value * p / q
        variance = (q * weighted**2).sum() - (q * weighted).sum() ** 2
        torch.testing.assert_close(importance_variance(value, p, q), variance)


def test_sampling_by_size_has_no_variance():
    value = torch.tensor([1.0, 4.0]).double()
    q = value * P / (value * P).sum()
    assert importance_variance(value, P, q).item() == pytest.approx(0, abs=1e-12)


def test_points_that_p_does_not_reach_do_not_matter():
    p, q = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.0, 0.5])
    assert importance_variance(torch.tensor([7.0, 8.0, 2.0]), p, q).item() == pytest.approx(4.0)


def test_where_q_is_0_and_p_is_not_is_an_error():
    with pytest.raises(ValueError, match="q: is 0 at point 1, where p is 0.8"):
        check_support(P, torch.tensor([1.0, 0.0]).double())
    with pytest.raises(ValueError, match="q: is 0 at point 1"):
        importance_variance(X, P, torch.tensor([1.0, 0.0]).double())
    log_q = torch.tensor([1.0, 0.0]).double().log()
    for call in (
        lambda: importance_sampling(X, P.log(), log_q),
        lambda: importance_sampling(X, P.log(), log_q, normalised=True),
        lambda: per_decision_importance_sampling(X[None], P.log()[None], log_q[None], discount=0.9),
    ):
        with pytest.raises(ValueError, match="log_q: is -inf at a sample"):
            call()
    check_support(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))


def test_effective_sample_size_by_hand():
    assert effective_sample_size(torch.full((7,), -900.0)).item() == pytest.approx(7)
    weights = torch.tensor([0.5, 0.25, 0.25])
    assert effective_sample_size(weights.log()).item() == pytest.approx(1 / 0.375)
    one = torch.tensor([0.0, -math.inf, -math.inf])
    assert effective_sample_size(one).item() == 1


def test_effective_sample_size_collapses_as_p_and_q_part():
    """For N(m, 1) from samples of N(0, 1) it is about N exp(-m²), until few samples are left."""
    x = normal(100_000)
    sizes = [
        effective_sample_size(log_normal(x, m) - log_normal(x)).item() for m in (0, 0.5, 1, 2, 6)
    ]
    assert sizes[:3] == pytest.approx([100_000 * math.exp(-(m**2)) for m in (0, 0.5, 1)], rel=0.05)
    assert all(a > 2 * b for a, b in itertools.pairwise(sizes[1:]))
    assert sizes[0] > sizes[1]
    assert sizes[-1] < 20


def test_per_decision_importance_sampling_by_hand():
    reward = torch.tensor([[1.0], [2.0]])
    log_p, log_q = torch.tensor([[0.5], [0.6]]).log(), torch.tensor([[0.25], [0.2]]).log()
    found = per_decision_importance_sampling(reward, log_p, log_q, discount=0.5)
    assert found.item() == pytest.approx(2 * 1 + 0.5 * 6 * 2)


def test_per_decision_importance_sampling_is_unbiased_and_varies_less():
    """All trajectories of two steps once, as a uniform q draws them, against the exact return."""
    trajectories = [*itertools.product(range(2), range(2))]
    first, second = torch.tensor([0.3, 0.7]), torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    rewards = [torch.tensor([3.0, -1.0]), torch.tensor([[2.0, 5.0], [1.0, -4.0]])]
    p = torch.tensor([[first[a], second[a, b]] for a, b in trajectories]).T
    reward = torch.tensor([[rewards[0][a], rewards[1][a, b]] for a, b in trajectories]).T
    exact = sum(p[:, i].prod() * (reward[0, i] + 0.9 * reward[1, i]) for i in range(4))
    log_q = torch.full((2, 4), math.log(0.5))
    found = per_decision_importance_sampling(reward, p.log(), log_q, discount=0.9)
    assert found.item() == pytest.approx(exact.item())
    whole = importance_sampling(reward[0] + 0.9 * reward[1], p.log().sum(0), log_q.sum(0))
    assert whole.item() == pytest.approx(exact.item())
    columns = [
        per_decision_importance_sampling(
            reward[:, i : i + 1], p[:, i : i + 1].log(), log_q[:, i : i + 1], discount=0.9
        )
        for i in range(4)
    ]
    each_whole = (reward[0] + 0.9 * reward[1]) * p.prod(0) / 0.25
    assert torch.stack(columns).var() < each_whole.var()


# Entropy and KL.


def test_kl_of_two_gaussians_is_the_same_both_ways_for_equal_std():
    five, two, one = torch.tensor([5.0]), torch.tensor([2.0]), torch.tensor([1.0])
    assert gaussian_kl(five, one, two, one).item() == pytest.approx(4.5)
    assert gaussian_kl(two, one, five, one).item() == pytest.approx(4.5)


def test_gaussian_kl_and_entropy_against_integration():
    mean, std, other_mean, other_std = 0.3, 0.8, -0.5, 1.7
    p, q = stats.norm(mean, std), stats.norm(other_mean, other_std)

    def integral(f):
        return integrate.quad(f, -12, 12, limit=200)[0]

    kl = integral(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)))
    args = (torch.tensor([x], dtype=torch.float64) for x in (mean, std, other_mean, other_std))
    assert gaussian_kl(*args).item() == pytest.approx(kl, abs=1e-8)
    entropy = integral(lambda x: -p.pdf(x) * p.logpdf(x))
    found = gaussian_entropy(torch.tensor([std], dtype=torch.float64))
    assert found.item() == pytest.approx(entropy, abs=1e-8)


def test_dimensions_add_and_others_are_separate():
    std = torch.tensor([[0.5, 2.0], [1.0, 3.0]])
    zeros, ones = torch.zeros(2, 2), torch.ones(2, 2)
    each = torch.stack([gaussian_entropy(std[:, d : d + 1]) for d in range(2)])
    torch.testing.assert_close(gaussian_entropy(std), each.sum(0))
    expected = (std**2 / 2 - 0.5 - std.log()).sum(-1)
    torch.testing.assert_close(gaussian_kl(zeros, std, zeros, ones), expected)


def test_categorical_entropy_and_kl_by_hand():
    p = torch.tensor([0.25, 0.25, 0.5])
    uniform = torch.full((3,), 1 / 3)
    assert categorical_entropy(p).item() == pytest.approx(1.5 * math.log(2))
    assert categorical_kl(p, uniform).item() == pytest.approx(math.log(3) - 1.5 * math.log(2))
    certain = torch.tensor([0.0, 0.0, 1.0])
    assert categorical_entropy(certain).item() == 0
    assert categorical_kl(certain, p).item() == pytest.approx(math.log(2))
    assert categorical_kl(p, certain).item() == math.inf


def test_monte_carlo_estimates_agree_with_the_closed_forms():
    x = 5 + normal(100_000)
    log_p, log_q = log_normal(x, 5), log_normal(x, 2)
    error = Z * 3 / math.sqrt(100_000)  # log p / q is Gaussian with std 3
    assert monte_carlo_kl(log_p, log_q).item() == pytest.approx(4.5, abs=error)
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    error = Z * math.sqrt(0.5) / math.sqrt(100_000)  # the std of x² / 2
    assert monte_carlo_entropy(log_p).item() == pytest.approx(entropy, abs=error)


def test_k3_is_unbiased_never_negative_and_varies_less():
    x = normal(2000, 50)  # 50 estimates from 2000 samples each
    log_p, log_q = log_normal(x), log_normal(x, 0.1)
    k1, k3 = (monte_carlo_kl(log_p, log_q, estimator=name) for name in ("k1", "k3"))
    assert k3.shape == (50,)
    for found in (k1, k3):
        interval = Z * found.std().item() / math.sqrt(50)
        assert found.mean().item() == pytest.approx(0.005, abs=interval)
    assert k3.min() > 0 > k1.min()
    assert k3.std() < 0.2 * k1.std()


# Gradients.


def wavy(x):
    return x[:, 0] ** 2 + torch.sin(x[:, 1])


MEAN = torch.tensor([0.7, 0.4], dtype=torch.float64)
STD = torch.tensor([0.5, 0.8], dtype=torch.float64)
# E f = μ₀² + σ₀² + exp(-σ₁² / 2) sin μ₁
DAMPED = math.exp(-0.32)
EXACT_MEAN = torch.tensor([1.4, DAMPED * math.cos(0.4)], dtype=torch.float64)
EXACT_STD = torch.tensor([1.0, -0.8 * DAMPED * math.sin(0.4)], dtype=torch.float64)


def test_the_exact_gradient_of_the_test_is_right():
    mean, std = MEAN.clone().requires_grad_(), STD.clone().requires_grad_()
    expectation = mean[0] ** 2 + std[0] ** 2 + (-(std[1] ** 2) / 2).exp() * mean[1].sin()
    by_integration = integrate.quad(
        lambda x: math.sin(x) * stats.norm.pdf(x, 0.4, 0.8), -8, 9, limit=200
    )[0]
    assert expectation.item() == pytest.approx(0.49 + 0.25 + by_integration)
    found = torch.autograd.grad(expectation, (mean, std))
    torch.testing.assert_close(found, (EXACT_MEAN, EXACT_STD))


def test_both_gradients_are_unbiased_and_the_pathwise_one_varies_less():
    count = 200_000
    noise = normal(count, 2)
    score = score_function_gradient(wavy, MEAN, STD, noise)
    pathwise = pathwise_gradient(wavy, MEAN, STD, noise)
    for found in (score, pathwise):
        for rows, exact in zip(found, (EXACT_MEAN, EXACT_STD), strict=True):
            interval = Z * rows.std(0) / math.sqrt(count)
            assert ((rows.mean(0) - exact).abs() < interval).all()
            assert (interval < exact.abs() / 2).all()  # a wrong sign or factor is outside
    assert (pathwise.mean.var(0) < score.mean.var(0)).all()
    assert (pathwise.std.var(0) < score.std.var(0)).all()


def test_rows_of_both_gradients_by_hand():
    one = torch.ones(1)
    found = score_function_gradient(lambda x: 3 * x[:, 0], one, 2 * one, torch.tensor([[0.5]]))
    # x = 2, f = 6, (x - μ) / σ² = 0.25, ((x - μ)² / σ² - 1) / σ = -0.375
    assert [rows.item() for rows in found] == [1.5, -2.25]
    found = pathwise_gradient(lambda x: x[:, 0] ** 2, one, 2 * one, torch.tensor([[0.5]]))
    assert [rows.item() for rows in found] == [4, 2]


def test_a_baseline_lowers_the_variance_and_not_the_mean():
    count = 200_000
    noise = normal(count, 2, seed=1)
    plain = score_function_gradient(lambda x: wavy(x) + 10, MEAN, STD, noise)
    less = score_function_gradient(lambda x: wavy(x) + 10, MEAN, STD, noise, baseline=11.0)
    assert (less.mean.var(0) < 0.1 * plain.mean.var(0)).all()
    interval = Z * less.mean.std(0) / math.sqrt(count)
    assert ((less.mean.mean(0) - EXACT_MEAN).abs() < interval).all()


def test_the_optimal_baseline_has_the_least_variance():
    value, score = torch.tensor([1.0, 3.0]), torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    assert optimal_baseline(value, score).tolist() == pytest.approx([(1 + 12) / 5, 0])
    noise = normal(5000, 2)
    value, score = wavy(MEAN + STD * noise), noise / STD
    best = optimal_baseline(value, score)

    def second_moment(baseline):
        return ((value[:, None] - baseline) * score).square().mean(0)

    for other in (best + 0.05, best - 0.05, value.mean()):
        assert (second_moment(other) > second_moment(best)).all()


def test_functions_see_no_gradient_that_they_do_not_need():
    parameter = torch.ones(1, dtype=torch.float64, requires_grad=True)
    noise = normal(3, 2)
    found = score_function_gradient(lambda x: parameter * wavy(x), MEAN, STD, noise)
    assert not found.mean.requires_grad
    with torch.no_grad():
        found = pathwise_gradient(lambda x: parameter * wavy(x), MEAN, STD, noise)
    assert found.mean.isfinite().all()
    assert parameter.grad is None


# NaN and errors.


def test_nan_is_not_hidden():
    bad = torch.tensor([0.0, NAN])
    zeros = torch.zeros(2)
    for call in (
        lambda: importance_sampling(bad, zeros, zeros),
        lambda: importance_sampling(zeros, bad, zeros, normalised=True),
        lambda: effective_sample_size(bad),
        lambda: monte_carlo_kl(bad, zeros),
        lambda: monte_carlo_entropy(bad),
    ):
        assert call().isnan()


HALF = torch.full((2,), 0.5)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: importance_sampling(X, P[:1], Q), "log_p: want the shape (2,) of value"),
        (lambda: importance_sampling(X[:0], P[:0], Q[:0]), "value: want one or more samples"),
        (lambda: importance_sampling(X, P / 0, Q), "log_p: is infinite at a sample"),
        (
            lambda: importance_sampling(X, torch.zeros(2).log(), Q, normalised=True),
            "log_p: is -inf at all samples",
        ),
        (lambda: effective_sample_size(torch.zeros(2).log()), "log_weight: all weights are 0"),
        (
            lambda: per_decision_importance_sampling(X, P, Q, discount=0.9),
            "reward: want the shape (T, N)",
        ),
        (lambda: importance_variance(X, P, Q[:1]), "p and q: want vectors of one size"),
        (lambda: importance_variance(X[:1], P, Q), "value: want the shape (2,) of p"),
        (lambda: importance_variance(X, 2 * P, Q), "p: must be probabilities that sum to 1"),
        (lambda: check_support(P, torch.tensor([1.5, -0.5])), "q: must be probabilities"),
        (lambda: check_support(torch.tensor([NAN, 1.0]), HALF), "p: must be probabilities"),
        (lambda: gaussian_entropy(torch.tensor([0.0])), "std: must be above 0"),
        (lambda: gaussian_entropy(torch.tensor([NAN])), "std: must be above 0"),
        (lambda: gaussian_kl(HALF, HALF, HALF, HALF[:1]), "other_std: want the shape (2,)"),
        (lambda: gaussian_kl(HALF, HALF, HALF, -HALF), "other_std: must be above 0"),
        (lambda: categorical_entropy(2 * HALF), "probs: must be probabilities"),
        (lambda: categorical_kl(HALF, HALF[:1]), "other: want the shape (2,)"),
        (lambda: categorical_kl(HALF, 2 * HALF), "other: must be probabilities"),
        (lambda: monte_carlo_kl(HALF, HALF[:1]), "log_q: want the shape"),
        (lambda: monte_carlo_kl(HALF, HALF, estimator="k2"), "estimator: must be one of k1, k3"),
        (
            lambda: score_function_gradient(wavy, MEAN, STD, normal(5, 1)),
            "mean, std and noise: want the shapes (D,), (D,) and (N, D)",
        ),
        (lambda: pathwise_gradient(wavy, MEAN, -STD, normal(5, 2)), "std: must be above 0"),
        (
            lambda: pathwise_gradient(lambda x: x, MEAN, STD, normal(5, 2)),
            "function: must return the shape (5,), got (5, 2)",
        ),
        (
            lambda: score_function_gradient(lambda x: x.sum(), MEAN, STD, normal(5, 2)),
            "function: must return the shape (5,), got ()",
        ),
        (
            lambda: pathwise_gradient(lambda x: x.detach()[:, 0], MEAN, STD, normal(5, 2)),
            "function: has no gradient",
        ),
        (
            lambda: score_function_gradient(
                wavy, MEAN, STD, normal(5, 2), baseline=torch.zeros(5, 1)
            ),
            "baseline: want a number or the shape (5,)",
        ),
        (lambda: optimal_baseline(X, torch.zeros(3, 2)), "value and score: want the shapes"),
    ],
)
def test_errors_name_the_culprit(call, said):
    with pytest.raises(ValueError) as caught:
        call()
    assert said in str(caught.value)


@pytest.mark.parametrize("discount", [-0.1, 1.1, NAN])
def test_a_discount_outside_0_to_1_is_refused(discount):
    with pytest.raises(ValueError, match=r"discount: must be in \[0, 1\]"):
        per_decision_importance_sampling(X[None], P[None], Q[None], discount=discount)
