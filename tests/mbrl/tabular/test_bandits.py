"""Bandits: indices computed by hand, posteriors by scipy, and regret against theory."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, special, stats

from mbrl.tabular import (
    KLUCB,
    UCB1,
    BetaBernoulli,
    EpsilonGreedy,
    InformationDirected,
    NormalNormal,
    Thompson,
    _bandit_loops,
)
from mbrl.tabular.bandits import lai_robbins, regret, ucb1_bound
from mbrl.tabular.posteriors import bernoulli_kl, best_arm, least_ratio

EVERY = {
    "greedy": lambda runs, arms: EpsilonGreedy(runs, arms, epsilon=0.1),
    "ucb1": UCB1,
    "kl-ucb": KLUCB,
    "thompson": Thompson,
    "gaussian thompson": lambda runs, arms: Thompson(runs, arms, posterior=NormalNormal()),
    "ids": InformationDirected,
    "mutual ids": lambda runs, arms: InformationDirected(runs, arms, information="mutual"),
    "gaussian ids": lambda runs, arms: InformationDirected(runs, arms, posterior=NormalNormal()),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fed(bandit, counts, sums):
    """A bandit that has seen these counts and sums of rewards, in every run."""
    bandit.counts[:] = torch.tensor(counts)
    bandit.sums[:] = torch.tensor(sums)
    bandit.steps = int(sum(counts))
    return bandit


# Indices.


def test_ucb1_indices_equal_hand_computed_values():
    """Four plays: arm 0 paid 1, 1, 0, arm 1 paid 0; arm 2 is untried."""
    bandit = UCB1(2, 3)
    for arm, reward in [(0, 1.0), (0, 1.0), (1, 0.0), (0, 0.0)]:
        bandit.observe(torch.tensor([arm, arm]), torch.tensor([reward, reward]))
    log = 2 * math.log(4)
    expected = [2 / 3 + math.sqrt(log / 3), math.sqrt(log), math.inf]
    assert bandit.index(generator=seeded())[1].tolist() == pytest.approx(expected)
    assert bandit.choose(generator=seeded()).tolist() == [2, 2]
    bandit.observe(torch.tensor([2, 2]), torch.tensor([1.0, 0.0]))
    # √(2 ln 5) over √3, 1, 1: in run 0 the third arm is best, in run 1 two arms are equal
    index = bandit.index(generator=seeded())
    assert index[0].tolist() == pytest.approx(
        [2 / 3 + math.sqrt(2 * math.log(5) / 3)] + [math.sqrt(2 * math.log(5)) + x for x in (0, 1)]
    )
    drawn = [bandit.choose(generator=seeded(i)).tolist() for i in range(40)]
    assert {first for first, _ in drawn} == {2}
    assert {second for _, second in drawn} == {1, 2}


def test_kl_ucb_solves_its_equation_for_extreme_counts_and_means():
    """KL(mean, q) n = ln t if q < 1, for all counts and means."""
    rng = np.random.default_rng(0)
    plays = np.exp(rng.uniform(0, np.log(1e6), 20_000)).round()
    wins = np.floor(rng.choice([0, 1e-3, 0.5, 0.999, 1], 20_000) * plays + rng.random(20_000))
    wins[::2] = np.floor(rng.random(10_000) * (plays[::2] + 1))
    bandit = KLUCB(10_000, 2)
    bandit.counts[:], bandit.sums[:] = (
        torch.tensor(x).view(10_000, 2) for x in (plays, np.minimum(wins, plays))
    )
    bandit.steps = 10**7
    q = bandit.index(generator=seeded()).double().flatten().numpy()
    p, level = np.minimum(wins, plays) / plays, math.log(10**7) / plays
    assert ((q >= p) & (q <= 1)).all()
    for side, sign in ((q - 1e-9, 1), (np.minimum(q + 1e-9, 1), -1)):
        side = np.maximum(side, p)
        excess = special.rel_entr(p, side) + special.rel_entr(1 - p, 1 - side) - level
        inside = (q > p + 1e-9) & (q < 1 - 1e-9)
        assert (sign * excess[inside] < 0).all()


@pytest.mark.parametrize("wins", [0, 1, 7, 19, 20])
def test_kl_ucb_equals_the_root_found_by_scipy(wins):
    """The root by scipy; without wins 1 - t^(-1/n), with only wins 1."""
    bandit = fed(KLUCB(1, 2), [20.0, 80.0], [float(wins), 40.0])
    found = bandit.index(generator=seeded())[0, 0].item()
    level = math.log(100) / 20

    def excess(q):
        return float(stats.entropy([wins / 20, 1 - wins / 20], [q, 1 - q])) - level

    expected = 1.0 if wins == 20 else optimize.brentq(excess, wins / 20 + 1e-12, 1 - 1e-12)
    assert found == pytest.approx(expected, abs=1e-9)
    if wins == 0:
        assert found == pytest.approx(1 - 100 ** (-1 / 20))


def test_epsilon_greedy_explores_with_probability_epsilon():
    bandit = fed(EpsilonGreedy(40_000, 4, epsilon=0.2), [5.0] * 4, [1.0, 4.0, 2.0, 3.0])
    share = torch.bincount(bandit.choose(generator=seeded()), minlength=4) / 40_000
    assert share.tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05], abs=0.006)
    decaying = EpsilonGreedy(10_000, 2, epsilon=lambda t: 1 / t)
    decaying.observe(torch.zeros(10_000, dtype=torch.int64), torch.ones(10_000))
    share = decaying.choose(generator=seeded()).double().mean()  # ε is 1/2: a quarter
    assert share == pytest.approx(0.25, abs=0.02)


# Posteriors.


def test_beta_draws_follow_the_conjugate_posterior():
    counts, sums = [3.0, 40.0, 0.0], [2.0, 11.0, 0.0]
    bandit = fed(Thompson(20_000, 3, posterior=BetaBernoulli(0.5, 2.0)), counts, sums)
    draws = bandit.index(generator=seeded()).numpy()
    posterior = BetaBernoulli(0.5, 2.0)
    grid = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    density = posterior.log_density(bandit.counts[0], bandit.sums[0], grid).numpy()
    mean, std = posterior.moments(bandit.counts[0], bandit.sums[0])
    for k in range(3):
        exact = stats.beta(0.5 + sums[k], 2.0 + counts[k] - sums[k])
        assert stats.kstest(draws[:, k], exact.cdf).pvalue > 1e-3
        np.testing.assert_allclose(density[k], exact.logpdf(grid), rtol=1e-9)
        assert (mean[k].item(), std[k].item()) == pytest.approx((exact.mean(), exact.std()))


def test_normal_draws_follow_the_conjugate_posterior():
    """n rewards of sum s: the posterior by weighted least squares, with the prior as a datum."""
    counts, sums = [4.0, 0.0], [6.0, 0.0]
    prior = NormalNormal(mean=-1.0, std=2.0, noise=3.0)
    bandit = fed(Thompson(20_000, 2, posterior=prior), counts, sums)
    draws = bandit.index(generator=seeded()).numpy()
    # whitened rows: the prior's 1/2, and four rewards of mean 3/2 each 1/3
    rows, right = np.array([1 / 2] + [1 / 3] * 4), np.array([-1 / 2] + [1.5 / 3] * 4)
    exact = stats.norm(np.linalg.lstsq(rows[:, None], right)[0][0], 1 / np.linalg.norm(rows))
    assert stats.kstest(draws[:, 0], exact.cdf).pvalue > 1e-3
    assert stats.kstest(draws[:, 1], stats.norm(-1, 2).cdf).pvalue > 1e-3
    grid = torch.linspace(-3, 5, 9, dtype=torch.float64)
    density = prior.log_density(bandit.counts[0], bandit.sums[0], grid)[0]
    np.testing.assert_allclose(density, exact.logpdf(grid), rtol=1e-9)
    mean, std = prior.moments(bandit.counts[0], bandit.sums[0])
    assert (mean[0].item(), std[0].item()) == pytest.approx((exact.mean(), exact.std()))


@pytest.mark.parametrize("prior", [BetaBernoulli(), NormalNormal(0.2, 1.0, 0.7)])
def test_the_probability_of_the_best_arm_equals_quadrature(prior):
    """P(A* = a) and E[mean | A* = a] of three arms, against scipy's integrals."""
    counts, sums = torch.tensor([[10.0, 3.0, 50.0]]).double(), torch.tensor([[4, 2, 26.0]]).double()
    found = best_arm(prior, counts, sums, points=1024)
    if isinstance(prior, BetaBernoulli):
        arms = [stats.beta(1 + 4, 1 + 6), stats.beta(1 + 2, 1 + 1), stats.beta(1 + 26, 1 + 24)]
        low, high = 0.0, 1.0
    else:
        mean, std = prior.moments(counts[0], sums[0])
        arms = [stats.norm(m, s) for m, s in zip(mean.tolist(), std.tolist(), strict=True)]
        low, high = -4.0, 5.0

    x = np.linspace(low, high, 20_001)
    density, below = [arm.pdf(x) for arm in arms], [arm.cdf(x) for arm in arms]
    partial = [integrate.cumulative_simpson(x * f, x=x, initial=0) for f in density]
    for a in range(3):
        one, two = (k for k in range(3) if k != a)
        chance = integrate.simpson(density[a] * below[one] * below[two], x=x)
        own = integrate.simpson(x * density[a] * below[one] * below[two], x=x)
        assert found.chance[0, a].item() == pytest.approx(chance, abs=1e-4)
        assert found.given[0, a, a].item() == pytest.approx(own / chance, abs=1e-3)
        for k, third in ((one, two), (two, one)):
            beaten = integrate.simpson(density[a] * below[third] * partial[k], x=x)
            assert found.given[0, a, k].item() == pytest.approx(beaten / chance, abs=1e-3)


