"""Against closed forms, numerical integration, more digits, and samples."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import distributions as reference
from torch.utils._python_dispatch import TorchDispatchMode

from mbrl.distributions import (
    Bounds,
    Categorical,
    DiagonalGaussian,
    GeneralisedNoise,
    MultiCategorical,
    TanhGaussian,
    TwoHot,
    categorical_projection,
    clamp_log_std,
    gumbel_noise,
    quantile_midpoints,
    rescale_log_std,
    symexp,
    symlog,
    two_hot,
)

DOUBLE = torch.float64
BOX = Bounds(torch.tensor([-1.0, 0.0]).double(), torch.tensor([1.0, 5.0]).double())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=DOUBLE)


def gaussians(*lead, seed=0):
    mean, log_std = normal(*lead, 2, seed=seed), 0.3 * normal(*lead, 2, seed=seed + 1) - 0.5
    return DiagonalGaussian(mean, log_std)


# Gaussians.


def test_a_gaussian_against_torch():
    g, other = gaussians(4), gaussians(4, seed=7)
    theirs = reference.Independent(reference.Normal(g.mean, g.std), 1)
    theirs_other = reference.Independent(reference.Normal(other.mean, other.std), 1)
    value = normal(3, 4, 2, seed=5)
    torch.testing.assert_close(g.log_prob(value), theirs.log_prob(value))
    torch.testing.assert_close(g.entropy(), theirs.entropy())
    torch.testing.assert_close(g.kl(other), reference.kl_divergence(theirs, theirs_other))
    assert torch.equal(g.mode, g.mean)


def test_a_gaussian_by_hand():
    g = DiagonalGaussian(torch.tensor([5.0]), torch.tensor([0.0]))
    other = DiagonalGaussian(torch.tensor([2.0]), torch.tensor([0.0]))
    assert g.kl(other).item() == pytest.approx(4.5)
    assert other.kl(g).item() == pytest.approx(4.5)
    assert g.entropy().item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e))
    assert g.log_prob(torch.tensor([6.0])).item() == pytest.approx(-0.5 - math.log(2 * math.pi) / 2)
    assert g.sample(torch.tensor([-2.0])).item() == 3.0


def test_a_gaussian_whose_std_is_the_same_in_every_row():
    g = DiagonalGaussian(normal(3, 2), torch.tensor([0.1, -0.4]).double())
    full = DiagonalGaussian(g.mean, g.log_std.expand(3, 2))
    noise = normal(3, 2, seed=3)
    for ours, theirs in zip(
        g.sample_and_log_prob(noise), full.sample_and_log_prob(noise), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert torch.equal(g.entropy(), full.entropy())
    assert g.entropy().shape == (3,)
    torch.testing.assert_close(g.kl(full), torch.zeros(3, dtype=DOUBLE))


def test_the_kl_of_close_gaussians_keeps_its_digits():
    log_std = torch.tensor([0.3], dtype=torch.float32)
    near = log_std + 2e-4
    delta = (log_std - near).double().item()
    exact = 0.5 * math.expm1(2 * delta) - delta  # about δ² = 4e-8, below float32's epsilon
    mean = torch.zeros(1)
    found = DiagonalGaussian(mean, log_std).kl(DiagonalGaussian(mean, near)).item()
    assert found == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize("make", [lambda g: g, lambda g: TanhGaussian(*g, BOX)])
def test_the_density_of_a_sample_is_that_of_the_value(make):
    dist, noise = make(gaussians(5)), normal(7, 5, 2, seed=9)
    sample, log_prob = dist.sample_and_log_prob(noise)
    assert torch.equal(sample, dist.sample(noise))
    torch.testing.assert_close(log_prob, dist.log_prob(sample))
    assert log_prob.shape == (7, 5)


# Tanh-Gaussians.


def one(mean, std, low=-1.0, high=1.0):
    def vector(x):
        return torch.tensor([x], dtype=DOUBLE)

    return TanhGaussian(vector(mean), vector(math.log(std)), Bounds(vector(low), vector(high)))


@pytest.mark.parametrize(
    ("mean", "std", "low", "high"),
    [(0.0, 0.5, -1, 1), (1.5, 0.8, -2, 3), (-0.7, 1.0, 0, 5), (3.0, 0.3, -1, 1), (0.2, 0.01, 4, 9)],
)
def test_the_density_integrates_to_the_distribution_function(mean, std, low, high):
    """P(a < c) = Φ((tanh⁻¹(y_c) - mean) / std), for quantiles c of the distribution."""
    dist = one(mean, std, low, high)

    def density(a):
        return dist.log_prob(torch.tensor([a], dtype=DOUBLE)).exp().item()

    def action(z):
        return low + 0.5 * (high - low) * (math.tanh(mean + std * z) + 1)

    cuts = [low, *(action(z) for z in (-6, -4, -2, -1, 0, 1, 2, 4, 6)), high]
    below = [0.0, *stats.norm.cdf([-6, -4, -2, -1, 0, 1, 2, 4, 6]), 1.0]
    total = 0.0
    for left, right, expected in zip(cuts[:-1], cuts[1:], below[1:], strict=True):
        total += integrate.quad(density, left, right, epsabs=1e-10, limit=200)[0]
        assert total == pytest.approx(expected, abs=1e-6)


def test_against_a_transformed_distribution_of_torch():
    dist = TanhGaussian(*gaussians(6), BOX)
    theirs = reference.TransformedDistribution(
        reference.Independent(reference.Normal(dist.mean, dist.log_std.exp()), 1),
        [
            reference.TanhTransform(),
            reference.AffineTransform(BOX.centre, BOX.half, event_dim=1),
        ],
    )
    action = dist.sample(0.5 * normal(6, 2, seed=4))
    torch.testing.assert_close(dist.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(dist.mode, BOX.low + BOX.half * (1 + dist.mean.tanh()))


@pytest.mark.parametrize("distance", [1e-3, 1e-12, 1e-30, 1e-300])
def test_near_a_bound_the_density_has_all_its_digits(distance):
    """Against tanh⁻¹ with 700 digits; the lower bound is 0, so that actions come that close."""
    mean, std = -3.0, 20.0
    dist = one(mean, std, 0.0, 5.0)
    with mpmath.workdps(700):
        y = mpmath.mpf(distance) * 2 / 5 - 1
        z = (mpmath.atanh(y) - mean) / std
        jacobian = mpmath.mpf(5) / 2 * (1 - y**2)
        exact = float(-(z**2) / 2 - mpmath.log(std * mpmath.sqrt(2 * mpmath.pi) * jacobian))
    found = dist.log_prob(torch.tensor([distance], dtype=DOUBLE)).item()
    assert found == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("u", [-300.0, -30.0, -9.5, 0.0, 9.5, 30.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_that_round_to_a_bound_have_their_exact_density(u, dtype):
    bounds = Bounds(torch.tensor([-2.0], dtype=dtype), torch.tensor([2.0], dtype=dtype))
    mean = torch.tensor([u], dtype=dtype)
    dist = TanhGaussian(mean, torch.zeros(1, dtype=dtype), bounds)
    action, log_prob = dist.sample_and_log_prob(torch.zeros(1, dtype=dtype))
    with mpmath.workdps(700):
        jacobian = 2 * mpmath.sech(u) ** 2
        exact = float(-mpmath.log(mpmath.sqrt(2 * mpmath.pi) * jacobian))
    assert log_prob.item() == pytest.approx(exact, rel=1e-6 if dtype == torch.float32 else 1e-13)
    assert -2 <= action.item() <= 2


def test_on_a_bound_and_outside_the_density_is_zero_and_nan_stays_nan():
    dist = one(0.3, 0.7)
    values = torch.tensor([[-1.5], [-1.0], [0.0], [1.0], [1.5], [math.nan]]).double()
    found = dist.log_prob(values)
    assert (found[[0, 1, 3, 4]] == -math.inf).all()
    assert found[2].isfinite()
    assert found[5].isnan()
    mean = dist.mean.clone().requires_grad_()
    loss = TanhGaussian(mean, dist.log_std, dist.bounds).log_prob(values[:5])[[1, 2]]
    grad = torch.autograd.grad(loss[1], mean)[0]  # the row on the bound does not spoil the other
    assert grad.item() == pytest.approx((0 - 0.3) / 0.49)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-1e6, 1e6, width=32),
    st.floats(1.1920928955078125e-07, 1e6, width=32),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_samples_stay_inside_their_bounds(low, width, dtype):
    low = torch.tensor([low], dtype=dtype)
    high = low + width
    if not bool(high > low):
        return
    bounds = Bounds(low, high)
    mean = torch.tensor([[-1e4], [-9.0], [0.0], [9.0], [1e4]], dtype=dtype)
    action = TanhGaussian(mean, torch.zeros(1, dtype=dtype), bounds).mode
    assert bool(((action >= low) & (action <= high)).all())


def test_gradients_of_tanh_gaussian_samples_and_densities():
    mean, log_std = (x.requires_grad_() for x in gaussians(3))
    noise = normal(3, 2, seed=2)
    assert torch.autograd.gradcheck(
        lambda m, s: TanhGaussian(m, s, BOX).sample_and_log_prob(noise), (mean, log_std)
    )
    action = TanhGaussian(mean, log_std, BOX).sample(0.5 * noise).detach()
    assert torch.autograd.gradcheck(
        lambda m, s, a: TanhGaussian(m, s, BOX).log_prob(a),
        (mean, log_std, action.requires_grad_()),
    )


def test_a_sample_with_its_density_takes_ten_operations():
    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.calls += 1
            return function(*args, **(kwargs or {}))

    dist, noise = TanhGaussian(*gaussians(8), BOX), normal(8, 2)
    with Count() as count:
        dist.sample_and_log_prob(noise)
    assert count.calls <= 10


def test_parameterisations_of_the_log_std():
    raw = torch.tensor([-1e3, -6.0, 0.0, 1.0, 1e3])
    assert clamp_log_std(raw).tolist() == [-20, -6, 0, 1, 2]
    found = rescale_log_std(raw)
    assert found[[0, 2, 4]].tolist() == [-5, -1.5, 2]
    assert found[3].item() == pytest.approx(-5 + 3.5 * (math.tanh(1) + 1))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        ([0.0], [0.0], "low < high"),
        ([1.0], [0.0], "low < high"),
        ([0.0], [math.inf], "finite"),
        ([math.nan], [1.0], "finite"),
        ([0.0], [1.0, 2.0], "vectors of one size"),
    ],
)
def test_wrong_bounds(low, high, said):
    with pytest.raises(ValueError, match=said):
        Bounds(torch.tensor(low), torch.tensor(high))


# Generalised state-dependent exploration.


def test_generalised_noise_by_hand():
    g = GeneralisedNoise(
        torch.tensor([[1.0]]), torch.tensor([[math.log(2.0)], [0.0]]), torch.tensor([[3.0, 4.0]])
    )
    gaussian = g.gaussian()
    assert gaussian.std.item() == pytest.approx(math.sqrt(9 * 4 + 16 * 1))
    action = gaussian.sample(g.noise(torch.tensor([[0.5], [-0.5]])))
    assert action.item() == pytest.approx(1 + 3 * 2 * 0.5 - 4 * 0.5)


def test_generalised_noise_has_the_variance_of_its_gaussian():
    features, log_std, mean = normal(3, 4), 0.3 * normal(4, 2, seed=1), normal(3, 2, seed=2)
    g = GeneralisedNoise(mean, log_std, features)
    draws = 40_000
    many = GeneralisedNoise(mean.expand(draws, 3, 2), log_std, features.expand(draws, 3, 4))
    weights = normal(draws, 1, 4, 2, seed=3).expand(draws, 3, 4, 2)
    action = many.gaussian().sample(many.noise(weights))
    # the standard error of a std from 40,000 draws is 0.35 %
    torch.testing.assert_close(action.std(0), g.gaussian().std, rtol=0.015, atol=0)
    shared = g.gaussian().sample(g.noise(weights[0, 0]))
    torch.testing.assert_close(shared, action[0])  # one set of weights for all rows


def test_generalised_noise_is_a_function_of_the_state():
    features = normal(1, 4).expand(2, 4)
    g = GeneralisedNoise(torch.zeros(2, 3).double(), normal(4, 3, seed=1), features)
    noise = g.noise(normal(4, 3, seed=2))
    assert torch.equal(noise[0], noise[1])


def test_generalised_noise_of_no_features_is_none():
    g = GeneralisedNoise(torch.ones(1, 2), torch.zeros(3, 2), torch.zeros(1, 3))
    assert g.gaussian().sample(g.noise(torch.ones(3, 2))).tolist() == [[1, 1]]


# Categorical.


def test_a_categorical_against_torch():
    p, q = Categorical(normal(4, 5)), Categorical(normal(4, 5, seed=1))
    theirs, theirs_q = (reference.Categorical(logits=x.logits) for x in (p, q))
    action = torch.tensor([[0, 1, 4, 2], [3, 3, 0, 0]])
    torch.testing.assert_close(p.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(p.entropy(), theirs.entropy())
    torch.testing.assert_close(p.kl(q), reference.kl_divergence(theirs, theirs_q))
    torch.testing.assert_close(p.probs, theirs.probs)
    assert torch.equal(p.mode, theirs.probs.argmax(-1))


def test_a_categorical_by_hand():
    dist = Categorical(torch.tensor([1.0, 1.0, 2.0]).log())
    assert dist.probs.tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert dist.entropy().item() == pytest.approx(1.5 * math.log(2))
    assert dist.log_prob(torch.tensor(2)).item() == pytest.approx(-math.log(2))
    uniform = Categorical(torch.zeros(3))
    assert dist.kl(uniform).item() == pytest.approx(math.log(3) - 1.5 * math.log(2))


def test_gumbel_samples_have_the_probabilities():
    dist = Categorical(torch.tensor([1.0, 2.0, 7.0]).log())
    noise = gumbel_noise((50_000, 3), generator=generator())
    counts = dist.sample(noise).bincount(minlength=3)
    assert stats.chisquare(counts.numpy(), [5000, 10_000, 35_000]).pvalue > 0.01


def test_gumbel_noise_is_gumbel_and_finite():
    noise = gumbel_noise((20_000,), generator=generator(), dtype=DOUBLE)
    assert noise.dtype == DOUBLE
    assert noise.isfinite().all()
    assert stats.kstest(noise.numpy(), "gumbel_r").pvalue > 0.01
    assert torch.equal(noise, gumbel_noise((20_000,), generator=generator(), dtype=DOUBLE))


def test_forbidden_actions():
    logits = torch.tensor([0.0, -math.inf, 0.0], requires_grad=True)
    dist = Categorical(logits)
    assert dist.entropy().item() == pytest.approx(math.log(2))
    assert dist.log_prob(torch.tensor(1)).item() == -math.inf
    assert dist.kl(dist).item() == 0
    uniform = Categorical(torch.zeros(3))
    assert dist.kl(uniform).item() == pytest.approx(math.log(3 / 2))
    assert uniform.kl(dist).item() == math.inf
    samples = dist.sample(gumbel_noise((1000, 3), generator=generator()))
    assert set(samples.tolist()) == {0, 2}
    kls = dist.kl(uniform), dist.kl(Categorical(logits.detach()))
    for number in (dist.entropy(), 10 * dist.entropy(), *kls):
        grad = torch.autograd.grad(number, logits)[0]
        torch.testing.assert_close(grad, torch.zeros(3))  # it is uniform on what is allowed


def test_several_categoricals_are_independent_ones():
    sizes = (2, 3, 1)
    logits, other = normal(4, 6), normal(4, 6, seed=1)
    dist, parts = MultiCategorical(logits, sizes), logits.split(sizes, -1)
    action = torch.tensor([[0, 2, 0], [1, 1, 0], [0, 0, 0], [1, 2, 0]])
    expected = sum(Categorical(part).log_prob(action[:, d]) for d, part in enumerate(parts))
    torch.testing.assert_close(dist.log_prob(action), expected)
    assert dist.log_prob(action.expand(5, 4, 3)).shape == (5, 4)
    # over all joint actions: probabilities sum to 1, and the entropy is their mean information
    joint = torch.cartesian_prod(*map(torch.arange, sizes))[:, None].expand(6, 4, 3)
    log_prob = dist.log_prob(joint)
    torch.testing.assert_close(log_prob.exp().sum(0), torch.ones(4).double())
    torch.testing.assert_close(dist.entropy(), -(log_prob.exp() * log_prob).sum(0))
    q = MultiCategorical(other, sizes)
    torch.testing.assert_close(dist.kl(q), (log_prob.exp() * (log_prob - q.log_prob(joint))).sum(0))
    best = joint[log_prob.argmax(0), torch.arange(4)]
    assert torch.equal(dist.mode, best)
    noise = gumbel_noise((7, 4, 6), generator=generator(), dtype=DOUBLE)
    samples = dist.sample(noise)
    assert samples.shape == (7, 4, 3)
    assert torch.equal(samples[..., 1], Categorical(parts[1]).sample(noise[..., 2:5]))


# Two-hot and projections.


def test_two_hot_by_hand():
    bins = torch.tensor([0.0, 1.0, 4.0])
    found = two_hot(torch.tensor([0.0, 0.25, 1.0, 2.0, 4.0, 9.0, -9.0]), bins)
    assert found.tolist() == [
        [1, 0, 0], [0.75, 0.25, 0], [0, 1, 0], pytest.approx([0, 2 / 3, 1 / 3]),
        [0, 0, 1], [0, 0, 1], [1, 0, 0],
    ]  # fmt: skip
    assert two_hot(torch.tensor(math.nan), bins).isnan().any()


@settings(max_examples=60, deadline=None)
@given(st.floats(-20, 20), st.booleans())
def test_the_mean_of_a_two_hot_target_is_the_value(value, transformed):
    bins = torch.linspace(-21, 21, 43, dtype=DOUBLE)
    if transformed:
        value = math.copysign(math.expm1(abs(value)), value)
    number = torch.tensor(value, dtype=DOUBLE)
    target = two_hot(symlog(number) if transformed else number, bins)
    assert (target > 0).sum() <= 2
    dist = TwoHot(target.log(), bins, symlog=transformed)
    assert dist.mean.item() == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_two_hot_log_prob_is_the_cross_entropy():
    bins = torch.tensor([-1.0, 0.0, 2.0])
    logits = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 6.0]]).log_softmax(-1)
    found = TwoHot(logits, bins).log_prob(torch.tensor([1.0, -0.25]))
    expected = torch.stack((logits[0, 1:].mean(), 0.25 * logits[1, 0] + 0.75 * logits[1, 1]))
    torch.testing.assert_close(found, expected)
    transformed = TwoHot(logits, bins, symlog=True).log_prob(symexp(torch.tensor([1.0, -0.25])))
    torch.testing.assert_close(transformed, expected)


def test_two_hot_learns_the_mean_of_its_targets():
    """The cross entropy of several targets is least where the mean is theirs."""
    bins = torch.linspace(-2, 2, 5, dtype=DOUBLE)
    target = torch.tensor([-1.5, 0.3, 1.2]).double()
    best = two_hot(target, bins).mean(0).log()
    assert TwoHot(best, bins).mean.item() == pytest.approx(0.0, abs=1e-6)
    least = -TwoHot(best.expand(3, 5), bins).log_prob(target).mean()
    for seed in range(5):
        other = (best.exp() + 0.1).log() + 0.1 * normal(5, seed=seed)
        assert -TwoHot(other.expand(3, 5), bins).log_prob(target).mean() > least


def test_symlog_and_symexp():
    x = torch.tensor([-1e4, -1.0, 0.0, 1e-8, 3.0]).double()
    assert symlog(torch.tensor(math.e - 1)).item() == pytest.approx(1.0)
    torch.testing.assert_close(symexp(symlog(x)), x)
    torch.testing.assert_close(symlog(-x), -symlog(x))


def test_projection_by_hand():
    """Bellemare et al. 2017: r = 0.5, γ = 1 on the support 0, 1, 2; the last atom is clipped."""
    probs = torch.tensor([[0.2, 0.3, 0.5]])
    support = torch.tensor([0.0, 1.0, 2.0])
    found = categorical_projection(0.5 + support[None], probs, support)
    assert found[0].tolist() == pytest.approx([0.1, 0.1 + 0.15, 0.15 + 0.5])


def projected(atoms, probs, support):
    """The sum over atoms, one after the other."""
    result = [0.0] * len(support)
    for atom, p in zip(atoms, probs, strict=True):
        atom = min(max(atom, support[0]), support[-1])
        for k in range(len(support) - 1):
            if support[k] <= atom <= support[k + 1]:
                share = (atom - support[k]) / (support[k + 1] - support[k])
                result[k] += p * (1 - share)
                result[k + 1] += p * share
                break
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 1000), st.booleans())
def test_projection_onto_any_support(size, count, seed, on_atoms):
    support = normal(size, seed=seed).abs().cumsum(0) - 2
    atoms = 2 * normal(3, count, seed=seed + 1)
    if on_atoms:  # each atom is one of the support
        picks = torch.randint(size, (3, count), generator=generator(seed))
        atoms = support[picks]
    probs = normal(3, count, seed=seed + 2).softmax(-1)
    found = categorical_projection(atoms, probs, support)
    expected = [
        projected(a.tolist(), p.tolist(), support.tolist())
        for a, p in zip(atoms, probs, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=DOUBLE))
    torch.testing.assert_close(found.sum(-1), torch.ones(3).double())
    clipped = atoms.clamp(support[0], support[-1])
    torch.testing.assert_close((found * support).sum(-1), (clipped * probs).sum(-1))


def test_quantile_midpoints():
    assert quantile_midpoints(4).tolist() == [0.125, 0.375, 0.625, 0.875]
    with pytest.raises(ValueError, match="count"):
        quantile_midpoints(0)


# Errors.


GAUSSIAN = DiagonalGaussian(torch.zeros(3, 2), torch.zeros(3, 2))
SQUASHED = TanhGaussian(torch.zeros(3, 2), torch.zeros(2), Bounds(-torch.ones(2), torch.ones(2)))
NARROW = Bounds(-torch.ones(1), torch.ones(1))
CATEGORICAL = Categorical(torch.zeros(3, 4))
MULTI = MultiCategorical(torch.zeros(3, 4), (2, 2))
TWO_HOT = TwoHot(torch.zeros(3, 4), torch.arange(4.0))
NOISE = GeneralisedNoise(torch.zeros(3, 2), torch.zeros(4, 2), torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: GAUSSIAN.log_prob(torch.zeros(3, 1)), "value: want the shape (3, 2)"),
        (lambda: GAUSSIAN.log_prob(torch.zeros(2)), "value: want the shape (3, 2)"),
        (lambda: GAUSSIAN.sample(torch.zeros(3)), "noise: want"),
        (lambda: GAUSSIAN.kl(DiagonalGaussian(torch.zeros(2), torch.zeros(2))), "other: want"),
        (lambda: DiagonalGaussian(torch.zeros(3, 2), torch.zeros(3, 1)).entropy(), "log_std: want"),
        (lambda: DiagonalGaussian(torch.zeros(2), torch.zeros(3, 2)).entropy(), "log_std: want"),
        (lambda: SQUASHED.log_prob(torch.zeros(3, 1)), "action: want the shape (3, 2)"),
        (lambda: SQUASHED.sample(torch.zeros(3)), "noise: want"),
        (lambda: SQUASHED.sample_and_log_prob(torch.zeros(1, 2)), "noise: want"),
        (lambda: SQUASHED._replace(bounds=NARROW).mode, "bounds: want 2"),
        (lambda: SQUASHED._replace(bounds=NARROW).sample(torch.zeros(3, 2)), "bounds: want 2"),
        (lambda: CATEGORICAL.log_prob(torch.zeros(3)), "action: must be integers, got torch.float"),
        (lambda: CATEGORICAL.log_prob(torch.tensor([0, 1, 4])), "action: must be in 0..3"),
        (lambda: CATEGORICAL.log_prob(torch.tensor([0, 1, -1])), "action: must be in 0..3"),
        (lambda: CATEGORICAL.log_prob(torch.zeros(3, 1).long()), "action: want the shape (3,)"),
        (lambda: CATEGORICAL.sample(torch.zeros(3, 1)), "noise: want"),
        (lambda: CATEGORICAL.kl(Categorical(torch.zeros(4))), "other: want"),
        (lambda: Categorical(torch.tensor([0.0, math.nan])).mode, "logits: a row has NaN"),
        (lambda: Categorical(torch.full((2,), -math.inf)).mode, "no action that is allowed"),
        (
            lambda: Categorical(torch.tensor([math.nan, 0.0])).sample(torch.zeros(2)),
            "logits: a row has NaN",
        ),
        (lambda: MULTI.log_prob(torch.zeros(3, 3).long()), "action: want the shape (3, 2)"),
        (lambda: MultiCategorical(torch.zeros(3, 4), (2, 3)).mode, "sizes: want positive"),
        (lambda: MULTI.kl(MultiCategorical(torch.zeros(3, 4), (1, 3))), "other: want sizes"),
        (lambda: TWO_HOT.log_prob(torch.zeros(3, 1)), "value: want the shape (3,)"),
        (lambda: TwoHot(torch.zeros(3, 4), torch.arange(5.0)).mean, "bins: want one for each"),
        (lambda: two_hot(torch.zeros(3), torch.tensor([1.0, 1.0])), "support: must increase"),
        (lambda: two_hot(torch.zeros(3), torch.tensor([1.0, math.nan])), "support: must increase"),
        (lambda: two_hot(torch.zeros(3), torch.tensor([1.0])), "support: want a vector"),
        (
            lambda: categorical_projection(torch.zeros(3, 4), torch.zeros(4), torch.arange(4.0)),
            "probs: want the shape (3, 4)",
        ),
        (lambda: NOISE.noise(torch.zeros(2, 4, 2)), "weights: want the shape (4, 2)"),
        (lambda: NOISE._replace(log_std=torch.zeros(2, 4)).gaussian(), "features: want the shapes"),
    ],
)  # fmt: skip
def test_errors_name_the_culprit(call, said):
    with pytest.raises(ValueError) as caught:
        call()
    assert said in str(caught.value)
