"""Scores of predictions, and of what tells shifted inputs from familiar ones (`scores`)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from mbrl.uncertainty import (
    auroc,
    calibration_curve,
    calibration_error,
    coverage,
    crps,
    energy_score,
    negative_log_likelihood,
    pit,
    rank_correlation,
    recalibration_scale,
    sharpness,
    spread,
)
from tests.mixtures import draw, generator, mixture

LEVELS = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


def test_sharpness_is_the_root_mean_variance():
    mean = torch.zeros(1, 2, 2)
    std = torch.tensor([[[3.0, 1.0], [4.0, 1.0]]])
    torch.testing.assert_close(sharpness(mean, std), torch.tensor([math.sqrt(12.5), 1.0]))


def test_pit_is_the_mean_of_the_members_cdf():
    mean, std = mixture(3, 7, 2)
    target = draw(mean, std)
    by_scipy = stats.norm.cdf(target.numpy(), mean.numpy(), std.numpy()).mean(0)
    np.testing.assert_allclose(pit(mean, std, target), by_scipy, atol=1e-12)


def test_pit_of_particles_is_the_share_below_the_target():
    particles = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(4, 1, 1)
    assert pit(particles, torch.zeros(4, 1, 1), torch.tensor([[3.0]])).item() == 0.5
    assert pit(particles, torch.zeros(4, 1, 1), torch.tensor([[9.0]])).item() == 1.0


def test_pit_is_uniform_for_the_true_mixture_and_not_for_its_moments():
    mean, std = torch.tensor([-2.0, 2.0]).double(), torch.tensor([0.5, 0.5]).double()
    mean, std = mean.reshape(2, 1, 1).expand(2, 5000, 1), std.reshape(2, 1, 1).expand(2, 5000, 1)
    target = draw(mean, std)
    assert stats.kstest(pit(mean, std, target).numpy().ravel(), "uniform").pvalue > 0.01
    one = spread(mean, std)
    fitted = pit(mean.mean(0, keepdim=True), one.total.sqrt()[None], target)
    assert stats.kstest(fitted.numpy().ravel(), "uniform").pvalue < 1e-6


def test_calibration_is_right_for_the_true_model_and_for_half_its_noise():
    mean, std = mixture(1, 20_000, 2)
    target = draw(mean, std)
    observed = calibration_curve(mean, std, target, LEVELS)
    assert observed.shape == (19, 2)
    assert calibration_error(LEVELS, observed).max() < 0.01
    # Half the std: the interval of level p holds |z| < Φ⁻¹((1 + p) / 2) / 2.
    expected = 2 * stats.norm.cdf(stats.norm.ppf(0.5 + LEVELS.numpy() / 2) / 2) - 1
    confident = calibration_curve(mean, std / 2, target, LEVELS)
    np.testing.assert_allclose(confident.mean(-1), expected, atol=0.01)
    stated = np.abs(expected - LEVELS.numpy()).mean()  # 0.203
    assert stated > 0.2
    np.testing.assert_allclose(calibration_error(LEVELS, confident), stated, atol=0.01)


def test_calibration_of_a_mixture_uses_its_own_quantiles():
    mean, std = mixture(4, 20_000, 1, seed=3)
    target = draw(mean, std)
    observed = calibration_curve(mean, std, target, LEVELS)
    assert calibration_error(LEVELS, observed).item() < 0.01
    # The interval of one mixture, inverted by scipy, contains the targets that the PIT gives.
    m, s = mean[:, 0, 0].numpy(), std[:, 0, 0].numpy()
    low, high = (
        optimize.root_scalar(lambda x, q=q: stats.norm.cdf(x, m, s).mean() - q, bracket=(-20, 20))
        for q in (0.2, 0.8)
    )
    one_m, one_s = mean[:, :1].expand(4, 500, 1), std[:, :1].expand(4, 500, 1)
    inside = draw(one_m, one_s)
    by_hand = ((inside > low.root) & (inside < high.root)).double().mean()
    ours = calibration_curve(one_m, one_s, inside, torch.tensor([0.6], dtype=torch.float64))
    assert ours.item() == by_hand.item()


def test_errors_of_two_dimensions_do_not_cancel():
    """Overconfident in one dimension, underconfident in the other: pooling hides both."""
    mean, std = mixture(1, 5000, 2)
    target = draw(mean, std)
    observed = calibration_curve(mean, std * torch.tensor([0.6, 1.8]), target, LEVELS)
    each, pooled = calibration_error(LEVELS, observed), calibration_error(LEVELS, observed.mean(1))
    assert each.min() > 0.12 and pooled < 0.04


def test_likelihood_matches_scipy_and_is_joint():
    mean, std = mixture(1, 6, 3)
    target = draw(mean, std)
    by_scipy = -stats.norm.logpdf(target.numpy(), mean[0].numpy(), std[0].numpy()).sum(-1)
    np.testing.assert_allclose(negative_log_likelihood(mean, std, target), by_scipy)
    mean, std = mixture(3, 6, 3)
    density = stats.norm.pdf(target.numpy(), mean.numpy(), std.numpy()).prod(-1).mean(0)
    np.testing.assert_allclose(negative_log_likelihood(mean, std, target), -np.log(density))


def test_likelihood_far_from_every_member_is_finite():
    mean, std = torch.zeros(2, 1, 1), torch.full((2, 1, 1), 0.01)
    nll = negative_log_likelihood(mean, std, torch.tensor([[5.0]]))
    exact = 0.5 * 500.0**2 + math.log(0.01) + 0.5 * math.log(2 * math.pi)
    assert nll.item() == pytest.approx(exact, rel=1e-6)


def test_crps_of_a_gaussian_is_the_textbook_form():
    mean, std = mixture(1, 50, 1)
    target = draw(mean, std)
    z = ((target - mean[0]) / std[0]).numpy()
    norm = stats.norm
    textbook = std[0].numpy() * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(crps(mean, std, target), textbook, atol=1e-12)


def test_crps_of_a_mixture_is_the_integral_over_its_cdf():
    mean, std = mixture(4, 1, 1)
    for y in (-3.0, 0.1, 2.0):

        def square(x, y=y):
            cdf = stats.norm.cdf(x, mean.ravel().numpy(), std.ravel().numpy()).mean()
            return (cdf - (x >= y)) ** 2

        integral = sum(integrate.quad(square, *ends)[0] for ends in ((-15, y), (y, 15)))
        ours = crps(mean, std, torch.tensor([[y]], dtype=torch.float64)).item()
        assert ours == pytest.approx(integral, abs=1e-7)


def test_crps_matches_monte_carlo():
    mean, std = mixture(3, 1, 2)
    target = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    n = 200_000
    wide_mean, wide_std = mean.expand(3, n, 2), std.expand(3, n, 2)
    a, b = draw(wide_mean, wide_std, 1), draw(wide_mean, wide_std, 2)
    sampled = (a - target).abs().mean(0) - 0.5 * (a - b).abs().mean(0)
    torch.testing.assert_close(crps(mean, std, target)[0], sampled, rtol=0, atol=0.012)


def test_crps_of_particles_is_that_of_their_step_function():
    particles = torch.tensor([0.0, 2.0, 3.0]).reshape(3, 1, 1)
    # (|0-1| + |2-1| + |3-1|) / 3 - mean over 9 pairs (2 + 3 + 1) · 2 / 9 / 2
    by_hand = 4 / 3 - 6 / 9
    ours = crps(particles, torch.zeros(3, 1, 1), torch.tensor([[1.0]]))
    assert ours.item() == pytest.approx(by_hand, rel=1e-6)
    point = crps(torch.ones(1, 1, 1), torch.zeros(1, 1, 1), torch.tensor([[4.0]]))
    assert point.item() == 3.0


def test_crps_of_particles_is_the_mean_over_all_pairs():
    g = torch.Generator().manual_seed(3)
    particles = torch.randn(7, 4, 2, generator=g, dtype=torch.float64)
    target = torch.randn(4, 2, generator=g, dtype=torch.float64)
    pairs = (particles.unsqueeze(0) - particles.unsqueeze(1)).abs().mean((0, 1))
    wanted = (particles - target).abs().mean(0) - pairs / 2
    torch.testing.assert_close(crps(particles, torch.zeros_like(particles), target), wanted)
    tiny = torch.full_like(particles, 1e-9)  # not exactly 0: the sum over pairs of Gaussians
    torch.testing.assert_close(crps(particles, tiny, target), wanted)


@pytest.mark.parametrize("score", [crps, negative_log_likelihood])
def test_scores_are_proper(score):
    """Changes of the true model's mean or std do not improve its expected score."""
    mean, std = mixture(2, 20_000, 1)
    target = draw(mean, std)
    true = score(mean, std, target).mean()
    for factor in (0.7, 1.4):
        # Paired differences: their standard error is below 0.001.
        assert score(mean, factor * std, target).mean() > true + 0.004
    assert score(mean + 0.3, std, target).mean() > true + 0.01


