"""Finite MDPs against power series, finite differences and textbook numbers; their environments."""

from __future__ import annotations

import dataclasses
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from envs import worlds
from envs.tabular import FiniteMDP, Layout, SeededOnce, TabularEnv


def random_mdp(seed: int, states: int, actions: int, discount: float, ends: int = 0) -> FiniteMDP:
    """Dense random rows, rewards by arrival, the last `ends` states terminal."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(states, 0.5), (states, actions))
    rewards = rng.normal(size=rows.shape)
    start = rng.dirichlet(np.ones(states))
    return FiniteMDP(rows, rewards, discount, start, np.arange(states - ends, states))


def random_policy(seed: int, mdp: FiniteMDP) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(mdp.actions), mdp.states)


MDPS = st.builds(
    random_mdp,
    st.integers(0, 2**32 - 1),
    st.integers(2, 7),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    st.integers(0, 1),
)
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=40, deadline=None)
@given(MDPS, SEEDS)
def test_values_are_the_sum_of_a_long_series(mdp, seed):
    """V = Σ γᵗ Pᵗ r, computed by products."""
    policy = random_policy(seed, mdp)
    chain, reward = mdp.under(policy)
    chain, values, term = chain.toarray(), np.zeros(mdp.states), reward
    for _ in range(3000):
        values, term = values + term, mdp.discount * (chain @ term)
    np.testing.assert_allclose(mdp.evaluate(policy), values, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(MDPS, SEEDS)
def test_occupancy_is_the_sum_of_visits_and_gives_the_return(mdp, seed):
    policy = random_policy(seed, mdp)
    occupancy = mdp.occupancy(policy)
    chain, _ = mdp.under(policy)
    back, visits, now = chain.toarray().T, np.zeros(mdp.states), mdp.start
    for _ in range(3000):
        visits, now = visits + now, mdp.discount * (back @ now)
    np.testing.assert_allclose(occupancy.sum(1), visits, rtol=1e-9, atol=1e-9)
    if not mdp.terminal.any():
        assert occupancy.sum() == pytest.approx(1 / (1 - mdp.discount))
    assert mdp.expected_return(policy) == pytest.approx((occupancy * mdp.rewards).sum(), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(MDPS)
def test_optimum_solves_bellmans_equation_and_no_policy_is_better(mdp):
    values, action_values, policy = mdp.optimum()
    np.testing.assert_allclose(values, mdp.action_values(values).max(1), atol=1e-8)
    np.testing.assert_allclose(action_values, mdp.action_values(values), atol=1e-12)
    np.testing.assert_allclose(mdp.evaluate(policy), values, atol=1e-12)
    if mdp.actions**mdp.states <= 300:  # each of them
        every = np.stack(np.meshgrid(*[np.arange(mdp.actions)] * mdp.states), -1)
        best = np.max([mdp.evaluate(one) for one in every.reshape(-1, mdp.states)], axis=0)
        np.testing.assert_allclose(values, best, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(MDPS, SEEDS)
def test_policy_gradient_equals_finite_differences(mdp, seed):
    logits = np.random.default_rng(seed).normal(size=(mdp.states, mdp.actions))

    def value(moved: np.ndarray) -> float:
        exp = np.exp(moved)
        return mdp.expected_return(exp / exp.sum(1, keepdims=True))

    gradient = mdp.policy_gradient(logits)
    for state, action in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[state, action] = 1e-5
        slope = (value(logits + step) - value(logits - step)) / 2e-5
        assert gradient[state, action] == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_values_of_the_4_by_4_grid_equal_the_books():
    """Sutton and Barto 2018, example 4.1: 4 × 4 cells, two terminal corners, the random policy."""
    row, column = np.divmod(np.arange(16), 4)
    to = np.clip(np.stack([row, column], 1)[:, None] + [(-1, 0), (0, 1), (1, 0), (0, -1)], 0, 3)
    rows = np.eye(16)[to[..., 0] * 4 + to[..., 1]]
    mdp = FiniteMDP(rows, np.full((16, 4), -1.0), 1.0, 5, [0, 15])
    values = mdp.evaluate(np.full((16, 4), 0.25)).reshape(4, 4)
    book = [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]]
    np.testing.assert_allclose(values, book, atol=1e-10)
    best = [[0, -1, -2, -3], [-1, -2, -3, -2], [-2, -3, -2, -1], [-3, -2, -1, 0]]
    np.testing.assert_allclose(mdp.optimum().values.reshape(4, 4), best, atol=1e-10)


def test_gridworld_values_equal_those_of_the_book():
    """Sutton and Barto 2018, examples 3.5 and 3.8: figures 3.2 and 3.5, to the printed digit."""
    rows, rewards = np.zeros((25, 4, 25)), np.zeros((25, 4))
    for state in range(25):
        for action, (down, right) in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1)]):
            y, x = state // 5 + down, state % 5 + right
            inside = 0 <= y < 5 and 0 <= x < 5
            after, reward = (y * 5 + x, 0.0) if inside else (state, -1.0)
            if state in (1, 3):
                after, reward = {1: (21, 10.0), 3: (13, 5.0)}[state]
            rows[state, action, after], rewards[state, action] = 1, reward
    mdp = FiniteMDP(rows, rewards, 0.9, 0, [])
    random = [
        [3.3, 8.8, 4.4, 5.3, 1.5],
        [1.5, 3.0, 2.3, 1.9, 0.5],
        [0.1, 0.7, 0.7, 0.4, -0.4],
        [-1.0, -0.4, -0.4, -0.6, -1.2],
        [-1.9, -1.3, -1.2, -1.4, -2.0],
    ]
    best = [
        [22.0, 24.4, 22.0, 19.4, 17.5],
        [19.8, 22.0, 19.8, 17.8, 16.0],
        [17.8, 19.8, 17.8, 16.0, 14.4],
        [16.0, 17.8, 16.0, 14.4, 13.0],
        [14.4, 16.0, 14.4, 13.0, 11.7],
    ]
    found = mdp.evaluate(np.full((25, 4), 0.25)).reshape(5, 5)
    np.testing.assert_allclose(found, random, atol=0.0501)
    np.testing.assert_allclose(mdp.optimum().values.reshape(5, 5), best, atol=0.0501)


@pytest.mark.parametrize("discount", [0.9, 0.9999])
@pytest.mark.parametrize("kind", ["random graph", "grid", "slippery grid"])
def test_many_states_solve_as_accurately_as_few(kind, discount):
    """Above the size limit of elimination; the solution is checked by a product."""
    if kind == "random graph":
        mdp = worlds.garnet(6000, 2, 3, rng=np.random.default_rng(0), discount=discount)
    else:
        mdp = worlds.open_grid(80, slip=0.3 * (kind == "slippery grid"), discount=discount)
    policy = random_policy(1, mdp)
    values = mdp.evaluate(policy)
    residual = np.abs((policy * mdp.action_values(values)).sum(1) - values).max()
    assert residual <= 2e-13 * (np.abs(mdp.rewards).max() + np.abs(values).max())
    occupancy = mdp.occupancy(policy)
    flow = mdp.start + discount * (mdp.transitions.T @ occupancy.ravel())
    np.testing.assert_allclose(occupancy.sum(1), flow, atol=1e-9, rtol=1e-9)
    exact = float(mdp.start @ values)
    assert (occupancy * mdp.rewards).sum() == pytest.approx(exact, rel=1e-9)


def test_the_duration_of_gamblers_ruin_equals_the_closed_form():
    """On 0..n with equal odds and terminal ends: i (n - i) steps from i (Feller 1968, XIV.3)."""
    n = 3000
    here = np.arange(n + 1)
    down, up = np.maximum(here - 1, 0), np.minimum(here + 1, n)
    ends = (np.full(2 * (n + 1), 0.5), np.stack([down, up], 1).ravel(), 2 * np.arange(n + 2))
    rows = sparse.csr_array(ends, shape=(n + 1, n + 1))
    mdp = FiniteMDP(rows, np.ones((n + 1, 1)), 1.0, n // 2, [0, n])
    steps = mdp.evaluate(np.zeros(n + 1, dtype=int))
    np.testing.assert_allclose(steps, here * (n - here), rtol=1e-7)


def test_rewards_by_arrival_are_accepted_dense_sparse_and_undefined():
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(4), (4, 2)) * (rng.random((4, 2, 4)) < 0.7)
    rows[..., 0] += 0.1
    rows /= rows.sum(-1, keepdims=True)
    pay = rng.normal(size=rows.shape)
    dense = FiniteMDP(rows, pay, 0.9, 0, [3])
    tall = FiniteMDP(rows, sparse.csr_array(pay.reshape(8, 4)), 0.9, 0, [3])
    expected = (rows * pay).sum(-1) * np.array([1, 1, 1, 0])[:, None]
    for mdp in (dense, tall):
        np.testing.assert_allclose(mdp.rewards, expected)
        np.testing.assert_array_equal(mdp.arrival.indices, mdp.transitions.indices)
        at = np.repeat(np.arange(8), np.diff(mdp.transitions.indptr)), mdp.transitions.indices
        np.testing.assert_array_equal(mdp.arrival.data, pay.reshape(8, 4)[at])
    pay[rows == 0] = np.nan  # rewards of impossible transitions
    np.testing.assert_allclose(FiniteMDP(rows, pay, 0.9, 0, [3]).rewards, expected)
    again = dataclasses.replace(dense, discount=0.5)
    assert again.discount == 0.5
    np.testing.assert_array_equal(again.arrival.toarray(), dense.arrival.toarray())


def test_arguments_are_not_changed():
    rows, rewards = np.full((2, 1, 2), 0.5), np.ones((2, 1))
    tall = sparse.csr_array(rows.reshape(2, 2))
    for transitions in (rows, tall):
        FiniteMDP(transitions, rewards, 0.9, 0, [1])
    assert (rows == 0.5).all() and (rewards == 1).all() and (tall.toarray() == 0.5).all()
    policy = np.array([[1.0, 0.0], [0.0, 1.0]])
    random_mdp(0, 2, 2, 0.9).evaluate(policy)
    np.testing.assert_array_equal(policy, np.eye(2))


def test_an_mdp_of_terminal_states_only_has_value_0():
    found = FiniteMDP(np.ones((1, 2, 1)), np.ones((1, 2)), 0.9, 0, [0]).optimum()
    assert found.values == 0 and (found.action_values == 0).all()


# Errors

ROWS = np.full((3, 2, 3), 1 / 3)
PAY = np.zeros((3, 2))


def changed(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"transitions": changed(ROWS, (1, 0, 2), 0.5)},
            "lake: the transitions of state 1, action 0 .* sum to 1.16666667",
        ),
        ({"transitions": changed(ROWS, (2, 1, 0), np.nan)}, "state 2, action 1 are no distr"),
        (
            {"transitions": changed(changed(ROWS, (0, 1, 0), -1 / 3), (0, 1, 1), 1.0)},
            "state 0, action 1 are no distribution.*least is -0.333",
        ),
        ({"transitions": np.ones((3, 2))}, r"transitions must be \(S, A, S\), got \(3, 2\)"),
        (
            {"transitions": sparse.csr_array((7, 3))},
            r"sparse transitions must be \(S · A, S\), got \(7, 3\)",
        ),
        ({"rewards": np.zeros((3, 3))}, r"rewards must be \(S, A\) = \(3, 2\).*got \(3, 3\)"),
        ({"rewards": changed(PAY, (2, 1), np.inf)}, "reward of state 2, action 1 is not finite"),
        ({"arrival": np.zeros((3, 3))}, r"arrival must be \(S · A, S\), got \(3, 3\)"),
        ({"arrival": np.ones((6, 3))}, "rewards are not those that arrival makes"),
        ({"discount": 1.1}, r"lake: discount must lie in \[0, 1\], got 1.1"),
        ({"discount": -0.1}, r"discount must lie in \[0, 1\], got -0.1"),
        ({"discount": np.nan}, r"discount must lie in \[0, 1\], got nan"),
        ({"discount": 1.0}, "discount 1 every state must be able to end; state 0 reaches no"),
        ({"start": 3}, r"start must be a state in 0..2 or a distribution \(S,\) over them"),
        ({"start": np.array([0.5, 0.4, 0.0])}, "start must be"),
        ({"start": np.array([1.5, -0.5, 0.0])}, "start must be"),
        ({"start": np.array([np.nan, 0.5, 0.5])}, "start must be"),
        ({"start": np.array([0.5, 0.5])}, "start must be"),
        ({"terminal": [3]}, r"terminal must be \(S,\) bool or states in 0..2"),
        ({"terminal": [0.5]}, r"terminal must be \(S,\) bool or states in 0..2"),
        (
            {"layout": Layout(np.zeros((1, 3), bool), np.zeros((3, 2), int), np.ones((3, 4, 2)))},
            r"layout's moves must be \(S, A, 2\) = \(3, 2, 2\), got \(3, 4, 2\)",
        ),
    ],
)
def test_wrong_arrays_are_refused_by_name(arguments, message):
    given = {"transitions": ROWS, "rewards": PAY, "discount": 0.9, "start": 0, "terminal": []}
    with pytest.raises(ValueError, match=message) as error:
        FiniteMDP(**(given | arguments), name="lake")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (np.ones((3, 2)) / 3, "policy of state 0 is no distribution"),
        (np.array([[0.5, 0.5], [1.5, -0.5], [1, 0]]), "policy of state 1 is no distribution"),
        (np.array([[0.5, 0.5], [1, 0], [np.nan, 1]]), "policy of state 2 is no distribution"),
        (np.ones((2, 2)) / 2, r"a policy is \(S, A\) = \(3, 2\).*got \(2, 2\)"),
        (np.zeros(3), r"a policy is \(S, A\) = \(3, 2\).*or \(S,\) integers, got \(3,\) float64"),
        (np.array([0, 1, 2]), r"a policy's actions must lie in 0..1"),
        (np.array([0, -1, 0]), r"a policy's actions must lie in 0..1"),
    ],
)
def test_wrong_policies_are_refused_by_name(policy, message):
    mdp = FiniteMDP(ROWS, PAY, 0.9, 0, [])
    for function in (mdp.evaluate, mdp.occupancy, mdp.expected_return, mdp.under):
        with pytest.raises(ValueError, match=message) as error:
            function(policy)
        assert "\n" not in str(error.value)


def test_wrong_logits_are_refused_by_name():
    mdp = FiniteMDP(ROWS, PAY, 0.9, 0, [])
    for wrong in (np.zeros(3), np.zeros((2, 2)), np.full((3, 2), np.nan)):
        with pytest.raises(ValueError, match=r"logits must be finite and \(S, A\) = \(3, 2\)"):
            mdp.policy_gradient(wrong)


def test_with_discount_1_a_policy_must_terminate():
    mdp = worlds.cliff_walk()
    left = np.full(48, 3)
    for function in (mdp.evaluate, mdp.occupancy):
        with pytest.raises(ValueError, match="never does from state 0"):
            function(left)
    cycle = np.zeros((3, 2, 3))
    cycle[0, 0, 1] = cycle[1, :, 0] = cycle[0, 1, 2] = cycle[2, :, 2] = 1
    rewards = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="no policy is best"):
        FiniteMDP(cycle, rewards, 1.0, 0, [2]).optimum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"walls": np.zeros(3, bool)}, r"walls must be \(rows, columns\)"),
        ({"cells": np.zeros((2, 3), int)}, r"cells must be \(S, 2\)"),
        ({"moves": np.zeros((2, 2), int)}, r"moves must be \(S, A, 2\)"),
        ({"moves": np.zeros((3, 1, 2), int)}, r"moves must be \(S, A, 2\)"),
        ({"hazards": np.zeros((2, 2), bool)}, "hazards must be like walls"),
        ({"cells": np.array([(0, 0), (1, 0)])}, "cells must lie in"),
    ],
)
def test_layouts_that_do_not_match_are_refused(arguments, message):
    given = {
        "walls": np.zeros((1, 2), bool),
        "cells": np.array([(0, 0), (0, 1)]),
        "moves": np.zeros((2, 1, 2), int),
    }
    with pytest.raises(ValueError, match=f"layout: {message}"):
        Layout(**(given | arguments))


# The environment


def counts(mdp: FiniteMDP, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of transitions (S, A, S), first states (S,), and rewards observed (S, A, S)."""
    env = mdp.env()
    seen = np.zeros((mdp.states, mdp.actions, mdp.states))
    first, paid = np.zeros(mdp.states), np.full(seen.shape, np.nan)
    env.action_space.seed(seed)
    state, _ = env.reset(seed=seed)
    first[state] += 1
    for _ in range(steps):
        action = env.action_space.sample()
        after, reward, terminated, truncated, _ = env.step(action)
        assert terminated == mdp.terminal[after] and not truncated
        seen[state, action, after] += 1
        if not np.isnan(paid[state, action, after]):
            assert reward == paid[state, action, after]
        paid[state, action, after] = reward
        state = after
        if terminated:
            state, _ = env.reset()
            first[state] += 1
    return seen, first, paid