NARROW = [
    ([1e5, 3], [6e4, 1]),
    ([1e6, 20, 3], [5e5, 11, 2]),
    ([1e4, 1e7, 5, 40], [6e3, 6.01e6, 2, 23]),
]


@pytest.mark.parametrize("prior", [BetaBernoulli(), NormalNormal(0.5, 1.0, 0.5)])
@pytest.mark.parametrize("counts, sums", NARROW)
def test_the_probability_of_the_best_arm_is_accurate_for_a_narrow_posterior(prior, counts, sums):
    """With as many points as `InformationDirected` uses, against sums over an arm's quantiles."""
    counts, sums = torch.tensor([counts]).double(), torch.tensor([sums]).double()
    found = best_arm(prior, counts, sums, points=128)
    if isinstance(prior, BetaBernoulli):
        shapes = list(zip((1 + sums)[0].tolist(), (1 + counts - sums)[0].tolist(), strict=True))
        arms = [stats.beta(a, b) for a, b in shapes]
        # ∫ t f(t) dt up to x, by t · Beta(a, b) = mean · Beta(a + 1, b)
        partial = [lambda x, a=a, b=b: a / (a + b) * stats.beta(a + 1, b).cdf(x) for a, b in shapes]
    else:
        mean, std = (each[0].tolist() for each in prior.moments(counts, sums))
        arms = [stats.norm(m, s) for m, s in zip(mean, std, strict=True)]
        partial = [lambda x, n=n: n.mean() * n.cdf(x) - n.var() * n.pdf(x) for n in arms]
    every = range(len(arms))
    for a in every:
        x = arms[a].ppf((np.arange(20_000) + 0.5) / 20_000)  # equally probable
        below = [arms[k].cdf(x) if k != a else np.ones_like(x) for k in every]
        chance = np.prod(below, 0).mean()
        assert found.chance[0, a].item() == pytest.approx(chance, abs=2e-3)
        if chance > 0.01:
            own = (x * np.prod(below, 0)).mean() / chance
            assert found.given[0, a, a].item() == pytest.approx(own, abs=1e-2)
            for k in set(every) - {a}:
                others = np.prod([below[j] for j in every if j != k], 0)
                beaten = (partial[k](x) * others).mean() / chance
                assert found.given[0, a, k].item() == pytest.approx(beaten, abs=1e-2)


