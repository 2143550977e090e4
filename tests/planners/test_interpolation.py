"""Interpolation matrices: hand-computed rows, exactness on polynomials, and shifting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planners.interpolation import INTERPOLATIONS, interpolation_matrix, shift_matrix

sizes = st.integers(1, 40).flatmap(lambda h: st.tuples(st.just(h), st.integers(1, h)))


def knot_times(horizon, knots):
    return np.linspace(0, horizon - 1, knots)


def test_zero_order_rows_equal_hand_computed_values():
    expected = [[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]]
    np.testing.assert_array_equal(interpolation_matrix(5, 2, "zero"), expected)


def test_linear_rows_equal_hand_computed_values():
    expected = [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
    np.testing.assert_allclose(interpolation_matrix(5, 3, "linear"), expected)


def test_cubic_rows_equal_hand_computed_values():
    """Four knots at 0, 2, 4, 6: at t = 1 the Lagrange weights are (5, 15, -5, 1) / 16."""
    row = interpolation_matrix(7, 4, "cubic")[1]
    np.testing.assert_allclose(row, np.array([5, 15, -5, 1]) / 16, atol=1e-12)


@given(sizes, st.sampled_from(INTERPOLATIONS))
def test_rows_sum_to_one(size, kind):
    horizon, knots = size
    matrix = interpolation_matrix(horizon, knots, kind)
    assert matrix.shape == size
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-9)


@pytest.mark.parametrize("kind", INTERPOLATIONS)
@pytest.mark.parametrize("horizon", [1, 2, 7])
def test_as_many_knots_as_steps_is_the_identity(kind, horizon):
    np.testing.assert_array_equal(interpolation_matrix(horizon, horizon, kind), np.eye(horizon))


@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_one_knot_gives_constant_actions(kind):
    np.testing.assert_array_equal(interpolation_matrix(6, 1, kind), np.ones((6, 1)))


@given(sizes.filter(lambda s: s[1] >= 2), st.sampled_from(["linear", "cubic"]))
def test_linear_and_cubic_interpolation_reproduce_lines(size, kind):
    horizon, knots = size
    line = 3 - 0.5 * knot_times(horizon, knots)
    actions = interpolation_matrix(horizon, knots, kind) @ line
    np.testing.assert_allclose(actions, 3 - 0.5 * np.arange(horizon), atol=1e-8)


@pytest.mark.parametrize("knots", [2, 3, 4, 5, 9, 20])
def test_cubic_reproduces_cubics(knots):
    """Polynomials up to degree 3, or knots - 1 where there are fewer than four."""
    horizon = 31
    polynomial = np.poly1d([2.0, -1.0, 0.5, 0.25][-knots:])
    knot_values = polynomial(knot_times(horizon, knots) / horizon)
    actions = interpolation_matrix(horizon, knots, "cubic") @ knot_values
    np.testing.assert_allclose(actions, polynomial(np.arange(horizon) / horizon), atol=1e-10)


@pytest.mark.parametrize("knots", [4, 5, 12])
def test_cubic_is_the_not_a_knot_spline(knots):
    scipy = pytest.importorskip("scipy.interpolate")
    values = np.random.default_rng(0).normal(size=(knots, 3))
    spline = scipy.CubicSpline(knot_times(30, knots), values, bc_type="not-a-knot")
    actions = interpolation_matrix(30, knots, "cubic") @ values
    np.testing.assert_allclose(actions, spline(np.arange(30)), atol=1e-10)


@given(sizes, st.sampled_from(INTERPOLATIONS), st.integers(0, 50))
def test_shifting_keeps_constants_and_zero_steps_change_nothing(size, kind, steps):
    horizon, knots = size
    matrix = interpolation_matrix(horizon, knots, kind)
    np.testing.assert_allclose(shift_matrix(matrix, steps).sum(1), 1, atol=1e-7)
    np.testing.assert_allclose(shift_matrix(matrix, 0), np.eye(knots), atol=1e-7)


def test_with_a_knot_for_every_step_shifting_rolls_and_holds_the_last():
    move = shift_matrix(interpolation_matrix(4, 4, "zero"), 3)
    np.testing.assert_allclose(move @ [1.0, 2.0, 3.0, 4.0], [4, 4, 4, 4], atol=1e-12)
    move = shift_matrix(interpolation_matrix(4, 4, "zero"), 1)
    np.testing.assert_allclose(move @ [1.0, 2.0, 3.0, 4.0], [2, 3, 4, 4], atol=1e-12)


def test_shifting_zero_order_knots_is_exact_by_segments_and_averages_within():
    matrix = interpolation_matrix(6, 3, "zero")
    np.testing.assert_allclose(shift_matrix(matrix, 2) @ [1.0, 2.0, 3.0], [2, 3, 3], atol=1e-12)
    # One step on, the segments hold (1, 2), (2, 3), (3, 3).
    half = shift_matrix(matrix, 1) @ [1.0, 2.0, 3.0]
    np.testing.assert_allclose(half, [1.5, 2.5, 3], atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 6, "zero"), r"knots must lie in 1\.\.horizon = 1\.\.5, got 6"),
        ((5, 0, "zero"), "got 0"),
        ((5, 3, "quintic"), "one of zero, linear, cubic, got 'quintic'"),
    ],
)
def test_bad_arguments_are_refused_with_what_is_accepted(arguments, message):
    with pytest.raises(ValueError, match=message):
        interpolation_matrix(*arguments)