def test_frequencies_of_steps_match_the_arrays():
    rng = np.random.default_rng(3)
    rows = rng.dirichlet(np.ones(5), (5, 2))
    pay = rng.normal(size=rows.shape)
    start = np.array([0.5, 0.2, 0.0, 0.3, 0.0])
    mdp = FiniteMDP(rows, pay, 0.9, start, [4])
    seen, first, paid = counts(mdp, 30_000, seed=0)
    for state in range(4):
        for action in range(2):
            row = seen[state, action]
            assert stats.chisquare(row, row.sum() * rows[state, action]).pvalue > 0.001
    starts = start > 0
    assert stats.chisquare(first[starts], first.sum() * start[starts]).pvalue > 0.001
    assert first[~starts].sum() == 0 and seen[4].sum() == 0
    np.testing.assert_array_equal(paid[seen > 0], pay[seen > 0])


def test_rewards_are_the_expected_ones_if_given_by_state_and_action():
    mdp = worlds.garnet(4, 2, 2, rng=np.random.default_rng(0))
    _, _, paid = counts(mdp, 2000, seed=0)
    for state, action in np.ndindex(4, 2):
        row = paid[state, action]
        np.testing.assert_array_equal(row[~np.isnan(row)], mdp.rewards[state, action])


def test_the_mean_return_of_episodes_is_the_expected_return():
    mdp = worlds.frozen_lake(4, discount=0.99)
    policy = mdp.optimum().policy
    env = mdp.env()
    returns = []
    state, _ = env.reset(seed=0)
    for _ in range(1500):
        total, weight, over = 0.0, 1.0, False
        while not over:
            state, reward, over, _, _ = env.step(policy[state])
            total, weight = total + weight * reward, weight * mdp.discount
        returns.append(total)
        state, _ = env.reset()
    error = np.std(returns) / np.sqrt(len(returns))
    assert abs(np.mean(returns) - mdp.expected_return(policy)) < 3 * error