def test_expectations_stay_in_range_if_the_probability_of_being_best_underflows():
    """One arm is far better, so P(A* = a) of the others underflows."""
    counts = torch.tensor([[84.0, 10.0, 206.0]]).double()
    found = best_arm(BetaBernoulli(), counts, torch.tensor([[1.0, 10.0, 32.0]]).double(), points=64)
    assert found.chance[0, 1] == pytest.approx(1)
    assert ((found.given >= 0) & (found.given <= 1)).all()
    for information in ("variance", "mutual"):
        bandit = InformationDirected(1, 3, information=information)
        bandit = fed(bandit, counts[0].tolist(), [1.0, 10.0, 32.0])
        assert bandit.choose(generator=seeded()) == 1


@pytest.mark.parametrize("seed", range(5))
def test_no_mixture_of_all_arms_has_a_lower_information_ratio_than_one_of_two(seed):
    """Against scipy's minimum over all distributions over five arms."""
    rng = np.random.default_rng(seed)
    cost, gain = rng.uniform(0, 1, 5), rng.uniform(0, 0.3, 5)
    mix = least_ratio(torch.tensor(cost), torch.tensor(gain))

    def ratio(p):
        return (p @ cost) ** 2 / (p @ gain)

    found = np.zeros(5)
    found[mix.first] += mix.share
    found[mix.second] += 1 - mix.share.item()
    best = min(
        optimize.minimize(
            ratio, rng.dirichlet(np.ones(5)), bounds=[(0, 1)] * 5,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1}, method="SLSQP",
            options={"ftol": 1e-14},
        ).fun
        for _ in range(5)
    )  # fmt: skip
    assert ratio(found) <= best + 1e-9
    assert ratio(found) == pytest.approx(best, rel=1e-4)


