"""The worlds against gymnasium's tables, shortest paths, closed forms and published numbers."""

from __future__ import annotations

import warnings
from collections import deque

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy import stats

import envs
from envs import worlds
from envs.tabular import FiniteMDP, TabularEnv


def tables(id: str, **kwargs: object) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """gymnasium's transitions (S, A, S), expected rewards (S, A), terminal states, starts."""
    env = gymnasium.make(id, **kwargs).unwrapped
    table, states = env.P, len(env.P)
    rows = np.zeros((states, len(table[0]), states))
    rewards, ends = np.zeros(rows.shape[:2]), np.zeros(states, dtype=bool)
    for state, actions in table.items():
        for action, outcomes in actions.items():
            for chance, after, reward, terminated in outcomes:
                rows[state, action, after] += chance
                rewards[state, action] += chance * reward
                ends[after] |= terminated
    return rows, rewards, ends, env.initial_state_distrib


def shortest(mdp: FiniteMDP) -> int:
    """Fewest steps from the start to a terminal state if every outcome could be chosen."""
    distance = {int(mdp.start.argmax()): 0}
    queue = deque(distance)
    while queue:
        state = queue.popleft()
        if mdp.terminal[state]:
            return distance[state]
        rows = mdp.transitions[state * mdp.actions : (state + 1) * mdp.actions]
        for after in np.unique(rows.indices):
            if int(after) not in distance:
                distance[int(after)] = distance[state] + 1
                queue.append(int(after))
    raise AssertionError("no way")


