import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mbrl.statistics import (
    align,
    bootstrap_interval,
    iqm,
    learning_curve,
    mean_error,
    order,
    probability_of_improvement,
    summarise,
)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("scores", "by_hand"),
    [
        ([3.0], 3.0),
        ([4.0, 1.0], 2.5),
        ([0.0, 3.0, 9.0], (0.25 * 0 + 3 + 0.25 * 9) / 1.5),
        ([1.0, 2.0, 6.0, 100.0], 4.0),  # one whole score from each end
        ([100.0, 4.0, 2.0, 8.0, 0.0], (0.75 * 2 + 4 + 0.75 * 8) / 2.5),
    ],
)
def test_iqm_equals_hand_computed_values(scores, by_hand):
    assert iqm(scores) == pytest.approx(by_hand, abs=1e-12)


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=40), st.randoms())
def test_iqm_agrees_with_the_trimmed_mean_when_four_divides_n(scores, random):
    scores = scores[: len(scores) // 4 * 4]
    expected = stats.trim_mean(scores, 0.25)
    random.shuffle(scores)
    assert iqm(scores) == pytest.approx(expected, abs=1e-9)


def test_iqm_ignores_a_quarter_of_outliers_along_any_axis():
    scores = rng().normal(size=(3, 8, 5))
    hurt = scores.copy()
    hurt[0, np.argmax(scores[0, :, 0]), 0] = 1e9
    np.testing.assert_allclose(iqm(hurt, axis=1), iqm(scores, axis=1))
    one_by_one = [[iqm(scores[i, :, j]) for j in range(5)] for i in range(3)]
    np.testing.assert_allclose(iqm(scores, axis=1), one_by_one)
    np.testing.assert_allclose(iqm(scores, axis=(1, 2)), [iqm(scores[i]) for i in range(3)])
    assert iqm(scores) == pytest.approx(iqm(scores.ravel()))


def test_iqm_of_an_exponential_is_its_integral():
    # 2 ∫ -log(1 - p) dp over [1/4, 3/4] = 2 [(1-p) log(1-p) + p]
    exact = 2 * ((0.25 * np.log(0.25) + 0.75) - (0.75 * np.log(0.75) + 0.25))
    assert iqm(rng().exponential(size=400_000)) == pytest.approx(exact, abs=0.006)


@pytest.mark.parametrize(("statistic", "truth"), [(np.mean, 1.0), (iqm, 0.738)])
def test_bootstrap_interval_has_the_stated_coverage(statistic, truth):
    """30 runs × 2 tasks of Exp(1): a 90 % interval should contain the truth in 90 % of trials."""
    draws, hits = rng(1), 0
    for _ in range(400):
        scores = draws.exponential(size=(30, 2))
        interval = bootstrap_interval(scores, statistic, rng=draws, level=0.9, resamples=300)
        hits += interval.low <= truth <= interval.high
    # The binomial error of 400 trials is 1.5 %; skewed scores cost a percentile interval 1-3 %.
    assert 0.83 <= hits / 400 <= 0.94


def test_bootstrap_resamples_within_each_task():
    """Constant tasks on different scales: no spread within a task, so none in the mean."""
    scores = np.tile([0.0, 1000.0], (5, 1))
    assert bootstrap_interval(scores, np.mean, rng=rng()) == (500.0, 500.0, 500.0)


def test_bootstrap_of_the_mean_has_the_plug_in_error():
    scores = rng().normal(size=(50, 3))
    _, low, high = bootstrap_interval(scores, np.mean, rng=rng(), resamples=20_000)
    error = np.sqrt((scores.var(0) / 50).sum()) / 3
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.03)
    assert bootstrap_interval(scores, rng=rng(3)) == bootstrap_interval(scores, rng=rng(3))


def test_a_higher_level_gives_a_wider_interval():
    scores = rng().normal(size=12)
    narrow = bootstrap_interval(scores, rng=rng(), level=0.5)
    wide = bootstrap_interval(scores, rng=rng(), level=0.99)
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high
    assert wide.estimate == narrow.estimate == iqm(scores)


def test_summary_equals_hand_computed_values():
    row = summarise([1.0, 2.0, 6.0, 7.0], rng=rng())
    assert row["n"] == 4 and row["mean"] == 4.0 and row["iqm"] == 4.0
    assert row["std"] == pytest.approx(np.sqrt(26 / 3))
    assert (row["min"], row["max"]) == (1.0, 7.0)
    assert 1.0 <= row["iqm_low"] < 4.0 < row["iqm_high"] <= 7.0
    one = summarise([5.0], rng=rng())
    assert one["iqm_low"] is one["iqm_high"] is one["std"] is None