def test_the_information_ratio_is_minimal_over_all_mixtures_of_two_arms():
    """500 problems against a grid of 2,001 shares of every pair; and by hand: costs ½, 1 and gains
    0.1, 1: (1 - q / 2)² / (1 - 0.9 q) has its least 0.9877 = 80 / 81 at q = 2 / 9."""
    rng, share = np.random.default_rng(5), np.linspace(0, 1, 2001)[:, None, None]
    for _ in range(500):
        arms = int(rng.integers(2, 7))
        cost, gain = rng.uniform(0, 1, arms), rng.uniform(1e-3, 1, arms)
        mix = least_ratio(torch.tensor(cost), torch.tensor(gain))
        q, i, j = mix.share.item(), int(mix.first), int(mix.second)
        found = (q * cost[i] + (1 - q) * cost[j]) ** 2 / (q * gain[i] + (1 - q) * gain[j])
        grid = (share * cost[:, None] + (1 - share) * cost) ** 2 / (
            share * gain[:, None] + (1 - share) * gain
        )
        assert 0.999 * grid.min() <= found <= grid.min() * (1 + 1e-12)
    mix = least_ratio(torch.tensor([0.5, 1.0]).double(), torch.tensor([0.1, 1.0]).double())
    share = mix.share if mix.first == 0 else 1 - mix.share
    assert mix.first != mix.second and share.item() == pytest.approx(2 / 9)


def test_an_arm_without_regret_is_chosen_even_without_information():
    """Its ratio is 0 / 0; only its squared regret is 0."""
    mix = least_ratio(torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.2, 0.4]]), torch.tensor(
        [[0.1, 0.0, 0.2], [0.0, 0.1, 0.2]]
    ))  # fmt: skip
    assert mix.first.tolist() == mix.second.tolist() == [2, 0]


