"""Maps of levels, fitted on held-out data, and conformal intervals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, special, stats

from mbrl.uncertainty import (
    Isotonic,
    Logistic,
    Temperature,
    calibration_error,
    conformal_factor,
    conformal_interval,
    coverage,
    negative_log_likelihood,
    noise_moments,
    pit,
    recalibration_scale,
)

LEVELS = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def levels_of(rows, dims, seed=0):
    """PIT values of models that are too narrow, too wide, biased, ...: beta distributed."""
    rng = np.random.default_rng(seed)
    shape = 0.3 + 2 * rng.random((2, dims))
    return torch.from_numpy(rng.beta(*shape, size=(rows, dims)))


def of_levels(levels):
    """Mean, std and targets whose PIT values are these levels."""
    target = torch.special.ndtri(levels)
    return torch.zeros_like(target)[None], torch.ones_like(target)[None], target


def temperature(dims=3):
    return Temperature(torch.linspace(0.4, 2.5, dims, dtype=torch.float64))


MAPS = {
    "temperature": temperature,
    "logistic": lambda: Logistic.fit(*of_levels(levels_of(200, 3))),
    "isotonic": lambda: Isotonic.fit(*of_levels(levels_of(200, 3))),
    "isotonic with ties": lambda: Isotonic.fit(
        *of_levels((5 * levels_of(200, 3)).round().clamp(1, 4) / 5)
    ),
}


@pytest.fixture(params=list(MAPS))
def level_map(request):
    return MAPS[request.param]()


def grid(count=401, dtype=torch.float64):
    return torch.linspace(0, 1, count, dtype=dtype).unsqueeze(-1).expand(-1, 3)


def test_maps_increase_from_0_to_1(level_map):
    assert level_map.dims == 3
    for of in (level_map.cdf, level_map.quantile):
        found = of(grid())
        assert found[0].tolist() == [0.0] * 3 and found[-1].tolist() == [1.0] * 3
        assert (found.diff(dim=0) >= 0).all() and (found.diff(dim=0) > 0).float().mean() > 0.7


def test_cdf_and_quantile_invert_one_another(level_map):
    level = grid()[1:-1]
    torch.testing.assert_close(level_map.cdf(level_map.quantile(level)), level)


def test_maps_take_any_leading_dimensions_and_keep_the_dtype(level_map):
    level = grid(13)[1:]
    for of in (level_map.cdf, level_map.quantile, level_map.noise):
        torch.testing.assert_close(of(level.unflatten(0, (3, 4))).flatten(0, 1), of(level))
        assert of(level[0]).shape == (3,)
        assert of(level.float()).dtype == torch.float32


def test_maps_have_the_gradients_of_finite_differences(level_map):
    level = torch.rand(5, 3, generator=generator(3), dtype=torch.float64).requires_grad_()
    z = torch.randn(5, 3, generator=generator(4), dtype=torch.float64).requires_grad_()
    for of, x in ((level_map.cdf, level), (level_map.quantile, level), (level_map.noise, z)):
        assert torch.autograd.gradcheck(of, (x,), eps=1e-8, atol=1e-4)


def test_noise_is_the_normal_quantile_of_the_quantile_of_the_level(level_map):
    z = torch.linspace(-2, 2, 41, dtype=torch.float64).unsqueeze(-1).expand(-1, 3)
    level = torch.from_numpy(special.ndtr(z.numpy()))
    by_scipy = special.ndtri(level_map.quantile(level).numpy())
    np.testing.assert_allclose(level_map.noise(z).numpy(), by_scipy, rtol=1e-6, atol=1e-6)
    single = level_map.noise(z.float())
    torch.testing.assert_close(single, level_map.noise(z).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_stays_finite_and_increasing_in_the_tails(level_map, dtype):
    """In float32, Φ(z) is 1 from z = 5.4 on."""
    z = torch.linspace(-8, 8, 161, dtype=dtype).unsqueeze(-1).expand(-1, 3)
    found = level_map.noise(z)
    assert found.isfinite().all() and (found.diff(dim=0) >= 0).all()
    drawn = (z.abs() < 6.05).all(-1)
    assert (found[drawn].diff(dim=0) > 0).all()
    assert level_map.noise(torch.full((1, 3), math.nan)).isnan().all()


def test_the_temperature_is_a_factor_of_the_std():
    fitted = temperature()
    z = torch.randn(9, 3, generator=generator(), dtype=torch.float64)
    assert torch.equal(fitted.noise(z), fitted.scale * z)
    scale = fitted.scale.numpy()
    by_scipy = stats.norm(0, scale).cdf(z.numpy())
    np.testing.assert_allclose(fitted.cdf(torch.special.ndtr(z)).numpy(), by_scipy)


def test_the_temperature_is_the_recalibration_scale():
    mean = torch.randn(3, 50, 2, generator=generator(), dtype=torch.float64)
    std = 0.1 + torch.rand(3, 50, 2, generator=generator(1), dtype=torch.float64)
    target = torch.randn(50, 2, generator=generator(2), dtype=torch.float64)
    fitted = Temperature.fit(mean, std, target)
    assert torch.equal(fitted.scale, recalibration_scale(mean, std, target))


def test_the_logistic_map_is_the_maximum_likelihood_fit_of_scipy():
    """logit(pit) follows a logistic distribution of location -offset / slope, scale 1 / slope."""
    values = levels_of(300, 4, seed=5)
    fitted = Logistic.fit(*of_levels(values))
    for d in range(4):
        location, scale = stats.logistic.fit(special.logit(values[:, d].numpy()))
        assert fitted.slope[d].item() == pytest.approx(1 / scale, rel=1e-3)
        assert fitted.offset[d].item() == pytest.approx(-location / scale, abs=2e-3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1e-12, 1 - 1e-12), min_size=2, max_size=20))
def test_the_logistic_map_is_where_the_likelihood_is_flat(values):
    """Also for outliers and ties; checked by the equations of the maximum."""
    column = torch.tensor(values, dtype=torch.float64).unsqueeze(-1)
    fitted = Logistic.fit(*of_levels(column))
    a, b = fitted.slope.item(), fitted.offset.item()
    x = special.logit(np.array(values))
    if np.ptp(x) < 1e-9 * (1 + abs(x[0])):
        return
    t = np.tanh((a * x + b) / 2)
    assert abs(t.mean()) < 1e-6
    assert (t * x * a).mean() == pytest.approx(1, abs=1e-6)


def test_the_logistic_map_of_calibrated_levels_is_near_the_identity():
    uniform = torch.rand(20_000, 2, generator=generator(), dtype=torch.float64)
    fitted = Logistic.fit(*of_levels(uniform))
    torch.testing.assert_close(fitted.slope, torch.ones(2).double(), atol=0.03, rtol=0)
    torch.testing.assert_close(fitted.offset, torch.zeros(2).double(), atol=0.05, rtol=0)
    same = Logistic(torch.ones(3).double(), torch.zeros(3).double())
    torch.testing.assert_close(same.cdf(grid()), grid())


def test_the_sigmoid_of_malik_et_al_is_no_map_from_0_to_0():
    """The smallest error of sigmoid(a p + b) from the identity, over all a and b, is 0.06."""
    p = np.linspace(0, 1, 201)

    def worst(ab):
        return np.abs(special.expit(ab[0] * p + ab[1]) - p).max()

    best = optimize.minimize(worst, (4, -2), method="Nelder-Mead")
    assert best.fun > 0.05


def test_the_isotonic_map_is_the_isotonic_regression_of_the_shares():
    """Kuleshov et al., algorithm 1, by scipy, on unsorted values with weights for ties."""
    values = (40 * levels_of(300, 2, seed=6)).round().clamp(1, 39) / 40
    fitted = Isotonic.fit(*of_levels(values))
    for d in range(2):
        column = values[:, d].numpy()
        level = np.unique(column)
        assert len(level) < 100  # so there are ties
        share = stats.rankdata(column) / 301
        order = np.argsort(column)
        regression = optimize.isotonic_regression(share[order]).x
        found = fitted.cdf(values)[:, d].numpy()[order]
        np.testing.assert_allclose(found, regression, atol=1e-12)
        scores = special.ndtri(level[3:5])
        between = special.ndtr(scores.mean())
        ends = fitted.cdf(torch.tensor([[level[3]] * 2, [level[4]] * 2, [between] * 2]))[:, d]
        low, high, middle = special.ndtri(ends.numpy())
        assert middle == pytest.approx((low + high) / 2)


def test_levels_recalibrated_by_their_own_isotonic_map_are_uniform():
    values = levels_of(99, 2)
    found = Isotonic.fit(*of_levels(values)).cdf(values).sort(0).values
    ranks = torch.arange(1, 100, dtype=torch.float64) / 100
    torch.testing.assert_close(found, ranks.unsqueeze(-1).expand(-1, 2))


def skewed(rows):
    """Log-normal errors in stds: neither a factor of the std nor a logistic map is right."""
    return torch.randn(rows, 2, generator=generator(8), dtype=torch.float64).exp() - 1


def logistic(rows):
    """Errors in stds for which a logistic map is right: too narrow, and biased."""
    uniform = torch.from_numpy(np.random.default_rng(8).random((rows, 2)))
    return torch.special.ndtri(torch.sigmoid((torch.logit(uniform) + 0.7) / 0.5))


@pytest.mark.parametrize("kind, errors", [(Logistic, logistic), (Isotonic, logistic),
                                          (Isotonic, skewed)])  # fmt: skip
def test_maps_of_levels_make_fresh_levels_uniform(kind, errors):
    """Kolmogorov and Smirnov's distance; it exceeds 0.03 by chance in one case of 20."""
    target = errors(8000)
    mean, std = torch.zeros(1, 8000, 2).double(), torch.ones(1, 8000, 2).double()
    values = pit(mean, std, target)
    fresh = values[4000:]
    scaled = Temperature.fit(mean[:, :4000], std[:, :4000], target[:4000]).cdf(fresh)
    recalibrated = kind.fit(mean[:, :4000], std[:, :4000], target[:4000]).cdf(fresh)

    def distance(values, d):
        return stats.kstest(values[:, d].numpy(), "uniform").statistic

    for d in range(2):
        assert distance(recalibrated, d) < 0.03
        assert distance(fresh, d) > 0.1 and distance(scaled, d) > 0.1
    curve = coverage(recalibrated, LEVELS)
    assert calibration_error(LEVELS, curve).max() < 0.02


