"""Successor representations: closed form against linear solve, TD against both, transfer."""

import math

import numpy as np
import pytest

from envs.tabular import FiniteMDP
from mbrl.tabular.successor import (
    SuccessorFeatures,
    generalised_improvement,
    reward_weights,
    successor_features,
    successor_representation,
)


def random_mdp(rng, states=8, actions=3, discount=0.9, rewards=None, terminal=()):
    transitions = rng.dirichlet(np.full(states, 0.3), (states, actions))
    rewards = rng.standard_normal((states, actions)) if rewards is None else rewards
    return FiniteMDP(transitions, rewards, discount, 0, np.array(terminal, dtype=int))


def with_rewards(mdp, rewards):
    return FiniteMDP(mdp.transitions, rewards, mdp.discount, mdp.start, mdp.terminal)


def random_policy(rng, mdp):
    return rng.dirichlet(np.ones(mdp.actions), mdp.states)


# The representation.


def test_the_representation_of_two_states_equals_hand_computed_values():
    """0 leads to 1, which stays: with γ = ½, from 0 half of the time is spent in each."""
    mu = successor_representation(np.array([[0.0, 1.0], [0.0, 1.0]]), 0.5)
    assert mu == pytest.approx(np.array([[0.5, 0.5], [0.0, 1.0]]))


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_occupancies_and_give_the_values(seed):
    """Against linear solves of the MDP, one for each start; rows sum to one."""
    rng = np.random.default_rng(seed)
    mdp = random_mdp(rng)
    policy = random_policy(rng, mdp)
    chain, reward = mdp.under(policy)
    mu = successor_representation(chain, mdp.discount)
    np.testing.assert_allclose(mu.sum(1), 1, rtol=1e-10)
    np.testing.assert_allclose(mu @ reward / (1 - mdp.discount), mdp.evaluate(policy), rtol=1e-9)
    for start in range(mdp.states):
        begun = FiniteMDP(mdp.transitions, mdp.rewards, mdp.discount, start, mdp.terminal)
        occupancy = begun.occupancy(policy).sum(1) * (1 - mdp.discount)
        np.testing.assert_allclose(mu[start], occupancy, rtol=1e-8, atol=1e-12)
    dense = successor_representation(chain.toarray(), mdp.discount)
    np.testing.assert_allclose(dense, mu, rtol=1e-10)


def test_td_converges_to_the_closed_form():
    """TD with averaging over a long walk, for states and for features of pairs."""
    rng = np.random.default_rng(0)
    mdp = random_mdp(rng, states=4, actions=2, discount=0.7)
    policy = random_policy(rng, mdp)
    onehot = np.repeat(np.eye(4)[:, None], 2, 1) * (1 - 0.7)
    other = rng.standard_normal((4, 2, 3))
    learned = [
        SuccessorFeatures(phi, policy, discount=0.7, step_size=1.0, step_decay=0.7)
        for phi in (onehot, other)
    ]
    rows = mdp.transitions.toarray().reshape(4, 2, 4)
    state = 0
    for _ in range(40_000):
        action = int(rng.random() < 0.5)  # off-policy
        following = int(rng.choice(4, p=rows[state, action]))
        for learner in learned:
            learner.observe(state, action, following, False)
        state = following
    mu = successor_representation(mdp.under(policy)[0], 0.7)
    assert (policy[..., None] * learned[0].table).sum(1) == pytest.approx(mu, abs=0.02)
    exact = successor_features(mdp.transitions, policy, other, 0.7)
    assert learned[1].table == pytest.approx(exact, abs=0.06)
    assert np.abs(exact).max() > 0.5


def test_deterministic_td_is_exact_and_stops_at_terminal_states():
    """A corridor 0 → 1 → end: ψ sums the features until the end."""
    phi = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[5.0, 5.0]]])
    learner = SuccessorFeatures(phi, np.zeros(3, dtype=int), discount=0.5, step_size=1.0)
    for _ in range(2):
        learner.observe(0, 0, 1, False)
        learner.observe(1, 0, 2, True)
    assert learner.table[:, 0].tolist() == [[1.0, 0.5], [0.0, 1.0], [0.0, 0.0]]
    rows = np.array([[0.0, 1, 0], [0, 0, 1], [0, 0, 0]])
    exact = successor_features(rows, np.zeros(3, dtype=int), phi * [[[1]], [[1]], [[0]]], 0.5)
    assert exact[:, 0].tolist() == [[1.0, 0.5], [0.0, 1.0], [0.0, 0.0]]


# Transfer.


def test_action_values_are_successor_features_times_weights():
    rng = np.random.default_rng(1)
    features, weights = rng.standard_normal((8, 3, 4)), rng.standard_normal(4)
    features[7] = 0.0  # the terminal state
    mdp = random_mdp(rng, rewards=features @ weights, terminal=[7])
    policy = random_policy(rng, mdp)
    psi = successor_features(mdp.transitions, policy, features, mdp.discount)
    exact = mdp.action_values(mdp.evaluate(policy))
    np.testing.assert_allclose(psi @ weights, exact, rtol=1e-9, atol=1e-12)