def test_free_information_is_taken_and_without_information_the_arm_of_least_regret():
    """Information without regret is chosen; without any information, the arm of least regret."""
    free = least_ratio(torch.tensor([0.0, 0.5]), torch.tensor([0.1, 0.2]))
    share = torch.where(free.first == 0, free.share, 1 - free.share)
    assert share == 1 or free.first == free.second == 0
    none = least_ratio(torch.tensor([0.3, 0.1, 0.2]), torch.zeros(3))
    assert none.first == none.second == 1
    alike = least_ratio(torch.tensor([0.2, 0.2]), torch.tensor([0.1, 0.3]))
    assert torch.where(alike.first == 1, alike.share, 1 - alike.share) == 1 or (
        alike.first == alike.second == 1
    )


# Regret.


def test_theoretical_bounds_equal_hand_computed_values():
    """Arms 1/2 and 1/4: KL(1/4, 1/2) = ¼ ln ½ + ¾ ln 3/2."""
    kl = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert lai_robbins([0.5, 0.25]) == pytest.approx(0.25 / kl)
    assert lai_robbins([0.5, 0.25, 0.5], noise=2.0) == pytest.approx(2 * 4 / 0.25)
    expected = 8 * math.log(1000) / 0.25 + (1 + math.pi**2 / 3) * 0.25
    assert ucb1_bound([0.5, 0.25, 0.5], 1000) == pytest.approx(expected)
    assert lai_robbins([0.3, 0.3]) == ucb1_bound([0.3], 10) == 0


MEANS = [0.9, 0.6]


def curve(bandit, steps):
    """Mean regret (T,) on the two arms."""
    return regret(bandit, torch.tensor(MEANS), steps=steps, generator=seeded()).mean(0)


def slope(curve, first, last):
    """Slope of the regret over ln t between two plays."""
    return float(curve[last - 1] - curve[first - 1]) / math.log(last / first)


def test_the_regret_of_ucb1_lies_between_its_bounds():
    """Always under Auer's bound; steeper than that of Lai and Robbins, as it is not optimal."""
    lost = curve(UCB1(300, 2), 5000)
    assert all(lost[t - 1] <= ucb1_bound(MEANS, t) for t in (10, 100, 1000, 5000))
    assert slope(lost, 500, 5000) > 2 * lai_robbins(MEANS)


def test_the_regret_of_kl_ucb_is_closer_to_the_lai_robbins_bound_than_that_of_ucb1():
    found = slope(curve(KLUCB(150, 2), 3000), 300, 3000)
    assert lai_robbins(MEANS) < found < 1.6 * lai_robbins(MEANS)


def test_the_regret_of_thompson_approaches_the_lai_robbins_slope():
    """From below: it is steeper in the later decade, and never exceeds it."""
    lost = curve(Thompson(300, 2), 10_000)
    early, late = slope(lost, 100, 1000), slope(lost, 1000, 10_000)
    assert 0.4 * lai_robbins(MEANS) < early < late - 0.05 < lai_robbins(MEANS)
    assert late > 0.6 * lai_robbins(MEANS)


def test_regret_of_constant_epsilon_is_linear():
    """Once the best arm is known, ε · (mean gap) a play."""
    lost = regret(
        EpsilonGreedy(500, 3, epsilon=0.3), torch.tensor([0.9, 0.5, 0.1]), steps=2000,
        generator=seeded(),
    ).mean(0)  # fmt: skip
    assert (lost[-1] - lost[999]) / 1000 == pytest.approx(0.3 * (0 + 0.4 + 0.8) / 3, rel=0.02)


