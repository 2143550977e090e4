"""Variances, entropies and divergences of members, and fused predictions (`members`)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from mbrl.uncertainty import (
    entropy_split,
    fused,
    geometric_jensen_shannon,
    information_lost,
    jensen_renyi,
    spread,
)
from tests.mixtures import draw, generator, mixture


def test_the_split_of_variance_equals_hand_computed_values():
    mean = torch.tensor([[[0.0, 1.0]], [[2.0, 1.0]]])  # (2, 1, 2)
    std = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    s = spread(mean, std)
    assert s.aleatoric.tolist() == [[5.0, 10.0]]
    assert s.epistemic.tolist() == [[1.0, 0.0]]
    assert s.total.tolist() == [[6.0, 10.0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_total_is_the_variance_of_the_mixture(members, seed):
    """Second moment minus squared mean, from the mixture's own moments."""
    mean, std = mixture(members, 4, 3, seed=seed)
    moment = (mean.square() + std.square()).mean(0)
    torch.testing.assert_close(spread(mean, std).total, moment - mean.mean(0).square())


def test_total_is_the_variance_of_samples():
    mean, std = mixture(5, 1, 2)
    samples = draw(mean.expand(5, 200_000, 2), std.expand(5, 200_000, 2))
    total = spread(mean, std).total[0]
    # The standard error of a variance from 200,000 draws is at most some 0.4 % here.
    torch.testing.assert_close(samples.var(0), total, rtol=0.015, atol=0)


def test_epistemic_variance_falls_with_data_and_aleatoric_does_not():
    """Bootstrapped means of n observations of N(0, 2²): epistemic ≈ 4 / n, aleatoric 4."""
    data = 2 * torch.randn(20_000, generator=generator(), dtype=torch.float64)
    found = {}
    for n in (20, 2000):
        picks = torch.randint(n, (500, n), generator=generator(1))
        sample = data[:n][picks]
        found[n] = spread(sample.mean(1)[:, None], sample.std(1)[:, None])
    plug_in = data[:20].var(correction=0).item() / 20
    assert found[20].epistemic.item() == pytest.approx(plug_in, rel=0.2)
    assert found[20].epistemic > 50 * found[2000].epistemic
    assert found[2000].aleatoric.item() == pytest.approx(4, rel=0.1)


def quad(f):
    return integrate.quad(f, -20, 20, points=np.linspace(-6, 6, 25), limit=500)[0]


def density(mean, std):
    mean, std = mean.ravel().numpy(), std.ravel().numpy()
    return lambda x: stats.norm.pdf(x, mean, std).mean()


@pytest.mark.parametrize("samples", [1, 8])
def test_the_entropy_split_is_that_of_numerical_integration(samples):
    """The mean of 40,000 estimates, within 4 standard errors: few samples give no bias."""
    mean, std = mixture(3, 1, 1, seed=4)
    p = density(mean, std)
    total = quad(lambda x: -p(x) * math.log(p(x)) if p(x) > 0 else 0.0)
    members = np.mean(stats.norm(mean.numpy(), std.numpy()).entropy())
    wide = mean.expand(3, 40_000, 1), std.expand(3, 40_000, 1)
    found = entropy_split(*wide, samples=samples, generator=generator())
    error = (found.epistemic.std() / math.sqrt(40_000)).item()
    assert error < 0.01 < 0.2 < total - members < math.log(3)
    assert found.epistemic.mean().item() == pytest.approx(total - members, abs=4 * error)
    assert found.total.mean().item() == pytest.approx(total, abs=4 * error)
    torch.testing.assert_close(found.aleatoric, torch.full((40_000,), members, dtype=torch.float64))


def test_the_entropy_split_is_joint_over_dimensions():
    """Two members that agree in d copies of a dimension differ more in all of them together."""
    mean = torch.tensor([[[0.0]], [[1.0]]], dtype=torch.float64)
    std = torch.ones_like(mean)
    one = entropy_split(mean, std, samples=20_000, generator=generator())
    # Two dimensions a distance of 1 apart are, after a rotation, one dimension √2 apart.
    two = entropy_split(
        mean.expand(2, 1, 2), std.expand(2, 1, 2), samples=20_000, generator=generator()
    )
    turned = entropy_split(math.sqrt(2) * mean, std, samples=20_000, generator=generator())
    assert two.epistemic.item() == pytest.approx(turned.epistemic.item(), abs=0.01)
    assert two.epistemic > 1.5 * one.epistemic
    assert two.aleatoric.item() == pytest.approx(2 * one.aleatoric.item())