def test_regression_recovers_the_reward_weights():
    rng = np.random.default_rng(0)
    phi, w = rng.standard_normal((50, 4)), rng.standard_normal(4)
    np.testing.assert_allclose(reward_weights(phi, phi @ w), w, rtol=1e-10)
    noisy = phi @ w + rng.standard_normal(50)
    np.testing.assert_allclose(
        reward_weights(phi, noisy), np.linalg.solve(phi.T @ phi, phi.T @ noisy), rtol=1e-9
    )


@pytest.mark.parametrize("seed", range(8))
def test_improvement_is_no_worse_than_any_policy_of_the_set(seed):
    """Theorem 1 of Barreto et al. on a new task; in some state the improvement is strict."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((10, 4, 3))
    base = random_mdp(rng, states=10, actions=4)
    policies = [random_policy(rng, base) for _ in range(2)]
    policies += [with_rewards(base, features @ rng.standard_normal(3)).optimum().policy]
    psi = np.stack(
        [successor_features(base.transitions, p, features, base.discount) for p in policies]
    )
    weights = rng.standard_normal(3)
    mdp = with_rewards(base, features @ weights)
    found = mdp.evaluate(generalised_improvement(psi, weights))
    each = np.stack([mdp.evaluate(p) for p in policies])
    assert (found >= each.max(0) - 1e-9).all()
    assert found.sum() > each.max(0).sum() + 0.1
    assert (found <= mdp.optimum().values + 1e-9).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_of_transfer_is_bounded_by_the_difference_of_the_tasks(seed):
    """Theorem 2: Q* - Q of the improvement <= 2 / (1 - γ) · max |φ| · the nearest |w - w_k|."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(-1, 1, (10, 4, 3))
    base = random_mdp(rng, states=10, actions=4, discount=0.8)
    known = rng.standard_normal((3, 3))
    psi = np.stack([
        successor_features(
            base.transitions, with_rewards(base, features @ w).optimum().policy, features, 0.8
        )
        for w in known
    ])  # fmt: skip
    weights = known[0] + 0.05 * rng.standard_normal(3)
    mdp = with_rewards(base, features @ weights)
    loss = mdp.optimum().values - mdp.evaluate(generalised_improvement(psi, weights))
    nearest = np.linalg.norm(known - weights, axis=1).min()
    most = 2 / (1 - 0.8) * np.linalg.norm(features, axis=-1).max() * nearest
    assert loss.max() <= most
    # and a task of the set is solved
    mdp = with_rewards(base, features @ known[1])
    solved = mdp.evaluate(generalised_improvement(psi, known[1]))
    np.testing.assert_allclose(solved, mdp.optimum().values, rtol=1e-9)


# Bad input.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: successor_representation(np.ones((2, 3)), 0.9), r"chain must be finite and squ"),
        (lambda: successor_representation(np.eye(2) * math.nan, 0.9), "chain must be finite"),
        (lambda: successor_representation(np.eye(2), 1.0), r"discount must lie in \[0, 1\), got 1"),
        (
            lambda: successor_features(np.eye(3), np.zeros(2, dtype=int), np.ones((2, 1, 1)), 0.5),
            r"transitions must be \(S · A, S\) = \(2, 2\), got \(3, 3\)",
        ),
        (
            lambda: successor_features(np.eye(2), np.ones((2, 2)), np.ones((2, 1, 1)), 0.5),
            r"a policy is \(S, A\) = \(2, 1\) probabilities",
        ),
        (
            lambda: SuccessorFeatures(np.ones((2, 1)), np.zeros(2, dtype=int), discount=0.5),
            r"features must be finite, \(S, A, F\), got \(2, 1\)",
        ),
        (
            lambda: SuccessorFeatures(
                np.ones((2, 1, 1)), np.zeros(2, dtype=int), discount=0.5, step_size=0.0
            ),
            r"step_size must lie in \(0, 1\], got 0.0",
        ),
        (
            lambda: SuccessorFeatures(
                np.ones((2, 1, 1)), np.zeros(2, dtype=int), discount=0.5
            ).observe(0, 1, 0, False),
            r"action must be an integer in 0..0, got 1",
        ),
        (lambda: reward_weights(np.ones((3, 2)), np.ones(2)), r"want features \(N, F\)"),
        (lambda: reward_weights(np.full((3, 2), math.nan), np.ones(3)), "not finite"),
        (
            lambda: generalised_improvement(np.ones((2, 3, 2, 4)), np.ones(3)),
            r"want successors \(K, S, A, F\)",
        ),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