def test_regret_of_decaying_epsilon_is_logarithmic():
    """Auer's schedule with c = 6 on a gap of 0.8."""
    schedule = EpsilonGreedy(1000, 2, epsilon=lambda t: min(1.0, 6 * 2 / (0.8**2 * t)))
    lost = regret(schedule, torch.tensor([0.9, 0.1]), steps=3000, generator=seeded()).mean(0)
    # ε_t is 18.75 / t, half of which falls on the worse arm
    assert slope(lost, 300, 3000) == pytest.approx(0.8 * 18.75 / 2, rel=0.05)


def thompson_chance(one, two):
    """P(θ₁ > θ₂) for Beta(1 + s, 1 + n - s) posteriors of (n, s), by a sum of scipy's betas."""
    (n, s), (m, r) = one, two
    a, b, c, d = 1 + s, 1 + n - s, 1 + r, 1 + m - r
    i = np.arange(a)  # Miller 2015: the sum over one arm's wins, with integer shapes
    log = special.betaln(c + i, b + d) - np.log(b + i) - special.betaln(1 + i, b)
    return np.exp(log - special.betaln(c, d)).sum()


def ucb_chance(upper):
    """Probability of the first of two arms, by an index of mean, n and t."""

    def chance(one, two):
        if not (one[0] and two[0]):
            return 0.5 if one[0] == two[0] else float(one[0] == 0)
        t = one[0] + two[0]
        first, second = (upper(s / n, n, t) for n, s in (one, two))
        return 0.5 if abs(first - second) < 1e-9 else float(first > second)

    return chance


def kl_root(p, n, t):
    if p == 1 or t == 1:
        return p

    def excess(q):
        return n * float(special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q)) - math.log(t)

    return optimize.brentq(excess, p, 1 - 1e-15, xtol=1e-13)


CHANCES = {
    Thompson: thompson_chance,
    UCB1: ucb_chance(lambda p, n, t: p + math.sqrt(2 * math.log(t) / n)),
    KLUCB: ucb_chance(kl_root),
}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", CHANCES, ids=lambda kind: kind.__name__)
def test_regret_equals_the_sum_over_all_histories(kind, compiled):
    """Two arms, 0.7 and 0.4, 25 plays: the probability of each count and sum after each play."""
    means, plays, runs = (0.7, 0.4), 25, 20_000
    chances = {((0, 0), (0, 0)): 1.0}
    exact, expected = [], 0.0
    for _ in range(plays):
        after = {}
        for (one, two), weight in chances.items():
            first = CHANCES[kind](one, two)
            expected += weight * (1 - first) * 0.3
            for arm, share in enumerate((first, 1 - first)):
                for reward, chance in ((1, means[arm]), (0, 1 - means[arm])):
                    pair = [one, two]
                    pair[arm] = (pair[arm][0] + 1, pair[arm][1] + reward)
                    key = tuple(pair)
                    after[key] = after.get(key, 0.0) + weight * share * chance
        exact.append(expected)
        chances = {key: weight for key, weight in after.items() if weight > 0}
    bandit = kind(runs, 2) if compiled else type("Subclass", (kind,), {})(runs, 2)
    lost = regret(
        bandit, torch.tensor(means, dtype=torch.float64), steps=plays, generator=seeded()
    ).numpy()
    assert (bandit.counts.sum(1) == plays).all() and bandit.steps == plays
    error = lost.std(0) / math.sqrt(runs)
    assert (abs(lost.mean(0) - exact) < 4 * error + 1e-12).all()


@pytest.mark.parametrize("shape", [0.3, 1.0, 7.5])
def test_gamma_draws_have_scipys_distribution(shape):
    rng = np.random.default_rng(0)
    draws = [_bandit_loops._gamma(shape, rng) for _ in range(10_000)]
    assert stats.kstest(draws, stats.gamma(shape).cdf).pvalue > 1e-3


@pytest.mark.parametrize("information", ["variance", "mutual"])
def test_information_directed_sampling_has_less_regret_than_thompson(information):
    """On the same problems, by three standard errors."""
    means = torch.rand(150, 5, generator=seeded(1))
    bandit = InformationDirected(150, 5, information=information, points=64)
    directed = regret(bandit, means, steps=200, generator=seeded())[:, -1]
    drawn = regret(Thompson(150, 5), means, steps=200, generator=seeded())[:, -1]
    less = drawn - directed
    assert less.mean() > 3 * less.std() / math.sqrt(len(less))