def test_gymnasiums_check_env_passes_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(worlds.dyna_maze().env(render_mode="rgb_array"), skip_render_check=True)
        check_env(random_mdp(0, 4, 2, 0.9).env(), skip_render_check=True)


def test_the_seed_determines_the_episode():
    def episode(seed: int) -> list[tuple[int, float]]:
        env = worlds.four_rooms().env()
        env.reset(seed=seed)
        return [env.step(step % 4)[:2] for step in range(20)]

    assert episode(7) == episode(7) != episode(8)


def test_episodes_are_truncated_after_max_steps():
    env = worlds.chain().env(max_steps=3)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]


def test_the_step_of_a_change_is_counted_over_episodes():
    one, two = (worlds.blocking_maze(changed=changed) for changed in (False, True))
    env = TabularEnv(one, changes={3: two})
    env.reset(seed=0)
    env.step(0)
    env.reset()  # without a seed the clock continues
    env.step(0)
    assert env.mdp is one
    env.step(0)
    assert env.mdp is two
    env.reset()
    assert env.mdp is two
    env.reset(seed=0)
    assert env.mdp is one and env.steps == 0


def test_the_frame_shows_the_agents_cell():
    mdp = worlds.dyna_maze()
    env = mdp.env(render_mode="rgb_array")
    state, _ = env.reset(seed=0)
    cell = env.render().shape[0] // 6
    for action in (0, 1, 2, 2, 3):
        frame = env.render()
        row, column = mdp.layout.cells[state]
        middles = frame[cell // 2 :: cell, cell // 2 :: cell].astype(int)
        at = np.argwhere((middles == middles[row, column]).all(-1))
        np.testing.assert_array_equal(at, [(row, column)])
        walls = (middles == middles[0, 7]).all(-1)
        np.testing.assert_array_equal(walls, mdp.layout.walls)
        state, *_ = env.step(action)
    still = mdp.env()
    still.reset(seed=0)
    assert still.render() is None


def test_bad_actions_and_settings_are_refused_by_name():
    maze = worlds.dyna_maze()
    env = maze.env()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    for wrong in (4, -1, 0.5):
        with pytest.raises(ValueError, match=rf"dyna-maze: actions are 0..3, got {wrong}"):
            env.step(wrong)
    for action in (0, 0, *[1] * 6, 2, 2, 2, 2, 1, 1, 0, 0, 0, 0, 0):  # along the wall, then up
        if env.step(action)[2]:
            break
    else:
        raise AssertionError("not at the goal")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    bare = random_mdp(0, 3, 2, 0.9)
    for build, message in (
        (lambda: maze.env(render_mode="human"), "render_mode must be rgb_array or None"),
        (lambda: bare.env(render_mode="rgb_array"), "no picture of a world without a layout"),
        (lambda: maze.env(changes={5: bare}), "must keep 47 states and 4 actions, mdp has 3 and 2"),
        (lambda: maze.env(changes={0: worlds.dyna_maze()}), "needs at least one step, got 0"),
        (lambda: random_mdp(0, 3, 2, 0.9, ends=1).env(), "cannot start in a terminal state"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            build()
        assert "\n" not in str(error.value)


def test_a_later_seed_does_not_undo_changes_in_seeded_once():
    """The first reset is seeded as usual; a later one with a seed does not reset the clock."""
    old, new = worlds.blocking_maze(), worlds.blocking_maze(changed=True)
    bare, wrapped = (old.env(changes={2: new}) for _ in range(2))
    wrapped = SeededOnce(wrapped)
    assert bare.reset(seed=5)[0] == wrapped.reset(seed=5)[0]
    for env in (bare, wrapped):
        for _ in range(2):
            env.step(0)
        env.reset(seed=6)
    assert bare.unwrapped.mdp is old and wrapped.unwrapped.mdp is new


def test_properties_of_a_small_mdp_equal_hand_computed_values():
    rows = np.zeros((4, 2, 4))
    rows[0, :, 1] = rows[1, 0, 3] = rows[2, :, 0] = 1.0
    rows[1, 1, [0, 3]] = 0.5
    mdp = FiniteMDP(rows, np.zeros((4, 2)), 0.9, 0, [3])
    assert not mdp.deterministic and worlds.cliff_walk().deterministic
    assert mdp.enterable.tolist() == [True, True, False, False]  # nothing leads to 2, 3 is terminal
    assert mdp.uniform_policy.tolist() == [[0.5, 0.5]] * 4
    # 0 leads to 1, which leads back with probability ¼ or to the end: n = 1 + 1 + n / 4
    assert mdp.expected_steps(mdp.uniform_policy) == pytest.approx(8 / 3)
    rows[2] = np.eye(4)[2]
    with pytest.raises(ValueError, match="state 2 reaches no terminal state"):
        FiniteMDP(rows, np.zeros((4, 2)), 0.9, 0, [3]).expected_steps(mdp.uniform_policy)