@pytest.mark.parametrize(
    ("mdp", "id", "kwargs"),
    [
        (worlds.frozen_lake(4), "FrozenLake-v1", {"map_name": "4x4"}),
        (worlds.frozen_lake(8), "FrozenLake-v1", {"map_name": "8x8"}),
        (worlds.frozen_lake(4, slippery=False), "FrozenLake-v1", {"is_slippery": False}),
        (
            worlds.frozen_lake(8, slippery=False),
            "FrozenLake-v1",
            {"map_name": "8x8", "is_slippery": False},
        ),
        (worlds.cliff_walk(), "CliffWalking-v1", {}),
        (worlds.cliff_walk(slippery=True), "CliffWalkingSlippery-v1", {}),
    ],
    ids=["lake", "lake 8", "firm lake", "firm lake 8", "cliff", "slippery cliff"],
)
def test_tables_equal_those_of_gymnasium(mdp, id, kwargs):
    rows, rewards, ends, start = tables(id, **kwargs)
    np.testing.assert_array_equal(mdp.terminal, ends)
    rows[ends], rewards[ends] = 0, 0
    dense = mdp.transitions.toarray().reshape(rows.shape)
    np.testing.assert_allclose(dense, rows, rtol=0, atol=1e-15)
    np.testing.assert_allclose(mdp.rewards, rewards, rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(mdp.start, start)


@pytest.mark.parametrize(("size", "steps", "threshold"), [(4, 100, 0.74), (8, 200, 0.91)])
def test_lakes_reach_what_gymnasium_calls_their_optimum(size, steps, threshold):
    """gymnasium registers 0.74 in 100 steps and 0.91 in 200."""
    lake = worlds.frozen_lake(size, discount=1.0)
    values = np.zeros(lake.states)
    for _ in range(steps):
        values = lake.action_values(values).max(1)
    assert lake.start @ values == pytest.approx(threshold, abs=0.005)


@pytest.mark.parametrize(
    ("mdp", "steps"),
    [
        (worlds.dyna_maze(), 14),
        (worlds.blocking_maze(), 10),
        (worlds.blocking_maze(changed=True), 16),
        (worlds.shortcut_maze(), 16),
        (worlds.shortcut_maze(changed=True), 10),
        (worlds.windy_grid(), 15),
        (worlds.windy_grid(8), 7),
        (worlds.windy_grid(9), 7),
        (worlds.open_grid(12), 22),
        (worlds.cliff_walk(), 13),
    ],
    ids=lambda value: f"{value.name}" if isinstance(value, FiniteMDP) else str(value),
)
def test_shortest_paths_have_the_published_lengths(mdp, steps):
    """By the book (14, 15 and 13) or breadth-first search, and by the linear programme."""
    assert shortest(mdp) == steps
    optimum = float(mdp.start @ mdp.optimum().values)
    if mdp.rewards.max() > 0:  # 1 on arrival
        assert optimum == pytest.approx(mdp.discount ** (steps - 1), rel=1e-9)
    else:  # -1 a step
        paid = steps if mdp.discount == 1 else (1 - mdp.discount**steps) / (1 - mdp.discount)
        assert optimum == pytest.approx(-paid, rel=1e-9)


def test_worlds_have_the_sizes_of_the_books():
    assert worlds.dyna_maze().states == worlds.blocking_maze().states == 47
    assert worlds.four_rooms().states == 104
    assert worlds.windy_grid().states == 70


def test_four_rooms_moves_as_intended_with_probability_two_thirds():
    mdp = worlds.four_rooms()
    number = {tuple(cell): state for state, cell in enumerate(mdp.layout.cells)}
    middle = number[2, 3]  # no wall beside it
    rows = mdp.transitions.toarray().reshape(104, 4, 104)[middle]
    around = [number[1, 3], number[2, 4], number[3, 3], number[2, 2]]
    np.testing.assert_allclose(rows[:, around], np.full((4, 4), 1 / 9) + np.eye(4) * 5 / 9)
    hall = worlds.four_rooms(goal=(3, 6))
    assert hall.terminal[number[3, 6]] and hall.start[number[3, 6]] == 0
    with pytest.raises(ValueError, match=r"goal \(0, 0\) is not a free cell"):
        worlds.four_rooms(goal=(0, 0))


def test_values_of_the_chain_equal_the_closed_form():
    """Always forward: V_i = q γ V_{i+1} + (1 - q)(2 + γ V_0), and q (10 + γ V_n) at the end."""
    n, q, g = 5, 0.8, 0.95
    mdp = worlds.chain()
    # V_i = a_i + b_i V_0 from the end on, then V_0 = a_0 / (1 - b_0).
    a = (q * 10 + (1 - q) * 2) / (1 - q * g)
    b = (1 - q) * g / (1 - q * g)
    for _ in range(n - 1):
        a, b = q * g * a + (1 - q) * 2, q * g * b + (1 - q) * g
    assert mdp.optimum().values[0] == pytest.approx(a / (1 - b), rel=1e-12)
    np.testing.assert_array_equal(mdp.optimum().policy, 0)
    slips = worlds.chain(slip=1.0)  # then each action has the effect of the other
    np.testing.assert_array_equal(slips.optimum().policy, 1)
    assert slips.optimum().values[-1] == pytest.approx(10 / (1 - g))


@pytest.mark.parametrize("size", [2, 10, 30])
def test_moving_right_in_deep_sea_returns_0_99(size):
    mdp = worlds.deep_sea(size)
    assert mdp.start @ mdp.optimum().values == pytest.approx(0.99)
    coin = np.full((mdp.states, 2), 0.5)
    # One episode in 2^N is rewarded, and half of the moves cost.
    assert mdp.expected_return(coin) == pytest.approx(0.5**size - 0.005)
    drawn = worlds.deep_sea(size, rng=np.random.default_rng(0))
    assert drawn.start @ drawn.optimum().values == pytest.approx(0.99)
    best = drawn.optimum().policy
    diagonal = np.arange(size) * (size + 1)
    np.testing.assert_array_equal(drawn.layout.moves[diagonal, best[diagonal]], [[1, 1]] * size)
    if size > 2:
        assert 0 < best[diagonal].mean() < 1


def test_values_of_windy_deep_sea_equal_the_closed_form():
    """Right until the first slip: q^(N-1) for the reward, and the cost of each move until then."""
    size = 10
    q = 1 - 1 / size
    mdp = worlds.deep_sea(size, windy=True)
    cost = 0.01 / size * sum(q**i for i in range(size))
    assert mdp.start @ mdp.optimum().values == pytest.approx(q ** (size - 1) - cost, rel=1e-12)


def test_garnet_draws_rows_and_rewards_from_their_distributions():
    mdp = worlds.garnet(30, 3, 4, rng=np.random.default_rng(0))
    rows = mdp.transitions
    np.testing.assert_array_equal(np.diff(rows.indptr), 4)
    np.testing.assert_allclose(rows.sum(1), 1)
    # Uniform cuts: each of the four parts is Beta(1, 3).
    assert stats.kstest(rows.data[::4], stats.beta(1, 3).cdf).pvalue > 0.01
    assert stats.kstest(mdp.rewards.ravel(), stats.norm.cdf).pvalue > 0.01
    same = worlds.garnet(30, 3, 4, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(same.transitions.toarray(), rows.toarray())
    sure = worlds.garnet(6, 2, 1, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(sure.transitions.data, 1)
    assert not mdp.terminal.any() and (mdp.start == 1 / 30).all()
    ended = worlds.garnet(30, 3, 4, rng=np.random.default_rng(0), ends=5)
    assert (ended.terminal == (np.arange(30) >= 25)).all()
    assert (ended.start == np.where(ended.terminal, 0, 1 / 25)).all()
    np.testing.assert_array_equal(ended.transitions[:75].toarray(), rows[:75].toarray())


def test_stochastic_wind_lifts_by_one_of_three_amounts():
    mdp = worlds.windy_grid(stochastic=True)
    rows = mdp.transitions.toarray().reshape(70, 4, 70)
    state = 6 * 10 + 6  # at the bottom, where the wind is 2, moving right
    for lift in (1, 2, 3):
        assert rows[state, 1, (6 - lift) * 10 + 7] == pytest.approx(1 / 3)
    assert rows[0, 1, 1] == 1  # without wind nothing varies
    assert -30 < mdp.start @ mdp.optimum().values < -15


def test_an_open_grid_of_a_million_states_is_evaluated_exactly():
    mdp = worlds.open_grid(1000)
    assert mdp.states == 10**6 and mdp.transitions.nnz == 4 * (10**6 - 1)
    row, column = np.divmod(np.arange(10**6), 1000)
    straight = np.where(column < 999, 1, 2)
    distance = 2 * 999 - row - column
    exact = -(1 - 0.99**distance) / (1 - 0.99)
    np.testing.assert_allclose(mdp.evaluate(straight), exact, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="use value iteration"):
        mdp.optimum()


@pytest.mark.slow
def test_a_random_walk_on_a_million_states_solves_bellmans_equation():
    mdp = worlds.open_grid(1000)
    anyhow = np.full((10**6, 4), 0.25)
    values = mdp.evaluate(anyhow)
    backup = (anyhow * mdp.action_values(values)).sum(1)
    assert np.abs(backup - values).max() < 1e-11  # so that the error is below 1e-9
    occupancy = mdp.occupancy(anyhow)
    assert (occupancy * mdp.rewards).sum() == pytest.approx(values[0], rel=1e-10)


def test_slips_move_to_either_side():
    mdp = worlds.open_grid(5, slip=0.2)
    rows = mdp.transitions.toarray().reshape(25, 4, 25)
    np.testing.assert_allclose(rows[12, 0, [7, 11, 13, 17]], [0.8, 0.1, 0.1, 0])


# The wet chicken


def test_the_discrete_wet_chicken_equals_rounded_samples_of_the_continuous_one():
    mdp = worlds.wet_chicken()
    rows = mdp.transitions.toarray().reshape(25, 5, 25)
    moves = ((0, 0), (-1, 0), (-2, 0), (0, 1), (0, -1))
    tau = (np.arange(200_000) + 0.5) / 100_000 - 1  # an even grid over [-1, 1]
    for state in range(25):
        y, x = divmod(state, 5)
        for action, (down, right) in enumerate(moves):
            speed = 3 * x / 5
            at = np.rint(y + down + speed + (3.5 - speed) * tau).astype(int)
            beside = min(max(x + right, 0), 4)
            ends = np.where(at >= 5, 0, np.maximum(at, 0) * 5 + beside)
            shares = np.bincount(ends, minlength=25) / len(tau)
            np.testing.assert_allclose(rows[state, action], shares, atol=5e-5)
    np.testing.assert_allclose(mdp.rewards, rows @ (np.arange(25) // 5), atol=1e-12)


# By name


@pytest.mark.parametrize("name", worlds.WORLDS)
def test_each_world_is_made_by_name(name):
    env = envs.make(name, render_mode="rgb_array")
    inner = env.unwrapped
    assert isinstance(inner, TabularEnv)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(inner, skip_render_check=True)
    mdp = inner.mdp
    layout = mdp.layout
    env.reset(seed=0)
    before = env.render()
    assert before.dtype == np.uint8 and before.shape[2] == 3
    rows, columns = layout.walls.shape
    assert before.shape[0] * columns == before.shape[1] * rows
    on_grid = layout.cells[:, 0] >= 0
    assert on_grid.sum() >= mdp.states - 1
    assert len(np.unique(layout.cells[on_grid], axis=0)) == on_grid.sum()


def test_robots_are_listed_without_the_worlds():
    assert not set(worlds.WORLDS) & set(envs.names())


@pytest.mark.parametrize(("name", "at"), [("blocking-maze", 1000), ("shortcut-maze", 3000)])
def test_mazes_change_at_the_step_of_the_book(name, at):
    env = envs.make(name)
    before = worlds.WORLDS[name]()
    after = worlds.WORLDS[name](changed=True)
    env.reset(seed=0)
    inner = env.unwrapped
    env.action_space.seed(0)
    for step in range(at + 1):
        assert inner.steps == step
        now = after if step == at else before
        np.testing.assert_array_equal(inner.mdp.transitions.indices, now.transitions.indices)
        _, _, terminated, _, _ = env.step(env.action_space.sample())
        if terminated:
            env.reset()
    env.reset(seed=0)
    assert inner.steps == 0
    np.testing.assert_array_equal(inner.mdp.transitions.toarray(), before.transitions.toarray())


def test_a_maze_changes_at_a_given_step():
    env = envs.make("blocking-maze", change_at=2)
    env.reset(seed=0)
    env.step(0)
    assert env.unwrapped.mdp.layout.walls[3, 0]
    env.step(0)
    assert not env.unwrapped.mdp.layout.walls[3, 0]
    with pytest.raises(ValueError, match="chain: never changes; those that do are blocking-maze"):
        envs.make("chain", change_at=3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: worlds.chain(1), "chain: states must be at least 2, got 1"),
        (lambda: worlds.chain(slip=1.5), r"chain: slip must lie in \[0, 1\], got 1.5"),
        (lambda: worlds.frozen_lake(5), "frozen-lake: size must be 4 or 8, got 5"),
        (lambda: worlds.deep_sea(1), "deep-sea: size must be at least 2, got 1"),
        (lambda: worlds.windy_grid(5), "windy-grid: moves must be 4, 8 or 9, got 5"),
        (lambda: worlds.open_grid(1), "open-grid: size must be at least 2, got 1"),
        (lambda: worlds.open_grid(slip=float("nan")), "open-grid: slip must lie"),
        (
            lambda: worlds.garnet(3, 2, 4, rng=np.random.default_rng()),
            r"garnet: branching must lie in 1..3",
        ),
        (lambda: worlds.garnet(3, 0, 1, rng=np.random.default_rng()), "garnet: actions must be"),
        (
            lambda: worlds.garnet(3, 2, 2, rng=np.random.default_rng(), ends=3),
            r"garnet: ends must lie in 0..2, got 3",
        ),
    ],
)
def test_wrong_sizes_are_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