@pytest.mark.parametrize("name", EVERY)
def test_every_bandit_has_no_regret_with_one_arm_and_plays_equal_arms_alike(name):
    alone = regret(EVERY[name](3, 1), torch.tensor([0.4]), steps=20, generator=seeded())
    assert alone.shape == (3, 20) and (alone == 0).all()
    bandit = EVERY[name](300, 3)
    assert (regret(bandit, torch.full((3,), 0.5), steps=30, generator=seeded()) == 0).all()
    assert (bandit.counts.sum(1) == 30).all()
    # by symmetry: a third of 300 · 30 plays to each arm
    share = bandit.counts.sum(0) / bandit.counts.sum()
    assert share.tolist() == pytest.approx([1 / 3] * 3, abs=0.05)


@pytest.mark.parametrize("name", EVERY)
def test_every_bandit_finds_the_best_arm_and_repeats_itself_for_a_seed(name):
    def played(seed):
        bandit = EVERY[name](30, 3)
        regret(bandit, torch.tensor([0.05, 0.95, 0.1]), steps=150, generator=seeded(seed))
        return bandit.counts

    assert played(0)[:, 1].mean() > 100
    assert (played(0) == played(0)).all()
    assert (played(0) != played(1)).any()


# Bad input.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UCB1(3, 0), "arms must be an integer of at least 1, got 0"),
        (lambda: Thompson(0, 2), "runs must be an integer of at least 1, got 0"),
        (lambda: BetaBernoulli(0.0), "alpha must be finite and > 0, got 0.0"),
        (lambda: NormalNormal(noise=math.nan), "noise must be finite and > 0, got nan"),
        (lambda: InformationDirected(1, 2, information="all"), "information must be variance or"),
        (lambda: InformationDirected(1, 2, points=0), "points must be an integer of at least 1"),
        (
            lambda: EpsilonGreedy(1, 2, epsilon=1.5).choose(generator=seeded()),
            r"epsilon must lie in \[0, 1\], got 1.5",
        ),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_observations_are_refused_by_name():
    bandit, zero = Thompson(2, 3), torch.zeros(2, dtype=torch.int64)
    for rewards in (torch.tensor([0.0, math.nan]), torch.zeros(3)):
        with pytest.raises(ValueError, match=r"rewards must be finite, \(R,\) = \(2,\)"):
            bandit.observe(zero, rewards)
    for kind in (UCB1, KLUCB, Thompson):
        with pytest.raises(ValueError, match=r"rewards must lie in \[0, 1\]"):
            kind(2, 3).observe(zero, torch.tensor([0.0, 1.2]))
    Thompson(2, 3, posterior=NormalNormal()).observe(zero, torch.tensor([0.0, 1.2]))
    for arms in (torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([0])):
        with pytest.raises(ValueError, match=r"arms must be \(R,\) = \(2,\) integers in 0..2"):
            bandit.observe(arms, torch.zeros(2))
    assert bandit.steps == 0 and (bandit.counts == 0).all()
    with pytest.raises(ValueError, match=r"means must be finite, \(K,\) = \(3,\)"):
        regret(bandit, torch.tensor([0.1, 0.2]), steps=1, generator=seeded())
    with pytest.raises(ValueError, match=r"means must lie in \[0, 1\]"):
        regret(bandit, torch.tensor([0.1, 0.2, 1.3]), steps=1, generator=seeded())


def test_bernoulli_kl_equals_hand_computed_values():
    found = bernoulli_kl(torch.tensor([0.0, 1.0, 0.5]), torch.tensor([0.5, 0.5, 0.5]))
    assert found.tolist() == pytest.approx([math.log(2), math.log(2), 0])
