"""Successor representation and features: predictions of a policy's visits, without rewards.

Dayan 1993, "Improving generalization for temporal difference learning: the successor
representation"; Barreto et al. 2017, "Successor features for transfer in reinforcement learning".
All arrays are numpy float64. `transitions` is as in `FiniteMDP`, (S · A, S): row s · A + a is the
distribution of the next state, and empty if the state is terminal.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu


def successor_representation(chain: Any, discount: float) -> np.ndarray:
    """μ = (1 - γ) (I - γ P)⁻¹, (S, S), of a Markov chain P (S, S), dense or sparse.

    Row s is the discounted distribution of the states visited from s on, s included; it sums to 1
    if no terminal state is reached. Values are V = μ r / (1 - γ). Raises ValueError for a chain
    that is not square or not finite, and for a discount outside [0, 1).
    """
    rows: Any = sparse.csc_array(chain, dtype=float)
    if rows.ndim != 2 or rows.shape[0] != rows.shape[1] or not np.isfinite(rows.data).all():
        raise ValueError(f"chain must be finite and square, (S, S), got {rows.shape}")
    _check_discount(discount)
    states = rows.shape[0]
    matrix = sparse.csc_array(sparse.eye_array(states, format="csc") - discount * rows)
    return (1 - discount) * splu(matrix).solve(np.eye(states))


def successor_features(
    transitions: Any, policy: np.ndarray, features: np.ndarray, discount: float
) -> np.ndarray:
    """ψ (S, A, F) = E[Σ γᵗ φ(s_t, a_t)], where (s_0, a_0) is given and the policy acts afterwards.

    For rewards φ·w the action values are ψ·w. The policy is (S, A) probabilities or (S,) actions.
    Raises ValueError for shapes that do not match, and for a discount outside [0, 1).
    """
    features, policy = _check_features(features), np.asarray(policy)
    states, actions, size = features.shape
    policy = _probabilities(policy, states, actions)
    rows: Any = sparse.csr_array(transitions, dtype=float)
    if rows.shape != (states * actions, states):
        raise ValueError(
            f"transitions must be (S · A, S) = ({states * actions}, {states}), got {rows.shape}"
        )
    _check_discount(discount)
    pairs = np.arange(states * actions)
    pick = sparse.csr_array(
        (policy.ravel(), pairs, np.arange(states + 1) * actions), shape=(states, states * actions)
    )
    matrix = sparse.eye_array(states * actions, format="csc") - discount * (rows @ pick).tocsc()
    solved = splu(sparse.csc_array(matrix)).solve(features.reshape(-1, size))
    return solved.reshape(states, actions, size)


class SuccessorFeatures:
    """ψ of a policy learned by TD, from steps in any order and of any behaviour policy.

    ψ(s, a) is updated towards φ(s, a) + γ Σ π(b | s') ψ(s', b). With features (1 - γ) · [state is
    i], Σ π ψ is the successor representation.

    Args:
        features: φ (S, A, F).
        policy: π, (S, A) probabilities or (S,) actions.
        discount: γ, in [0, 1).
        step_size: α, the step size of the first update of a state and action, in (0, 1].
        step_decay: p; the n-th update has step size α / nᵖ. With p = 1 and α = 1, ψ is the mean of
            its targets.

    Raises:
        ValueError: a value outside these ranges, or an array of another shape.
    """

    def __init__(
        self,
        features: np.ndarray,
        policy: np.ndarray,
        *,
        discount: float,
        step_size: float = 0.1,
        step_decay: float = 0.0,
    ) -> None:
        self.features = _check_features(features)
        self.policy = _probabilities(np.asarray(policy), *self.features.shape[:2])
        _check_discount(discount)
        if not 0 < step_size <= 1:
            raise ValueError(f"step_size must lie in (0, 1], got {step_size!r}")
        if not 0 <= step_decay <= 1:
            raise ValueError(f"step_decay must lie in [0, 1], got {step_decay!r}")
        self.discount, self.step_size, self.step_decay = discount, step_size, step_decay
        self.table = np.zeros_like(self.features)
        """ψ (S, A, F)."""
        self._visits = np.zeros(self.features.shape[:2], dtype=np.int64)

    def observe(self, state: int, action: int, next_state: int, terminated: bool) -> None:
        """Learn from one step.

        Raises ValueError for a state or action out of range.
        """
        states, actions, _ = self.features.shape
        given = {"state": (state, states), "action": (action, actions),
                 "next_state": (next_state, states)}  # fmt: skip
        for name, (value, count) in given.items():
            if not 0 <= value < count or int(value) != value:
                raise ValueError(f"{name} must be an integer in 0..{count - 1}, got {value!r}")
        self._visits[state, action] += 1
        rate = self.step_size / self._visits[state, action] ** self.step_decay
        target = self.features[state, action]
        if not terminated:
            target = target + self.discount * (self.policy[next_state] @ self.table[next_state])
        self.table[state, action] += rate * (target - self.table[state, action])


def reward_weights(features: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """w (F,) that minimises Σ (φ·w - r)² over N steps, with φ (N, F) and r (N,).

    Of several minima it is the one of least norm.

    Raises ValueError for other shapes or numbers that are not finite.
    """
    features, rewards = np.asarray(features, dtype=float), np.asarray(rewards, dtype=float)
    if features.ndim != 2 or rewards.shape != (len(features),) or not len(rewards):
        raise ValueError(
            f"want features (N, F) and rewards (N,), got {features.shape} and {rewards.shape}"
        )
    if not (np.isfinite(features).all() and np.isfinite(rewards).all()):
        raise ValueError("features or rewards hold a number that is not finite")
    return np.linalg.lstsq(features, rewards)[0]


def generalised_improvement(successors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """argmax_a max_k ψ_k(s, a)·w: actions (S,), from ψ (K, S, A, F) of K policies and w (F,).

    For the rewards φ·w this policy is at least as good as each of the K (Barreto et al. 2017,
    theorem 1). Raises ValueError for other shapes or numbers that are not finite.
    """
    successors, weights = np.asarray(successors, dtype=float), np.asarray(weights, dtype=float)
    if successors.ndim != 4 or not len(successors) or weights.shape != successors.shape[-1:]:
        raise ValueError(
            f"want successors (K, S, A, F) and weights (F,), got {successors.shape} and "
            f"{weights.shape}"
        )
    if not (np.isfinite(successors).all() and np.isfinite(weights).all()):
        raise ValueError("successors or weights hold a number that is not finite")
    return (successors @ weights).max(0).argmax(1)


def _probabilities(policy: np.ndarray, states: int, actions: int) -> np.ndarray:
    if policy.shape == (states,) and np.issubdtype(policy.dtype, np.integer):
        if policy.min() < 0 or policy.max() >= actions:
            raise ValueError(f"a policy's actions must lie in 0..{actions - 1}")
        return np.eye(actions)[policy]
    right = policy.shape == (states, actions)
    if not right or not np.allclose(policy.sum(1), 1) or (policy < 0).any():
        raise ValueError(
            f"a policy is (S, A) = ({states}, {actions}) probabilities or (S,) integers, "
            f"got {policy.shape} {policy.dtype}"
        )
    return policy.astype(float)


def _check_features(features: np.ndarray) -> np.ndarray:
    features = np.array(features, dtype=float)
    if features.ndim != 3 or not np.isfinite(features).all():
        raise ValueError(f"features must be finite, (S, A, F), got {features.shape}")
    return features


def _check_discount(discount: float) -> None:
    if not 0 <= discount < 1 or not math.isfinite(discount):
        raise ValueError(f"discount must lie in [0, 1), got {discount!r}")