def test_recalibration_has_the_closed_form_for_one_gaussian():
    mean, std = mixture(1, 20_000, 2)
    target = draw(mean, std)
    factor = torch.tensor([0.5, 3.0], dtype=torch.float64)
    scale = recalibration_scale(mean, std * factor, target)
    z = (target - mean[0]) / (std[0] * factor)
    torch.testing.assert_close(scale, z.square().mean(0).sqrt())
    torch.testing.assert_close(scale * factor, torch.ones(2).double(), rtol=0.02, atol=0)


def test_recalibration_of_a_mixture_maximises_the_likelihood():
    mean, std = mixture(5, 20_000, 1)
    target = draw(mean, std)
    scale = recalibration_scale(mean, std / 2, target)
    # Averaging each member's own z² would give 5 or more, because members disagree.
    assert scale.item() == pytest.approx(2, rel=0.03)

    def nll(s):
        return negative_log_likelihood(mean, std / 2 * s, target).mean().item()

    best = optimize.minimize_scalar(nll, bounds=(0.5, 5), method="bounded").x
    assert scale.item() == pytest.approx(best, rel=1e-3)


def test_recalibration_improves_calibration_on_fresh_data():
    mean, std = mixture(3, 8000, 2)
    target = draw(mean, std)
    held_out, fresh = slice(0, 4000), slice(4000, None)
    scale = recalibration_scale(mean[:, held_out], std[:, held_out] / 2, target[held_out])

    def error(factor):
        curve = calibration_curve(mean[:, fresh], std[:, fresh] * factor, target[fresh], LEVELS)
        return calibration_error(LEVELS, curve)

    assert error(0.5).min() > 0.05
    assert error(0.5 * scale).max() < 0.02


