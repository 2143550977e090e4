"""Dynamic programming against the exact optimum, and its bounds after any number of sweeps."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from envs.tabular import FiniteMDP
from envs.worlds import garnet
from mbrl.tabular import modified_policy_iteration, policy_iteration, value_iteration

SOLVERS = {
    "value": value_iteration,
    "modified": modified_policy_iteration,
    "modified, much": lambda mdp, **kw: modified_policy_iteration(mdp, partial=50, **kw),
    "policy": lambda mdp, **_: policy_iteration(mdp),
}
solvers = pytest.mark.parametrize("solve", SOLVERS.values(), ids=list(SOLVERS))


def random_world(seed=0, *, ends=1, discount=0.95):
    """12 states, 3 actions, 3 outcomes each."""
    return garnet(12, 3, 3, rng=np.random.default_rng(seed), ends=ends, discount=discount)


def journey(seed=0):
    """Undiscounted costs; some policies end from every state, some never."""
    mdp = random_world(seed)
    rows = mdp.transitions.toarray().reshape(12, 3, 12)
    rows[:, 0] = 0.9 * rows[:, 0] + 0.1 * np.eye(12)[-1]
    rows[:, 2] = np.eye(12)  # stays forever
    return FiniteMDP(rows, -0.1 - abs(mdp.rewards), 1.0, 0, mdp.terminal)


def corridor(discount=1.0):
    """States 0 - 1 - 2 - 3 with deterministic moves left and right, -1 a step; 3 is terminal."""
    rows = np.zeros((4, 2, 4))
    for s in range(4):
        rows[s, 0, max(s - 1, 0)] = rows[s, 1, min(s + 1, 3)] = 1
    return FiniteMDP(rows, -np.ones((4, 2)), discount, 0, [3])


@solvers
@pytest.mark.parametrize("ends", [0, 1])
@pytest.mark.parametrize("discount", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("seed", range(3))
def test_solvers_find_the_optimum(solve, seed, discount, ends):
    mdp = random_world(seed, discount=discount, ends=ends)
    exact, found = mdp.optimum(), solve(mdp, tolerance=1e-9)
    assert found.bound <= 1e-9
    np.testing.assert_allclose(found.values, exact.values, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.action_values, exact.action_values, rtol=0, atol=1e-9)
    np.testing.assert_allclose(mdp.evaluate(found.policy), exact.values, rtol=0, atol=2e-9)


@solvers
@pytest.mark.parametrize("mdp", [corridor(), journey(), journey(1)], ids=["corridor", "a", "b"])
def test_with_discount_1_solvers_find_the_optimum_but_no_bound(solve, mdp):
    exact, found = mdp.optimum(), solve(mdp, tolerance=1e-12)
    assert found.bound == math.inf and found.residual <= 1e-11
    np.testing.assert_allclose(found.values, exact.values, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.action_values, exact.action_values, rtol=0, atol=1e-9)
    np.testing.assert_allclose(mdp.evaluate(found.policy), exact.values, rtol=0, atol=1e-9)


@solvers
@pytest.mark.parametrize("ends", [0, 1])
@pytest.mark.parametrize("sweeps", [1, 2, 3, 5, 8, 13])
def test_bounds_hold_after_any_number_of_sweeps(solve, sweeps, ends):
    """For values, action values and policy, far from convergence; the oracle is exact to 1e-10."""
    for seed in range(10):
        mdp = random_world(seed, ends=ends)
        exact, found = mdp.optimum(), solve(mdp, sweeps=sweeps)
        assert found.iterations >= 1
        assert abs(found.values - exact.values).max() <= found.bound + 1e-10
        assert abs(found.action_values - exact.action_values).max() <= found.bound + 1e-10
        loss = exact.values - mdp.evaluate(found.policy)
        assert loss.max() <= 2 * found.bound + 1e-10
        assert (found.values[mdp.terminal] == 0).all()


def test_span_bounds_stop_long_before_the_supremum_norm():
    """Without terminal states it takes a tenth of the log tol / log γ sweeps of the norm."""
    found = value_iteration(random_world(ends=0, discount=0.999), tolerance=1e-6)
    assert found.bound <= 1e-6
    assert found.iterations < 0.1 * math.log(1e-6 * 1e-3) / math.log(0.999)


@pytest.mark.parametrize("discount", [0.99, 0.999])
@pytest.mark.parametrize("ends", [0, 1])
def test_sweeps_converge_on_random_mdps(ends, discount):
    """200 MDPs in all, with and without terminal states, against the linear programme's policy
    evaluated by a linear solve, to 1e-8."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        states, actions, outcomes = (int(rng.integers(2, n)) for n in (12, 5, 4))
        mdp = garnet(states, actions, min(outcomes, states), rng=rng, ends=ends, discount=discount)
        exact = mdp.optimum().values
        for solve in (value_iteration, modified_policy_iteration):
            found = solve(mdp, tolerance=1e-6)
            assert found.bound <= 1e-6
            assert abs(found.values - exact).max() <= found.bound + 1e-8
            loss = exact - mdp.evaluate(found.policy)
            assert loss.max() <= 2 * found.bound + 1e-8