def test_the_quadratic_entropy_of_a_mixture_is_that_of_numerical_integration():
    for seed in range(3):
        mean, std = mixture(4, 1, seed=seed)
        whole = density(mean, std)
        members = [density(m, s) for m, s in zip(mean, std, strict=True)]
        wanted = -math.log(quad(lambda x, p=whole: p(x) ** 2)) + np.mean(
            [math.log(quad(lambda x, p=p: p(x) ** 2)) for p in members]
        )
        assert jensen_renyi(mean, std).item() == pytest.approx(wanted, rel=1e-6)


def test_the_quadratic_entropy_is_joint_over_dimensions():
    """In two dimensions, by integration over a grid: the trapezoidal rule is exact here."""
    mean, std = mixture(3, 2, seed=1)
    axis = np.linspace(-9, 9, 600)
    points = np.stack(np.meshgrid(axis, axis), -1)
    each = [
        stats.norm.pdf(points, m, s).prod(-1)
        for m, s in zip(mean.numpy(), std.numpy(), strict=True)
    ]
    cell = (axis[1] - axis[0]) ** 2

    def entropy(p):
        return -math.log((p**2).sum() * cell)

    wanted = entropy(sum(each) / 3) - np.mean([entropy(p) for p in each])
    assert jensen_renyi(mean, std).item() == pytest.approx(wanted, rel=1e-6)


def split(mean, std):
    return entropy_split(mean, std, samples=16, generator=generator()).epistemic