def test_recalibration_without_error_stays_positive():
    mean = torch.zeros(1, 4, 1)
    scale = recalibration_scale(mean, torch.ones(1, 4, 1), torch.zeros(4, 1))
    assert 0 < scale.item() < 1e-6


@pytest.mark.parametrize("function", [pit, crps, negative_log_likelihood, recalibration_scale])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_keep_the_dtype_and_do_not_depend_on_the_order_of_members(function, dtype):
    mean, std = (x.to(dtype) for x in mixture(4, 50, 2))
    target = draw(mean, std)
    out = function(mean, std, target)
    assert out.dtype == dtype
    order = [2, 0, 3, 1]
    torch.testing.assert_close(function(mean[order], std[order], target), out)


@pytest.mark.parametrize("function", [pit, crps, negative_log_likelihood, recalibration_scale])
def test_bad_input_is_refused_by_name(function):
    mean, std, target = torch.zeros(2, 3, 1), torch.ones(2, 3, 1), torch.zeros(3, 1)
    for args, culprit in (
        ((mean, std[:1], target), r"std: .*\(2, 3, 1\) and \(1, 3, 1\)"),
        ((mean, std, target[:2]), r"target: want the shape \(3, 1\).*got \(2, 1\)"),
        ((mean, std, target * math.nan), "target: has NaN"),
        ((mean * math.nan, std, target), "mean: has NaN"),
        ((mean, -std, target), "std: has negative"),
        ((mean[:, :0], std[:, :0], target[:0]), "target: is empty"),
    ):
        with pytest.raises(ValueError, match=culprit):
            function(*args)


def test_zero_std_has_no_density_and_no_scale():
    args = torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), torch.zeros(3, 1)
    for function in (negative_log_likelihood, recalibration_scale):
        with pytest.raises(ValueError, match="std: "):
            function(*args)


def test_levels_outside_0_and_1_are_refused():
    args = torch.zeros(2, 3, 1), torch.ones(2, 3, 1), torch.zeros(3, 1)
    with pytest.raises(ValueError, match="levels: "):
        calibration_curve(*args, torch.tensor([50.0, 95.0]))
    with pytest.raises(ValueError, match="observed: want one row for each of 19"):
        calibration_error(LEVELS, torch.zeros(3))


def test_coverage_of_pit_values_is_the_calibration_curve():
    mean, std = mixture(3, 200, 2)
    target = draw(mean, std)
    curve = calibration_curve(mean, std, target, LEVELS)
    assert torch.equal(coverage(pit(mean, std, target), LEVELS), curve)
    # By hand: |pit - 1/2| is 0.1, 0.4 and 0.25, against 0.1 and 0.3.
    values = torch.tensor([[0.4], [0.9], [0.25]], dtype=torch.float64)
    levels = torch.tensor([0.2001, 0.6], dtype=torch.float64)
    assert coverage(values, levels).tolist() == [[1 / 3], [2 / 3]]
    with pytest.raises(ValueError, match="levels: "):
        coverage(values, 2 * levels)


def test_the_energy_score_of_one_dimension_is_the_crps():
    """Mean over 2,000 targets, within 4 standard errors of their differences."""
    mean, std = mixture(4, 2000, 1)
    target = draw(mean, std)
    found = energy_score(mean, std, target, samples=50, generator=generator(5))
    apart = found - crps(mean, std, target)[:, 0]
    assert abs(apart.mean()) < 4 * apart.std() / math.sqrt(2000)
    assert apart.std() < 0.1
    few = energy_score(mean, std, target, samples=1, generator=generator(6))
    apart = few - crps(mean, std, target)[:, 0]
    assert abs(apart.mean()) < 4 * apart.std() / math.sqrt(2000)  # unbiased