def test_probability_of_improvement_equals_a_hand_computed_value():
    # 2 > 1; 2 = 2 counts half; 4 beats both: (1 + 1/2 + 1 + 1) / 4
    assert probability_of_improvement([2, 4], [1, 2], rng=rng()).estimate == 0.875
    assert probability_of_improvement([3, 4, 5], [0, 1], rng=rng()) == (1.0, 1.0, 1.0)
    two_tasks = probability_of_improvement([[9, 0], [9, 0]], [[1, 1]], rng=rng())
    assert two_tasks == (0.5, 0.5, 0.5)


def test_probability_of_improvement_of_shifted_normals_is_the_closed_form():
    x, y = rng(1).normal(1.0, size=(200, 2)), rng(2).normal(0.0, size=(150, 2))
    estimate, low, high = probability_of_improvement(x, y, rng=rng(), resamples=200)
    exact = stats.norm.cdf(1 / np.sqrt(2))
    assert low < exact < high and high - low < 0.1
    u = np.mean([stats.mannwhitneyu(x[:, j], y[:, j]).statistic for j in range(2)])
    assert estimate == pytest.approx(u / (200 * 150))


def test_align_carries_the_last_value_forward():
    grid, runs = align([([0, 10, 20], [1, 2, 3]), ([5, 15], [7, 8])])
    np.testing.assert_array_equal(grid, [5, 10, 15, 20])  # 0: the second run has no value yet
    np.testing.assert_array_equal(runs, [[1, 2, 2, 3], [7, 7, 8, 8]])
    grid, runs = align([([0, 10], [1, 2])], env_steps=[9.9, 10, 99])
    np.testing.assert_array_equal(runs, [[1, 2, 2]])


def test_learning_curve_matches_a_pointwise_interval():
    steps = np.arange(0, 60, 10)
    values = rng().normal(size=(8, 6)).cumsum(1)
    curve = learning_curve([(steps, v) for v in values], np.mean, rng=rng(), resamples=4000)
    np.testing.assert_array_equal(curve.runs, values)
    np.testing.assert_allclose(curve.estimate, values.mean(0))
    for j in range(6):
        _, low, high = bootstrap_interval(values[:, j], np.mean, rng=rng(9), resamples=4000)
        scale = values[:, j].std()
        assert abs(curve.low[j] - low) < 0.06 * scale and abs(curve.high[j] - high) < 0.06 * scale


def test_learning_curve_in_blocks_equals_one_block():
    steps = np.arange(3000)  # 2000 resamples × 5 runs fit some 400 steps a block
    values = rng().normal(size=(5, 3000))
    runs = [(steps, v) for v in values]
    whole = learning_curve(runs, rng=rng(4))
    part = learning_curve(runs, rng=rng(4), env_steps=steps[1000:1010])
    np.testing.assert_allclose(whole.low[1000:1010], part.low)
    np.testing.assert_allclose(whole.high[1000:1010], part.high)


@pytest.mark.parametrize(
    ("call", "culprit"),
    [
        (lambda: iqm([]), "scores: is empty"),
        (lambda: iqm([1.0, np.nan]), "scores: has NaN"),
        (lambda: summarise([np.inf], rng=rng()), "returns: has NaN or infinite"),
        (lambda: bootstrap_interval([], rng=rng()), "scores: is empty"),
        (lambda: bootstrap_interval([1.0, 2.0], rng=rng(), level=95), "level: .* got 95"),
        (lambda: bootstrap_interval(np.ones((2, 2, 2)), rng=rng()), r"\(runs, tasks\)"),
        (lambda: probability_of_improvement(np.ones((3, 2)), [1.0], rng=rng()), "2 tasks"),
        (lambda: align([]), "curves: want at least one run"),
        (lambda: align([([0, 1], [1.0])]), r"curves\[0\]: want as many steps"),
        (lambda: align([([0, 0], [1.0, 2.0])]), r"curves\[0\] steps: want them increasing"),
        (lambda: align([([5], [1.0])], env_steps=[0]), "grid from 5"),
    ],
)
def test_bad_input_is_refused_by_name(call, culprit):
    with pytest.raises(ValueError, match=culprit):
        call()


def test_means_and_errors_equal_hand_computed_values():
    mean, error = mean_error([[1.0, 2.0], [3.0, 8.0]])
    assert mean.tolist() == [2.0, 5.0] and error.tolist() == pytest.approx([1.0, 3.0])
    mean, error = mean_error([7.0])
    assert (float(mean), float(error)) == (7.0, 0.0)
    with pytest.raises(ValueError, match="values: is empty"):
        mean_error([])


def test_the_order_of_a_power_law_is_its_exponent():
    counts = [2**p for p in range(4, 10)]
    errors = 3 * np.array(counts) ** -0.5
    errors[:3] = 7.0  # the first half is not used
    assert order(counts, errors) == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="all positive"):
        order([1, 2, 3], [1.0, 0.5, 0.0])