@pytest.mark.parametrize("divergence", [split, jensen_renyi])
def test_divergences_of_members_have_their_bounds(divergence):
    mean, std = (x.float() for x in mixture(1, 5, 4))
    equal = mean.expand(6, -1, -1), std.expand(6, -1, -1)
    assert divergence(*equal).abs().max() < 1e-5
    apart = torch.arange(6.0).reshape(6, 1, 1)
    distinct = divergence(mean + 1e3 * apart, std.expand(6, -1, -1))
    torch.testing.assert_close(distinct, torch.full((5,), math.log(6)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("divergence", [split, jensen_renyi])
def test_divergences_do_not_depend_on_units_origin_or_the_order_of_members(divergence):
    mean, std = mixture(4, 6, 3)
    found = divergence(mean, std)
    unit = torch.tensor([1e-3, 7.0, 40.0], dtype=torch.float64)
    torch.testing.assert_close(divergence(5 + unit * mean, unit * std), found)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(divergence(mean[order], std[order]), found)
    rows = divergence(mean.unflatten(1, (2, 3)), std.unflatten(1, (2, 3)))
    if divergence is jensen_renyi:
        torch.testing.assert_close(rows.flatten(), found)
    assert rows.shape == (2, 3)


@pytest.mark.parametrize("divergence", [split, jensen_renyi])
def test_divergences_are_finite_in_many_dimensions(divergence):
    """2,000 dimensions of float32, whose densities over- and underflow."""
    g = generator()
    mean, std = torch.randn(5, 3, 2000, generator=g), 0.01 + torch.rand(5, 3, 2000, generator=g)
    for scale in (1e-3, 1.0, 1e3):
        found = divergence(scale * mean, scale * std)
        assert found.isfinite().all() and (found < math.log(5) + 1e-3).all()


def test_the_quadratic_divergence_of_members_of_one_std_is_at_least_0_and_else_may_not_be():
    mean, std = mixture(4, 200, 2)
    assert jensen_renyi(mean, std[:1].expand(4, -1, -1)).min() > 0
    zero = torch.zeros(2, 1, 1, dtype=torch.float64)
    narrow = torch.tensor([1.0, 1e-3], dtype=torch.float64).reshape(2, 1, 1)
    # ln 4 + (ln 0.001) / 2, because the narrow member alone makes the integral of p²
    assert jensen_renyi(zero, narrow).item() == pytest.approx(-2.07, abs=0.01)


def test_one_member_has_no_epistemic_entropy_and_no_divergence_between_members():
    mean, std = mixture(1, 4, 2)
    found = entropy_split(mean, std, generator=generator())
    assert found.epistemic.tolist() == [0.0] * 4
    torch.testing.assert_close(found.total, found.aleatoric)
    with pytest.raises(ValueError, match="two members or more, got 1"):
        jensen_renyi(mean, std)


def test_the_quadratic_divergence_has_the_gradient_of_finite_differences():
    mean, std = (x.requires_grad_() for x in mixture(3, 2, 2))
    assert torch.autograd.gradcheck(jensen_renyi, (mean, std))


def test_entropies_refuse_bad_numbers_by_name():
    mean, std, g = torch.zeros(2, 3, 1), torch.ones(2, 3, 1), generator()
    for args, samples, culprit in (
        ((mean, 0 * std), 8, "std: must be positive"),
        ((mean, math.nan * std), 8, "std: has NaN"),
        ((math.nan * mean, std), 8, "mean: has NaN"),
        ((mean, std[:1]), 8, r"std: .*\(2, 3, 1\) and \(1, 3, 1\)"),
        ((mean, std), 0, "samples: must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=culprit):
            entropy_split(*args, samples=samples, generator=g)


def test_the_geometric_divergence_is_minus_log_of_the_overlap_of_roots():
    """-log ∫ √(p q), by numerical integration, summed over dimensions and averaged over pairs."""
    mean, std = mixture(3, 2)
    pairs = [(0, 1), (0, 2), (1, 2)]

    def overlap(i, j, d):
        p, q = (stats.norm(mean[k, d].item(), std[k, d].item()) for k in (i, j))
        return integrate.quad(lambda x: math.sqrt(p.pdf(x) * q.pdf(x)), -12, 12)[0]

    wanted = -np.mean([sum(math.log(overlap(i, j, d)) for d in range(2)) for i, j in pairs])
    assert geometric_jensen_shannon(mean, std).item() == pytest.approx(wanted, rel=1e-6)


def test_the_geometric_divergence_is_the_mean_divergence_from_the_geometric_mean():
    mean, std = mixture(2, 5, 3)
    precision = std.square().reciprocal()
    g_var = precision.mean(0).reciprocal()
    g = torch.distributions.Normal(g_var * (precision * mean).mean(0), g_var.sqrt())
    each = torch.distributions.Normal(mean, std)
    wanted = torch.distributions.kl_divergence(g.expand(mean.shape), each).mean(0).sum(-1)
    torch.testing.assert_close(geometric_jensen_shannon(mean, std), wanted)
    same = (part[:1].expand(4, -1, -1) for part in (mean, std))
    assert geometric_jensen_shannon(*same).abs().max() < 1e-12
    with pytest.raises(ValueError, match="two members or more, got 1"):
        geometric_jensen_shannon(mean[:1], std[:1])


def test_a_fused_prediction_of_two_members_by_hand():
    # precisions 1 and 1/4: Σ̄ = 1 / .625 = 1.6, μ̄ = 1.6 · (0 + 5/4) / 2 = 1; Var = (1 + 16) / 2
    found = fused(torch.tensor([[0.0], [5.0]]), torch.tensor([[1.0], [2.0]]))
    assert found.variance.item() == pytest.approx(1.6)
    assert found.mean.item() == pytest.approx(1.0)
    assert found.gain.item() == pytest.approx(1.6 / (1.6 + 8.5))
    assert found.left.item() == pytest.approx(1.6 * 8.5 / (1.6 + 8.5))


def test_members_that_agree_leave_nothing_open():
    mean, std = torch.full((5, 2), 3.0), torch.full((5, 2), 0.7)
    found = fused(mean, std)
    assert found.gain.tolist() == [1, 1] and found.left.tolist() == [0, 0]
    torch.testing.assert_close(found.variance, torch.full((2,), 0.49))


def test_the_next_state_given_a_sample_is_that_of_a_noisy_sensor():
    """x ~ N(μ̄, Σ̄) and a sample x + ε of it, ε ~ N(0, Var), by conditioning of joint Gaussians."""
    mean, std = mixture(4, 1)
    found = fused(mean, std)
    world = found.variance.item()
    sensor = float(np.mean((mean - found.mean).square().numpy()))
    joint = np.array([[world, world], [world, world + sensor]])
    assert found.gain.item() == pytest.approx(joint[0, 1] / joint[1, 1])
    schur = joint[0, 0] - joint[0, 1] ** 2 / joint[1, 1]
    assert found.left.item() == pytest.approx(schur)


def test_information_is_the_entropy_of_the_cells_that_a_gaussian_falls_into():
    unit, std = 0.02, 0.7
    edges = np.arange(-8, 8, unit)
    chances = np.diff(stats.norm(0, std).cdf(edges))
    chances = chances[chances > 0]
    wanted = -(chances * np.log2(chances)).sum()
    found = information_lost(torch.tensor(std**2, dtype=torch.float64), unit=unit)
    assert found.item() == pytest.approx(wanted, abs=1e-3)
    assert information_lost(torch.tensor([0.0, 1e-14])).tolist() == [0, 0]
    with pytest.raises(ValueError, match="unit: must be positive, got 0"):
        information_lost(torch.tensor(1.0), unit=0)