def test_the_energy_score_of_a_gaussian_in_three_dimensions_has_a_closed_form():
    """For y = μ and X ~ N(μ, σ² I), ‖X - μ‖ / σ follows a chi distribution of D degrees."""
    mean, std = torch.ones(1, 1, 3).double(), torch.full((1, 1, 3), 0.7).double()
    chi = stats.chi(3).mean()
    wanted = 0.7 * chi * (1 - math.sqrt(2) / 2)
    found = energy_score(mean, std, mean[0], samples=100_000, generator=generator())
    assert found.item() == pytest.approx(wanted, abs=0.003)


def test_the_energy_score_of_particles_is_that_of_all_pairs():
    particles = torch.randn(7, 3, 2, generator=generator(), dtype=torch.float64)
    target = torch.zeros(3, 2, dtype=torch.float64)
    accuracy = particles.norm(dim=-1).mean(0)
    pairs = (particles[:, None] - particles).norm(dim=-1).mean((0, 1))
    found = energy_score(
        particles, torch.zeros_like(particles), target, samples=1, generator=generator()
    )
    torch.testing.assert_close(found, accuracy - pairs / 2)


def test_the_energy_score_sees_dependence_that_marginals_hide():
    """Members at (-2, -2) and (2, 2), or at (-2, 2) and (2, -2): only one fits the targets."""
    g = generator()
    sign = 2.0 * torch.randint(2, (4000, 1), generator=g) - 1
    target = 2 * sign.expand(-1, 2) + 0.3 * torch.randn(4000, 2, generator=g)
    right = torch.tensor([[-2.0, -2.0], [2.0, 2.0]])[:, None].expand(2, 4000, 2)
    wrong = torch.tensor([[-2.0, 2.0], [2.0, -2.0]])[:, None].expand(2, 4000, 2)
    std = torch.full_like(right, 0.3)
    marginal = crps(right, std, target).mean() - crps(wrong, std, target).mean()
    joint = [energy_score(m, std, target, generator=generator()).mean() for m in (right, wrong)]
    assert abs(marginal) < 0.05 and joint[0] < joint[1] - 0.2


def test_the_energy_score_is_the_same_for_the_same_seed():
    mean, std = mixture(3, 5, 2)
    target = draw(mean, std)
    first, same, other = (
        energy_score(mean, std, target, generator=generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)
    with pytest.raises(ValueError, match="samples: must be at least 1, got 0"):
        energy_score(mean, std, target, samples=0, generator=generator())
    with pytest.raises(ValueError, match="target: has NaN"):
        energy_score(mean, std, math.nan * target, generator=generator())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
)
def test_auroc_is_the_statistic_of_mann_and_whitney(inside, outside):
    by_scipy = stats.mannwhitneyu(outside, inside).statistic / (len(inside) * len(outside))
    found = auroc(torch.tensor(inside).float(), torch.tensor(outside).float())
    assert found == pytest.approx(by_scipy, abs=1e-12)


def test_auroc_by_hand():
    # pairs (in, out): 1<2, 1<2, 2=2, 2=2 of (1, 2) and (2, 2)
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0])) == 0.75
    assert auroc(torch.tensor([0.0, 1.0]), torch.tensor([math.inf])) == 1.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30))
def test_rank_correlation_is_that_of_scipy(pairs):
    a, b = (torch.tensor(x).double() for x in zip(*pairs, strict=True))
    for name, value in (("a", a), ("b", b)):
        if (value == value[0]).all():
            with pytest.raises(ValueError, match=f"^{name}: all {len(a)} numbers are equal"):
                rank_correlation(a, b)
            return
    wanted = stats.spearmanr(a.numpy(), b.numpy()).statistic
    assert rank_correlation(a, b) == pytest.approx(wanted, abs=1e-12)


def test_detection_refuses_scores_that_have_no_order():
    good = torch.arange(3.0)
    for function, args, culprit in (
        (auroc, (good, math.nan * good), "score_out: has NaN"),
        (auroc, (good[:0], good), r"score_in: want a vector of 1 .*got shape \(0,\)"),
        (auroc, (good, good[None]), r"score_out: want a vector.*got shape \(1, 3\)"),
        (rank_correlation, (good, good[:2]), "b: want 3 numbers like a, got 2"),
        (rank_correlation, (good[:1], good[:1]), "a: want a vector of 2"),
        (rank_correlation, (good, math.nan * good), "b: has NaN"),
    ):
        with pytest.raises(ValueError, match=culprit):
            function(*args)