@pytest.mark.parametrize("solve", [value_iteration, modified_policy_iteration])
@pytest.mark.parametrize("discount", [0.99, 0.999, 0.9999])
@pytest.mark.parametrize("stay", [0.0, 0.1, 0.95, 0.98, 0.99])
def test_values_of_two_states_without_termination_equal_the_closed_form(stay, discount, solve):
    """From 0, which pays 1, to 0 with chance p; from 1 to 0 with chance q = 1 - p / 2. Then
    V(0) - V(1) = 1 / (1 - γ (p - q)), and V(1) (1 - γ) = γ q (V(0) - V(1))."""
    back = 1 - stay / 2
    go = np.array([[stay], [back]])
    mdp = FiniteMDP(np.stack([go, 1 - go], -1), np.array([[1.0], [0.0]]), discount, 0, [])
    gap = 1 / (1 - discount * (stay - back))
    low = discount * back * gap / (1 - discount)
    found = solve(mdp, sweeps=100)
    assert found.bound <= 1e-6
    np.testing.assert_allclose(found.values, [low + gap, low], rtol=0, atol=found.bound + 1e-9)


def test_a_cycle_takes_fewer_sweeps_than_its_discount_alone():
    """A cycle of three states, the first of which pays 1: V = (1, γ², γ) / (1 - γ³). Plain backups
    have period 3 and take ln(tolerance) / ln γ, 20,000 sweeps."""
    circle = np.roll(np.eye(3), 1, axis=1)[:, None]
    mdp = FiniteMDP(circle, np.array([[1.0], [0.0], [0.0]]), 0.999, 0, [])
    for solve in (value_iteration, modified_policy_iteration):
        found = solve(mdp)
        wanted = np.array([1, 0.999**2, 0.999]) / (1 - 0.999**3)
        assert found.bound <= 1e-6 and found.iterations < 1_000
        np.testing.assert_allclose(found.values, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ends", [0, 1])
def test_a_tolerance_below_rounding_ends_at_rounding(ends):
    for seed in range(20):
        mdp = random_world(seed, ends=ends, discount=0.99)
        for solve in (value_iteration, modified_policy_iteration):
            found = solve(mdp, tolerance=1e-300)
            assert found.bound < 1e-9
            np.testing.assert_allclose(found.values, mdp.optimum().values, rtol=0, atol=1e-9)


def test_one_sweep_and_its_bound_equal_hand_computed_values():
    """From -1 / (1 - γ) = -2 a sweep of the corridor gives V = (-2, -2, -1, 0), a synchronous
    backup T V = (-2, -1.5, -1, 0). T V - V lies in [0, ½], so V* - T V does, with γ = ½, and half
    of that from the middle. V* is (-1.75, -1.5, -1, 0)."""
    found = value_iteration(corridor(0.5), sweeps=1)
    np.testing.assert_allclose(found.values, [-1.75, -1.25, -0.75, 0])
    wanted = [[-1.75, -1.75], [-1.75, -1.25], [-1.75, -0.75]]
    np.testing.assert_allclose(found.action_values[:3], wanted)
    assert found.residual == pytest.approx(0.5) and found.bound == pytest.approx(0.25)
    assert found.iterations == 1 and found.policy[1:3].tolist() == [1, 1]


@pytest.mark.parametrize("unit", [2.0**-80, 2.0**-50, 2.0**40])
def test_the_best_policy_does_not_depend_on_the_unit_of_reward(unit):
    """A power of two, so that no rounding changes."""
    mdp = random_world(3)
    parts = {name: getattr(mdp, name) for name in ("transitions", "discount", "start", "terminal")}
    scaled = FiniteMDP(rewards=mdp.rewards * unit, **parts)
    whole, found = policy_iteration(mdp), policy_iteration(scaled)
    np.testing.assert_array_equal(found.policy, whole.policy)
    np.testing.assert_array_equal(found.values, whole.values * unit)
    np.testing.assert_allclose(scaled.optimum().values, whole.values * unit, rtol=1e-9)


def test_policy_iteration_continues_from_a_given_policy():
    mdp = random_world(4)
    found = policy_iteration(mdp)
    assert policy_iteration(mdp, policy=found.policy).iterations == 1
    first = policy_iteration(mdp, policy=np.full(12, 2), iterations=1)
    np.testing.assert_array_equal(first.policy[:-1], first.action_values.argmax(1)[:-1])


def test_solvers_refuse_bad_arguments_by_name():
    mdp = corridor()
    with pytest.raises(ValueError, match="this one never ends from state 0"):
        policy_iteration(mdp, policy=np.zeros(4, dtype=int))
    with pytest.raises(ValueError, match=r"a policy is \(S,\)"):
        policy_iteration(mdp, policy=np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1"):
        policy_iteration(mdp, policy=np.full(4, 2))
    with pytest.raises(ValueError, match="tolerance"):
        value_iteration(mdp, tolerance=0)
    with pytest.raises(ValueError, match="sweeps"):
        modified_policy_iteration(mdp, sweeps=0)
    with pytest.raises(ValueError, match="partial"):
        modified_policy_iteration(mdp, partial=-1)
    parts = {name: getattr(mdp, name) for name in ("transitions", "rewards", "terminal")}
    broken = SimpleNamespace(**parts | {"rewards": mdp.rewards * math.nan}, discount=0.9)
    with pytest.raises(ValueError, match="not finite"):
        value_iteration(broken)
    with pytest.raises(ValueError, match=r"rewards \(S, A\)"):
        value_iteration(SimpleNamespace(**parts | {"rewards": np.zeros((3, 2))}, discount=0.9))
    with pytest.raises(ValueError, match="discount"):
        value_iteration(SimpleNamespace(**parts, discount=1.1))