def test_drawn_noise_has_the_recalibrated_distribution(level_map):
    """P(noise <= Φ⁻¹(p)) is R(p): draws of the noise, mapped back, are uniform."""
    z = torch.randn(4000, 3, generator=generator(9), dtype=torch.float64)
    back = level_map.cdf(torch.special.ndtr(level_map.noise(z)))
    for d in range(3):
        assert stats.kstest(back[:, d].numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("name", ["temperature", "logistic"])
def test_moments_of_noise_are_those_of_numerical_integration(name):
    level_map = MAPS[name]()
    mean, std = noise_moments(level_map)
    for d in range(3):

        def noise(z, d=d):
            return level_map.noise(torch.full((1, 3), z, dtype=torch.float64))[0, d].item()

        first, second = (
            integrate.quad(lambda z, k=k: noise(z) ** k * stats.norm.pdf(z), -8, 8)[0]
            for k in (1, 2)
        )
        assert mean[d].item() == pytest.approx(first, abs=1e-7)
        assert std[d].item() == pytest.approx(math.sqrt(second - first**2), rel=1e-6)


@pytest.mark.parametrize("name", ["isotonic", "isotonic with ties"])
def test_moments_of_isotonic_noise_are_those_of_its_pieces(name):
    """Between two knots the noise is linear in z, which is a truncated normal there."""
    level_map = MAPS[name]()
    mean, std = noise_moments(level_map)
    for d in range(3):
        at, to = level_map.actual[d].numpy(), level_map.model[d].numpy()
        slope = np.diff(to) / np.diff(at)
        inside = (at[1:] > -9) & (at[:-1] < 9)
        at, to, slope = at[:-1][inside], to[:-1][inside], slope[inside]
        ends = np.append(at[1:], np.inf)
        at = np.append(-np.inf, at[1:])
        to = to - slope * np.append(level_map.actual[d, 0], at[1:])
        chance = stats.norm.cdf(ends) - stats.norm.cdf(at)
        piece = stats.truncnorm(at, ends)
        first = chance @ (to + slope * piece.mean())
        second = chance @ (slope**2 * piece.var() + (to + slope * piece.mean()) ** 2)
        assert mean[d].item() == pytest.approx(first, abs=1e-5)
        assert std[d].item() == pytest.approx(math.sqrt(second - first**2), rel=1e-5)


@pytest.mark.parametrize("factor", [0.05, 1.0, 20.0])
def test_an_isotonic_map_undoes_any_factor_of_the_std_also_in_the_tails(factor):
    """Errors of 60 stds, whose levels round to 0 and 1: the noise is the same in their units."""
    target = torch.randn(200, 2, generator=generator(), dtype=torch.float64)
    mean, std = torch.zeros(1, 200, 2).double(), torch.ones(1, 200, 2).double()
    z = torch.linspace(-6, 6, 50, dtype=torch.float64).unsqueeze(-1).expand(-1, 2)
    wanted = Isotonic.fit(mean, std, target).noise(z)
    found = factor * Isotonic.fit(mean, factor * std, target).noise(z)
    torch.testing.assert_close(found, wanted)


def test_an_isotonic_map_of_almost_equal_levels_increases_from_0_to_1():
    """It goes on beyond the last level in float64: in float32 its last knot would lie below."""
    nearly = 1 + 1e-9 * torch.randn(200, 1, generator=generator(), dtype=torch.float64)
    level_map = Isotonic.fit(torch.zeros_like(nearly)[None], torch.ones_like(nearly)[None], nearly)
    assert bool((level_map.model.diff() > 0).all())
    assert level_map.cdf(torch.tensor([[0.0], [1.0]]).double()).tolist() == [[0.0], [1.0]]
    assert torch.allclose(level_map.noise(torch.randn(50, 1)), torch.ones(50, 1))


def test_maps_use_the_levels_of_the_mixture():
    g = generator(4)
    mean = torch.randn(3, 60, 2, generator=g, dtype=torch.float64)
    std = 0.1 + torch.rand(3, 60, 2, generator=g, dtype=torch.float64)
    target = torch.randn(60, 2, generator=g, dtype=torch.float64)
    values = pit(mean, std, target)
    for kind in (Isotonic, Logistic):
        found, wanted = kind.fit(mean, std, target), kind.fit(*of_levels(values))
        torch.testing.assert_close(found.cdf(grid()[:, :2]), wanted.cdf(grid()[:, :2]))


def test_a_constant_dimension_that_is_predicted_without_error_keeps_its_distribution():
    half = torch.full((50, 1), 0.5, dtype=torch.float64)
    for kind in (Logistic, Isotonic):
        fitted = kind.fit(*of_levels(torch.cat((half, levels_of(50, 1)), -1)))
        found = fitted.cdf(grid()[:, :2])
        torch.testing.assert_close(found[:, 0], grid()[:, 0])
        assert (found[:, 1] - grid()[:, 1]).abs().max() > 0.02


@pytest.mark.parametrize("kind", [Temperature, Logistic, Isotonic])
def test_maps_refuse_bad_targets_by_name(kind):
    mean, std, target = torch.zeros(2, 5, 1), torch.ones(2, 5, 1), torch.ones(5, 1)
    for args, culprit in (
        ((mean[:, :1], std[:, :1], target[:1]), r"target: want two targets.*\(1, 1\)"),
        ((mean, 0 * std, target), "std: is 0 in some place"),
        ((mean, -std, target), "std: has negative"),
        ((mean, std, math.nan * target), "target: has NaN"),
        ((math.nan * mean, std, target), "mean: has NaN"),
        ((mean, std, target[:3]), r"target: want the shape \(5, 1\).*got \(3, 1\)"),
    ):
        with pytest.raises(ValueError, match=culprit):
            kind.fit(*args)


# Conformal intervals.


def wrong(rows, dims, seed):
    """A model of two members with a third of the right std and a bias; targets are Laplace."""
    rng = np.random.default_rng(seed)
    wide = torch.from_numpy(0.5 + rng.random((rows, dims)))
    target = wide * torch.from_numpy(rng.laplace(0.4, 1, (rows, dims)))
    mean = torch.stack((-0.1 * wide, 0.1 * wide))
    return mean, (wide / 3).expand(2, -1, -1), target


@pytest.mark.parametrize("count, alpha", [(9, 0.1), (12, 0.2), (50, 0.05), (199, 0.5)])
def test_conformal_intervals_of_a_wrong_model_have_the_exact_coverage(count, alpha):
    """Over 4,000 held-out sets it is ⌈(n + 1)(1 - α)⌉ / (n + 1), within 4 standard errors."""
    mean, std, target = wrong(count, 4000, seed=0)
    factor = conformal_factor(mean, std, target, alpha=alpha)
    mean, std, target = wrong(25, 4000, seed=1)
    low, high = conformal_interval(mean, std, factor)
    inside = ((target >= low) & (target <= high)).double().mean(0)  # (4000,)
    exact = math.ceil(round((count + 1) * (1 - alpha), 9)) / (count + 1)
    assert 1 - alpha <= exact < 1 - alpha + 1 / (count + 1)
    error = (inside.std() / math.sqrt(4000)).item()
    assert error < 0.01
    assert inside.mean().item() == pytest.approx(exact, abs=4 * error)
    # the interval of the model itself, or of the plain quantile, is not wide enough
    normal = stats.norm.ppf(1 - alpha / 2)
    centre, half = (low + high) / 2, (high - low) / 2 / factor
    assert ((target - centre).abs() <= normal * half).double().mean() < exact - 0.1


def test_conformal_factors_by_hand():
    """Scores 1 to 9 in stds of 2: the 9th for α = 0.1, the 8th for 0.2, the 5th for 0.5."""
    target = 2 * torch.tensor([3.0, -1.0, 4.0, 9.0, -5.0, 2.0, 6.0, -8.0, 7.0]).unsqueeze(-1)
    mean, std = torch.zeros(1, 9, 1), torch.full((1, 9, 1), 2.0)
    for alpha, wanted in ((0.1, 9.0), (0.2, 8.0), (0.5, 5.0), (0.7, 3.0), (1 - 1e-12, 1.0)):
        assert conformal_factor(mean, std, target, alpha=alpha).tolist() == [wanted]
    low, high = conformal_interval(mean, std, torch.tensor([1.5]))
    assert low[0].tolist() == [-3.0] and high[0].tolist() == [3.0]


@pytest.mark.parametrize("alpha", [0.5, 0.3, 0.1, 0.05, 0.01])
def test_too_few_targets_are_refused_with_the_number_that_is_enough(alpha):
    least = round(1 / alpha - 1 + 0.499)
    mean, std, target = wrong(least, 1, seed=2)
    assert conformal_factor(mean, std, target, alpha=alpha) > 0
    if least > 1:
        with pytest.raises(ValueError, match=f"needs at least {least} targets, got {least - 1}"):
            conformal_factor(mean[:, 1:], std[:, 1:], target[1:], alpha=alpha)


def test_conformal_intervals_refuse_bad_input_by_name():
    mean, std, target = wrong(30, 2, seed=3)
    for alpha in (0.0, 1.0, -0.1, 90.0, math.nan):
        with pytest.raises(ValueError, match="alpha: want a share between 0 and 1"):
            conformal_factor(mean, std, target, alpha=alpha)
    with pytest.raises(ValueError, match="target: has NaN"):
        conformal_factor(mean, std, math.nan * target, alpha=0.1)
    with pytest.raises(ValueError, match="std: is 0 in some place where members agree"):
        conformal_factor(0 * mean, 0 * std, target, alpha=0.1)
    assert conformal_factor(mean, 0 * std, target, alpha=0.1).isfinite().all()  # they differ
    with pytest.raises(ValueError, match=r"factor: want shape \(2,\), got \(3,\)"):
        conformal_interval(mean, std, torch.ones(3))


def test_temperature_likelihood_beats_the_wrong_model_on_fresh_data():
    mean, std, target = wrong(2000, 2, seed=4)
    fitted = Temperature.fit(mean[:, :1000], std[:, :1000], target[:1000])
    fresh = mean[:, 1000:], std[:, 1000:], target[1000:]
    before = negative_log_likelihood(*fresh).mean()
    after = negative_log_likelihood(fresh[0], fresh[1] * fitted.scale, fresh[2]).mean()
    assert after < before - 1
