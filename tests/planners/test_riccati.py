"""LQR against scipy's Riccati solver and against a solution of the optimality conditions."""

import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from planners import lqr, stationary_lqr

H, S, A = 6, 3, 2


def positive(rng, size, *lead):
    root = rng.normal(size=(*lead, size, size))
    return root @ root.swapaxes(-1, -2) + np.eye(size)


def problem(seed):
    rng = np.random.default_rng(seed)
    return {
        "fx": rng.normal(size=(H, S, S)) / 2,
        "fu": rng.normal(size=(H, S, A)),
        "lxx": positive(rng, S, H + 1),
        "luu": positive(rng, A, H),
        "lux": 0.3 * rng.normal(size=(H, A, S)),
        "lx": rng.normal(size=(H + 1, S)),
        "lu": rng.normal(size=(H, A)),
        "constant": rng.normal(size=(H, S)),
    }


def kkt(p, x0):
    """States (H + 1, S) and actions (H, A), by solving all optimality conditions in one system."""
    n, m, size = (H + 1) * S, H * A, (H + 1) * S + H * A
    cost, linear = np.zeros((size, size)), np.concatenate((p["lx"].ravel(), p["lu"].ravel()))
    rows, right = np.zeros((n, size)), np.zeros(n)
    rows[:S, :S], right[:S] = np.eye(S), x0
    for t in range(H + 1):
        here = slice(t * S, (t + 1) * S)
        cost[here, here] = p["lxx"][t]
        if t < H:
            there, act = slice((t + 1) * S, (t + 2) * S), slice(n + t * A, n + (t + 1) * A)
            cost[act, act] = p["luu"][t]
            cost[act, here], cost[here, act] = p["lux"][t], p["lux"][t].T
            rows[there, there], rows[there, here] = np.eye(S), -p["fx"][t]
            rows[there, act], right[there] = -p["fu"][t], p["constant"][t]
    system = np.block([[cost, rows.T], [rows, np.zeros((n, n))]])
    solution = np.linalg.solve(system, np.concatenate((-linear, right)))
    return solution[:n].reshape(H + 1, S), solution[n : n + m].reshape(H, A)


@pytest.mark.parametrize("seed", range(5))
def test_finite_horizon_solves_the_optimality_conditions(seed):
    p = problem(seed)
    law = lqr(**p)
    x = np.random.default_rng(100 + seed).normal(size=S)
    states, actions = kkt(p, x)
    for t in range(H):
        np.testing.assert_allclose(x, states[t], atol=1e-8)
        u = law.gain[t] @ x + law.offset[t]
        np.testing.assert_allclose(u, actions[t], atol=1e-8)
        x = p["fx"][t] @ x + p["fu"][t] @ u + p["constant"][t]


def test_the_cost_to_go_equals_the_cost_of_the_rollout():
    """Differences between two starts, which do not contain the constant."""
    p = problem(0)
    law = lqr(**p)

    def cost(x):
        total, value = 0.0, x @ law.value_xx[0] @ x / 2 + law.value_x[0] @ x
        for t in range(H):
            u = law.gain[t] @ x + law.offset[t]
            total += x @ p["lxx"][t] @ x / 2 + u @ p["lux"][t] @ x + u @ p["luu"][t] @ u / 2
            total += p["lx"][t] @ x + p["lu"][t] @ u
            x = p["fx"][t] @ x + p["fu"][t] @ u + p["constant"][t]
        return total + x @ p["lxx"][H] @ x / 2 + p["lx"][H] @ x - value

    assert cost(np.array([1.0, -2.0, 0.5])) == pytest.approx(cost(np.zeros(S)), abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_the_infinite_horizon_solution_equals_scipys(seed):
    """Half of the systems are unstable."""
    rng = np.random.default_rng(seed)
    size, count = rng.integers(1, 8), rng.integers(1, 4)
    fx = rng.normal(size=(size, size))
    fx *= (0.9 if seed % 2 else 1.2) / np.abs(np.linalg.eigvals(fx)).max()
    fu = rng.normal(size=(size, count))
    joint = positive(rng, size + count)
    lxx, luu, lux = joint[:size, :size], joint[size:, size:], joint[size:, :size]
    gain, value = stationary_lqr(fx, fu, lxx, luu, lux=lux)
    expected = solve_discrete_are(fx, fu, lxx, luu, s=lux.T)
    np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-8)
    assert np.abs(np.linalg.eigvals(fx + fu @ gain)).max() < 1
    law = lqr(fx, fu, lxx, luu, lux=lux, horizon=400)
    np.testing.assert_allclose(law.gain[0], gain, rtol=1e-8, atol=1e-8)


def partly_seen(rng, modes):
    """A system without cost on some modes: fx, fu, lxx, luu in random coordinates."""
    size, unseen = rng.integers(2, 6), 1
    count = rng.integers(1, 3)
    fx = rng.normal(size=(size, size)) / np.sqrt(size)
    if modes == "rotating":
        unseen, angle = 2, rng.uniform(0.1, 3)
        fx[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    else:
        fx[0, 0] = modes * rng.choice((-1, 1))
    fx[unseen:, :unseen] = 0  # modes with cost do not depend on modes without
    root = rng.normal(size=(size, size))
    root[:, :unseen] = 0
    turn, _ = np.linalg.qr(rng.normal(size=(size, size)))
    fx, fu, lxx = turn @ fx @ turn.T, turn @ rng.normal(size=(size, count)), root.T @ root
    return fx, fu, turn @ lxx @ turn.T, positive(rng, count)


@pytest.mark.parametrize("seed", range(40))
def test_modes_without_cost_are_stabilised_as_by_scipy(seed):
    rng = np.random.default_rng(seed)
    problem = partly_seen(rng, rng.uniform(1.05, 2.0))
    gain, value = stationary_lqr(*problem)
    fx, fu, _, _ = problem
    assert np.abs(np.linalg.eigvals(fx + fu @ gain)).max() < 1
    expected = solve_discrete_are(*problem)
    np.testing.assert_allclose(value, expected, atol=1e-6 * np.abs(expected).max())


def test_the_gain_of_an_unstable_mode_equals_a_hand_computed_value():
    """x' = 1.5 x + u with the cost u²: the optimal closed loop is 1 / 1.5."""
    fx, lxx = np.diag([1.5, 0.5]), np.diag([0.0, 1.0])
    gain, value = stationary_lqr(fx, np.eye(2), lxx, np.eye(2))
    assert 1.5 + gain[0, 0] == pytest.approx(1 / 1.5, rel=1e-12)
    assert value[0, 0] == pytest.approx(1.5**2 - 1, rel=1e-12)


@pytest.mark.parametrize("modes", [1.0, "rotating"])
def test_undamped_modes_without_cost_raise_an_error(modes):
    for seed in range(20):
        with pytest.raises(ValueError, match="no solution that stabilises"):
            stationary_lqr(*partly_seen(np.random.default_rng(seed), modes))


def test_a_system_that_cannot_be_stabilised_raises_an_error():
    with pytest.raises(ValueError, match="no solution that stabilises"):
        stationary_lqr(np.array([[2.0]]), np.array([[0.0]]), np.eye(1), np.eye(1))


def test_a_cost_that_is_not_convex_raises_an_error():
    eye = np.eye(1)
    with pytest.raises(ValueError, match="not convex in u at step 2"):
        lqr(eye, eye, 0 * eye, -eye, horizon=3)
